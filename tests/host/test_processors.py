"""How much other programs slow this one: only what takes processors that this process would use."""

import pytest

from gpt_numpy.host import processors

START = (100.0, 50.0, 10.0)  # seconds busy, idle, and of this process


@pytest.mark.parametrize(
    "busy,idle,own,threads,said",
    [
        (10, 0, 10, 2, 0.0),  # all that was busy was this process
        (5, 5, 0, 2, 1.0),  # one of two processors was somebody else's
        (10, 0, 5, 2, 1.0),
        (5, 5, 0, 1, 0.0),  # one processor is left, and no more is wanted
        (0, 0, 0, 2, 0.0),  # no time has passed
    ],
)
def test_others_are_what_the_processors_did_besides_this_process(busy, idle, own, threads, said, monkeypatch):
    now = tuple(a + b for a, b in zip(START, (busy, idle, own)))
    monkeypatch.setattr(processors, "_at_the_start", START)
    monkeypatch.setattr(processors, "_times", lambda: now)
    monkeypatch.setattr(processors, "cores", lambda: {0, 1})
    monkeypatch.setattr(processors, "thread_count", lambda: threads)
    assert processors.others_busy() == pytest.approx(said)


def test_elsewhere_the_load_of_the_last_minute_stands_in(monkeypatch):
    monkeypatch.setattr(processors, "_times", lambda: None)
    monkeypatch.setattr(processors.os, "getloadavg", lambda: (2.5, 0, 0), raising=False)
    assert processors.others_busy() == 1.5
    monkeypatch.setattr(processors.os, "getloadavg", lambda: (0.3, 0, 0), raising=False)
    assert processors.others_busy() == 0.0
