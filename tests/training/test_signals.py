import os
import signal

import pytest

from gpt_numpy.training.session import StopSignal
from tests.training.faults import in_child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_is_remembered(number, capfd):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.number == 0 and stop.exit_code == 0
        os.kill(os.getpid(), number)
        assert stop.number == number and stop.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert f"{signal.Signals(number).name}: saving after this step" in capfd.readouterr().err


@pytest.mark.parametrize(
    "numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)]
)
def test_the_second_ends_the_process_at_once(numbers):
    def child():
        with StopSignal():
            for number in numbers:
                os.kill(os.getpid(), number)

    assert in_child(child) == -numbers[1]


def test_a_second_hangup_does_not_end_what_saves():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == signal.SIGTERM


def test_an_ignored_hangup_stays_ignored_as_nohup_wants():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.number == 0
    finally:
        signal.signal(signal.SIGHUP, before)
