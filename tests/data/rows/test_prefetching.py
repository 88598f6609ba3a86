"""Batches made ahead of time: the same ones, in order, with errors and endings where they belong."""

import threading
import time

import pytest

from gpt_numpy.data.rows.prefetching import prefetch


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_gives_what_a_loop_gives(depth):
    assert list(prefetch(lambda step: step * step, range(3, 20), depth)) == [step * step for step in range(3, 20)]
    assert list(prefetch(lambda step: None, range(3))) == [None, None, None]
    assert list(prefetch(str, range(0))) == []


def test_works_ahead_but_no_further_than_asked():
    made = []
    batches = prefetch(lambda step: made.append(step) or step, range(100), depth=2)
    assert next(batches) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]  # one handed out, two ready, one waiting for room
    batches.close()


def test_an_error_comes_at_its_own_step():
    def make(step):
        if step == 3:
            raise ValueError("step 3")
        return step

    seen = []
    with pytest.raises(ValueError, match="step 3"):
        for batch in prefetch(make, range(10)):
            seen.append(batch)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_closing_ends_the_thread(taken):
    before = threading.active_count()
    batches = prefetch(lambda step: step, iter(int, 1), depth=2)  # endless steps
    for _ in range(taken):
        next(batches)
    batches.close()
    assert threading.active_count() == before
