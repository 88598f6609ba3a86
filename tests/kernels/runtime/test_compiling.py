"""A line while kernels are compiled, and processes that help."""

import io
import sys
import threading
import time

import numpy as np
import pytest

from gpt_numpy.host import compiling
from gpt_numpy.kernels.runtime import warm_up


class Terminal(io.StringIO):
    def isatty(self):
        return True


def listener():
    return compiling._listener(object)


@pytest.mark.parametrize("screen,seen", [(Terminal(), True), (io.StringIO(), False)])
def test_a_line_stands_while_compiling_takes_long_and_goes(screen, seen, monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(compiling, "PATIENCE", 0.0)
    monkeypatch.setattr(compiling, "_IDLE", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    watching = listener()
    watching.on_start(None)
    deadline = time.monotonic() + 20
    while "compiling kernels" not in screen.getvalue() and seen and time.monotonic() < deadline:
        time.sleep(0.01)
    watching.on_start(None)  # a kernel that another one calls
    watching.on_end(None)
    watching.on_end(None)
    watching.thread.join(20)
    assert ("compiling kernels, once on this machine: 0 ready" in screen.getvalue()) == seen
    assert screen.getvalue().endswith("\r\x1b[K") == seen and watching.done == 1


def test_what_is_quick_is_not_announced(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(compiling, "_IDLE", 0.0)
    watching = listener()
    watching.on_start(None)
    watching.on_end(None)
    watching.thread.join(20)
    assert screen.getvalue() == ""


def test_helpers_take_what_nobody_has_begun(monkeypatch):
    began = threading.Event()
    served = []
    monkeypatch.setattr(warm_up, "_OPS", {name: lambda dtype, name=name: served.append(name) for name in "abcde"})
    monkeypatch.setattr(warm_up, "_USUAL", tuple("abcde"))
    monkeypatch.setattr(warm_up.Helpers, "_feed", lambda self: (served.append(self.waiting.popleft()), began.set()))
    helpers = warm_up.Helpers(np.float32, 1)
    began.wait(20)
    warm_up.compile_kernels(np.float32, show_progress=False, helpers=helpers)
    assert served == ["a", "e", "d", "c", "b", "a"]  # the helper's a; then all of them here, where that one is loaded
    assert not helpers.waiting


def test_a_helper_that_dies_gives_back_its_work(monkeypatch):
    monkeypatch.setattr(sys, "executable", sys.executable)
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")  # the helper cannot even start
    helpers = warm_up.Helpers(np.float32, 1)
    assert not helpers.finished() and list(helpers.waiting) == list(warm_up._USUAL)


def test_a_helper_compiles_what_it_is_told():
    helpers = warm_up.Helpers(np.float32, 1)
    assert helpers.finished() and not helpers.waiting
