"""Turns of threads that decode: alone at once, otherwise one after the other, and nobody waits for who has left."""

import os
import threading

import pytest

from gpt_numpy import GPT, GPTConfig, generate
from gpt_numpy.inference import turns as module
from gpt_numpy.inference.panel_decoder import PanelDecoder
from gpt_numpy.inference.turns import Turns
from gpt_numpy.kernels.runtime import threads

FOREVER = 10**6  # seconds


def in_thread(function):
    """A thread that calls the function, with what it returned in ``found``."""
    thread = threading.Thread(target=lambda: thread.found.append(function()), daemon=True)
    thread.found = []
    thread.start()
    return thread


def test_a_thread_alone_never_waits_and_may_use_all_processors(monkeypatch):
    monkeypatch.setattr(module, "TURN", FOREVER)
    turns = Turns()
    assert [turns.take() for _ in range(5)] == [False] * 5
    monkeypatch.setattr(module, "TURN", 0)
    assert [turns.take() for _ in range(5)] == [False] * 5


def test_others_wait_while_a_turn_lasts_and_then_follow(monkeypatch):
    monkeypatch.setattr(module, "TURN", FOREVER)
    monkeypatch.setattr(module, "RECENT", FOREVER)
    turns = Turns()
    turns.take()
    other = in_thread(turns.take)
    other.join(0.2)
    assert other.is_alive()
    turns.take()  # its own turn goes on
    other.join(0.1)
    assert other.is_alive()
    now = module.time.monotonic
    monkeypatch.setattr(module.time, "monotonic", lambda: now() + 1.5 * FOREVER)
    mine = in_thread(turns.take)  # a third sees that the turn is over, and the second is first
    other.join(60)
    assert other.found == [True]
    assert mine.is_alive()


def test_nobody_waits_for_a_thread_that_has_left():
    turns = Turns()
    turns.take()  # here, and never again
    later = in_thread(turns.take)
    later.join(60)
    assert later.found == [True]


@pytest.mark.parametrize("n_threads", [2, 8])
def test_many_threads_all_come_through(n_threads, monkeypatch):
    monkeypatch.setattr(module, "TURN", 1e-4)
    turns = Turns()
    callers = [in_thread(lambda: [turns.take() for _ in range(200)]) for _ in range(n_threads)]
    for caller in callers:
        caller.join(120)
    assert [len(caller.found[0]) for caller in callers] == [200] * n_threads
    assert not turns._waiting


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only on systems that fork")
def test_a_forked_child_waits_for_none_of_its_parents_threads(monkeypatch):
    monkeypatch.setattr(module, "TURN", FOREVER)
    try:
        in_thread(module.turns.take).join(60)
        child = os.fork()
        if child == 0:
            done = in_thread(module.turns.take)
            done.join(60)
            os._exit(done.found != [False])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        module.turns.forget()


def test_threads_with_a_small_model_compute_with_one_worker_each(monkeypatch):
    monkeypatch.setattr(threads, "count", lambda: 2)
    monkeypatch.setattr(module, "RECENT", FOREVER)
    decoder, used = PanelDecoder.pack(GPT(GPTConfig(61, 48, 2, 2, 32), seed=0)), []
    buffers_for = decoder._buffers_for
    decoder._buffers_for = lambda cache, rows, workers: used.append(workers) or buffers_for(cache, rows, workers)
    module.turns.forget()
    expected = generate(decoder, [1, 2], 4, seed=0).tolist()
    assert set(used) == {2}
    used.clear()
    other = in_thread(lambda: generate(decoder, [1, 2], 4, seed=0).tolist())
    other.join(120)
    module.turns.forget()
    assert other.found == [expected]
    assert set(used) == {1}
