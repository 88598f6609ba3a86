"""A line on the terminal while kernels are compiled, which happens once on a machine and may take half a minute.

numba compiles a kernel at its first call, for example in the middle of a tokenizer's training or after the first word of
a text. Commands call ``announce`` at their start. From then on, standard error shows a line with the seconds so far
whenever compiling takes longer than a second; the line disappears when the kernels are ready. Nothing is written unless
standard error is a terminal.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time

from .terminal import is_interactive, unescaped

PATIENCE = 1.0  # seconds of compiling before a line appears
_IDLE = 0.4  # seconds without compiling after which the line goes
_announced = False
_hidden = 0


def announce() -> None:
    """Show a line on the terminal while kernels compile, from now on. Call this before the kernels are imported."""
    global _announced
    _announced = True


@contextlib.contextmanager
def hidden():
    """Show no line inside this context, where the caller shows the progress of compiling."""
    global _hidden
    _hidden += 1
    try:
        yield
    finally:
        _hidden -= 1


def watch() -> None:
    """Register with numba if ``announce`` was called. The kernels call this when they are imported."""
    if _announced:
        from numba.core import event

        event.register("numba:compile", _listener(event.Listener))


def _listener(base):
    class Listener(base):
        """Counts the kernels that are being compiled, and has a thread draw the line."""

        def __init__(self):
            self.depth, self.done, self.spent, self.began, self.ended = 0, 0, 0.0, 0.0, 0.0
            self.thread = None

        def on_start(self, event):
            self.depth += 1
            if self.depth == 1:
                self.began = time.monotonic()
                if self.thread is None or not self.thread.is_alive():
                    self.done, self.spent = 0, 0.0
                    self.thread = threading.Thread(target=self.draw, name="compiling", daemon=True)
                    self.thread.start()

        def on_end(self, event):
            self.depth -= 1
            if self.depth == 0:
                self.ended = time.monotonic()
                self.spent += self.ended - self.began
                self.done += 1

        def draw(self):
            line = Line(sys.stderr)
            while self.depth or time.monotonic() - self.ended < _IDLE:
                seconds = self.spent + (time.monotonic() - self.began if self.depth else 0)
                if seconds >= PATIENCE and self.depth and not _hidden:
                    line.show(f"compiling kernels, once on this machine: {self.done} ready after {seconds:.0f} s")
                elif _hidden or not self.depth:
                    line.clear()
                time.sleep(0.1)
            line.clear()

    return Listener()


class Line:
    """One line of a terminal that is redrawn and at last erased; elsewhere nothing is written."""

    def __init__(self, stream):
        self.stream, self.shown = unescaped(stream), ""
        self.interactive = is_interactive(stream)

    def show(self, text):
        if text != self.shown and self.interactive:
            self.stream.write(f"\r\x1b[K{text} …")
            self.stream.flush()
            self.shown = text

    def clear(self):
        if self.shown:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self.shown = ""
