"""The progress of a run: a bar on a terminal, or a line now and then in a log file."""

from __future__ import annotations

import sys
import time

from ..host import terminal

PLAIN_SECONDS = 10  # between lines where there is no terminal
_BAR = "{percentage:3.0f}%|{bar:8}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
_FIRST = ("loss", "val", "tok/s")  # the most important parts, shown where not all fit


def fit(text, room):
    """The parts of ``text`` (divided by two spaces) that fit into ``room`` characters, the most important ones.

    >>> fit("loss 3.1  val 3.2  lr 1e-3  9,000 tok/s  40% of peak", 40)
    'loss 3.1  val 3.2  lr 1e-3  9,000 tok/s'
    >>> fit("loss 3.1  val 3.2  lr 1e-3  9,000 tok/s  40% of peak", 30)
    'loss 3.1  val 3.2  9,000 tok/s'
    """
    parts = text.split("  ")
    ranked = sorted(range(len(parts)), key=lambda i: (not any(word in parts[i] for word in _FIRST), i))
    kept: list[int] = []
    for i in ranked:
        if len("  ".join(parts[j] for j in sorted([*kept, i]))) <= room:
            kept.append(i)
    return "  ".join(parts[i] for i in sorted(kept))


class Progress:
    """Shows steps ``start`` to ``total``. ``quiet`` shows nothing (all ranks but the first)."""

    def __init__(self, start, total, quiet=False):
        self.start, self.step, self.total, self.quiet = start, start, total, quiet
        self._began = self._last_line = time.monotonic()
        self._bar = None
        if terminal.is_interactive(sys.stderr) and not quiet:
            self._bar = terminal.bar(total=total, initial=start, unit="step", bar_format=_BAR)

    def update(self, step, text):
        """Advance by one step; ``text`` is a function that returns loss, speed and so on as text."""
        self.step = step
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            if now - self._last_line > 0.2:
                self._last_line = now
                taken = len(f"100%|12345678| {self.total}/{self.total}, 00:00:00 left, ")
                self._bar.set_postfix_str(fit(text(), terminal.columns() - taken), refresh=False)
        elif not self.quiet and (now - self._last_line >= PLAIN_SECONDS or step == self.total):
            self._last_line = now
            self.say(f"step {step:,}/{self.total:,}  {text()}  eta {self._eta(now)}")

    def say(self, text):
        """Write a line above the bar."""
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
