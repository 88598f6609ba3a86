"""What a person sees of a run: a progress bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time

from ..host import terminal

PLAIN_SECONDS = 10  # between lines where there is no terminal


class Progress:
    """Shows steps ``start`` to ``total``. ``quiet`` shows nothing (all ranks but the first)."""

    def __init__(self, start, total, quiet=False):
        self.start, self.step, self.total, self.quiet = start, start, total, quiet
        self._began = self._last_line = time.monotonic()
        self._bar = None
        if terminal.is_interactive(sys.stderr) and not quiet:
            self._bar = terminal.bar(total=total, initial=start, unit="step")

    def update(self, step, text):
        """One step on; ``text`` (a function that makes it) holds loss, speed and so on."""
        self.step = step
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            if now - self._last_line > 0.2:
                self._last_line = now
                self._bar.set_postfix_str(text(), refresh=False)
        elif not self.quiet and (now - self._last_line >= PLAIN_SECONDS or step == self.total):
            self._last_line = now
            self.say(f"step {step:,}/{self.total:,}  {text()}  eta {self._eta(now)}")

    def say(self, text):
        """A line above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        elif not self.quiet:
            print(text, flush=True)

    def close(self):
        if self._bar is not None:
            self._bar.close()

    def _eta(self, now):
        done = self.step - self.start
        seconds = round((now - self._began) / max(done, 1) * (self.total - self.step))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
