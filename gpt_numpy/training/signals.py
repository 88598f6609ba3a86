"""Ctrl-C and SIGTERM: the first lets the step end and saves, the second ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal

SIGNALLED = "stopped by a signal"  # why a run ended
_HANDLED = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """A context manager; ``number`` is the signal that came, or 0."""

    def __init__(self):
        self.number = 0
        self._before = {}

    def __enter__(self):
        for number in _HANDLED:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self):
        """What a shell expects of a process that a signal ended, 128 + its number; 0 without one."""
        return 128 + self.number if self.number else 0

    def _handle(self, number, frame):
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number
        # os.write, because print may be what the signal interrupted
        text = f"\n{signal.Signals(number).name}: saving after this step; once more to stop at once\n"
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, text.encode())
