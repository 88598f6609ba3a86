"""Output of commands: escaped on a terminal, unchanged into a pipe or file, in any encoding.

The text of a model, a file or a path may hold a control sequence that moves the cursor, clears the screen, renames
the window or answers as if the user had typed. On a terminal every control character is therefore written as its
escape (``\\x1b``). Colours and progress bars need control characters: they are written to `unescaped`, and foreign text
in them is made `printable` first.

Standard output may have any encoding: characters outside the encoding are written as escapes. Standard output may also
close during a long run (``| head``, a full disk, a closed terminal): a run `survives` that.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Callable
from typing import TextIO

from ..wording import fault_of, in_words

NARROWEST, WIDEST = 40, 300  # columns that output is laid out for

# C0 but for tab and line feed, DEL, C1, and the marks that make a terminal show text in another order
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """``text`` with its control characters, tab and line feed excepted, as the escapes that Python would write."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def columns() -> int:
    """Columns of the terminal, or of ``COLUMNS``; 80 where there is neither."""
    return min(WIDEST, max(NARROWEST, shutil.get_terminal_size().columns))


def fitted(text: str, stream: TextIO) -> str:
    """``text`` with its lines cut to the terminal's width, where ``stream`` is a terminal: a table stays a table."""
    if not stream.isatty():
        return text
    most = columns()
    return "\n".join(line if len(line) <= most else f"{line[: most - 1]}…" for line in text.split("\n"))


def is_interactive(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal on which a progress bar can be redrawn."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def wants_colour(choice: str, stream: TextIO) -> bool:
    """Whether to colour text on ``stream``; ``choice`` is always, never, or auto: on a terminal without NO_COLOR."""
    return choice == "always" or (choice == "auto" and is_interactive(stream) and not os.environ.get("NO_COLOR"))


class Output:
    """A text stream around another one: escapes control characters, and may be lost without an exception."""

    def __init__(self, stream, escapes, survives=False):
        self.stream, self.escapes, self.survives = stream, escapes, survives

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def __eq__(self, other):
        """Whether both write to the same stream: tqdm asks this before it writes a line above its bar."""
        return self.stream is getattr(other, "stream", other)

    def __hash__(self):
        return hash(self.stream)

    def write(self, text: str) -> int:
        try:
            self.stream.write(printable(text) if self.escapes else text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        try:
            self.stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error):
        """Go on without the stream where `survives` allows that; a warning goes to the other standard stream."""
        is_error = self.stream.fileno() == 2
        name, other = ("standard error", sys.stdout) if is_error else ("standard output", sys.stderr)
        discard(self.stream)  # what the stream still holds would fail, and be reported, once more
        if not self.survives:
            raise type(error)(error.errno, error.strerror, name) from None
        print(f"warning: {name} is gone ({fault_of(error)}); the run goes on without it", file=other, flush=True)


def unescaped(stream: TextIO | Output) -> TextIO | Output:
    """``stream`` for text that holds control characters on purpose."""
    return Output(stream.stream, False, stream.survives) if isinstance(stream, Output) else stream


@functools.cache
def _bar_class():
    """tqdm's bar with a lock of its own, which processes do not share.

    tqdm's own lock is a semaphore that a fork inherits: a process that is killed while it draws keeps it for ever,
    and every other process of the family then waits for it. It also starts a process that watches the semaphore.
    """
    from tqdm import tqdm

    class Bar(tqdm):
        pass

    Bar.set_lock(threading.RLock())
    if hasattr(os, "register_at_fork"):  # a thread that holds the lock does not exist in the child
        os.register_at_fork(after_in_child=lambda: Bar.set_lock(threading.RLock()))
    return Bar


def bar(**options):
    """A tqdm bar on standard error, which shows nothing unless standard error is a terminal; ``desc`` may be foreign text."""
    options.setdefault("disable", not is_interactive(sys.stderr))
    options["desc"] = printable(options.get("desc") or "") or None
    return _bar_class()(file=unescaped(sys.stderr), dynamic_ncols=True, **options)


def discard(stream: TextIO) -> None:
    """Discard the text that ``stream`` still holds and all text written to it from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def run_program(command: str, run: Callable[[], int], survives: bool = False) -> int:
    """``run()`` in a process of its own, with an `Output` as standard output and error; returns the exit code.

    ``survives``: losing them is no error. A Python warning becomes one line, which begins with ``command``.
    """
    before = sys.stdout, sys.stderr, warnings.showwarning
    _take_over(command, survives)
    try:
        try:
            code = run()
        except SystemExit as end:  # a parser's, after --help or a mistake
            if isinstance(end.code, str):
                raise
            code = end.code or 0
        return _finish(command, code)
    finally:
        sys.stdout, sys.stderr, warnings.showwarning = before


def _take_over(command, survives):
    _open_missing()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # its descriptor was closed when the process began
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open as long as the process lives)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, Output(stream, stream.isatty(), survives))
    warnings.showwarning = functools.partial(_show_warning, command)


def _show_warning(command, message, category, filename, lineno, file=None, line=None):
    print(f"{command}: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _finish(command, code):
    """Write out what standard output still holds; returns ``code`` if that goes well."""
    try:
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has closed the pipe (``| head``)
        return 128 + 13
    except OSError as error:
        print(f"{command}: {in_words(error)}", file=sys.stderr)
        return code or 3


def _open_missing():
    """Open the null device as each of descriptors 0 to 2 that is closed.

    ``os.open`` gives the lowest free number, so that the next file would otherwise get such a number, and the output.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
