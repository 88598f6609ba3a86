import io
import sys

import pytest

from gpt_numpy.training import progress
from gpt_numpy.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = Progress(5, 10)
    for step in range(6, 11):
        bar.update(step, lambda: "loss 1.234")
    bar.say("a line")
    bar.close()
    assert "10/10" in screen.getvalue() and "a line" in capsys.readouterr().out


def test_lines_now_and_then_elsewhere(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    bar = Progress(0, 1000)
    for step in range(1, 41):
        clock[0] += 1.0
        bar.update(step, lambda: "loss 1.234")
    bar.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"step {step}/1,000  loss 1.234  eta {eta}"
        for step, eta in ((10, "0:16:30"), (20, "0:16:20"), (30, "0:16:10"), (40, "0:16:00"))
    ]


def test_the_last_step_always_has_its_line(capsys):
    bar = Progress(0, 2)
    bar.update(1, lambda: "one")
    bar.update(2, lambda: "two")
    assert capsys.readouterr().out == "step 2/2  two  eta 0:00:00\n"


def test_quiet_is_quiet(capsys):
    bar = Progress(0, 2, quiet=True)
    bar.update(2, lambda: pytest.fail("nobody asked"))
    bar.say("nothing")
    bar.close()
    assert capsys.readouterr() == ("", "")
