"""Batches made ahead of the step that needs them, in a thread of their own."""

import queue
import threading


def prefetch(make_batch, steps, depth=2):
    """Yield ``make_batch(step)`` for each of ``steps``, in order, with up to ``depth`` made in advance.

    ``make_batch`` is a pure function of the step, so the results are those of calls in a loop. An exception
    of ``make_batch`` is raised here, at its step. Closing the generator (or leaving its loop and dropping
    it) ends the thread.
    """
    ready = queue.Queue(max(1, depth))
    closed = threading.Event()
    worker = threading.Thread(target=_produce, args=(make_batch, steps, ready, closed), daemon=True, name="prefetch")
    worker.start()
    try:
        while True:
            result, error = ready.get()
            if error is not None:
                raise error
            if result is None:
                return
            yield result[0]
    finally:
        closed.set()
        while not ready.empty():  # a producer waiting for room wakes up and sees that it is closed
            ready.get_nowait()
        worker.join()


def _produce(make_batch, steps, ready, closed):
    try:
        for step in steps:
            if closed.is_set():
                return
            ready.put(((make_batch(step),), None))
        ready.put((None, None))
    except BaseException as error:  # every exception is raised again in the consumer
        ready.put((None, error))
