"""Tasks in turn on several threads: each is done once, and the first error is raised."""

import threading

import pytest

from gpt_numpy.kernels.bpe.sharing import in_turn


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_task_is_done_once_and_one_thread_is_the_calling_one(threads):
    done = []
    in_turn(lambda number: done.append((number, threading.get_ident())), 200, threads)
    assert sorted(number for number, _ in done) == list(range(200))
    if threads == 1:
        assert sum(thread == threading.get_ident() for _, thread in done) == 200


def test_the_error_of_the_lowest_number_is_raised_and_ends_the_work():
    begun, both = [], threading.Barrier(2)

    def task(number):
        begun.append(number)
        if number < 2:
            both.wait(10)
            raise ValueError(number)

    with pytest.raises(ValueError, match="^0$"):
        in_turn(task, 1000, 2)
    assert len(begun) < 10


def test_no_task():
    in_turn(None, 0, 3)
