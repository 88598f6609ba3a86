"""Checkpoints written while training goes on.

A save copies parameters and moments into the saver's own memory, on all cores. The copy takes as long as reading and
writing them once. A thread then hashes, writes and flushes the copy. (A copy made in that thread would slow training down
more: the thread would take a core from the training step, and a step is as slow as its slowest thread.)
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..host.processors import thread_count
from ..interop.beside import NOTHING
from ..parameters import Parameters
from . import checkpoint

_PIECE = 1 << 22  # elements that a thread copies at a time
_MOST_THREADS = 4  # more threads do not copy faster


class Saver:
    """Writes checkpoints of models with parameters like ``params`` into ``folder``, one at a time, in a thread.

    beside: what the folder of the initial model says about its texts, written into each checkpoint.
    """

    def __init__(self, folder, keep, params, beside=NOTHING):
        self.folder, self.keep, self._beside = folder, keep, beside
        self._thread, self._error = None, None
        self._buffers = [np.empty_like(params.flat) for _ in range(3)]
        # The first touch of so much memory can take longer than the copy, so it happens here, before the first save.
        self._touch = threading.Thread(target=self._touch_all, name="checkpoint memory", daemon=True)
        self._touch.start()

    def save(self, live):
        """Begin to write the ``Checkpoint`` ``live``; when this returns, its arrays may change."""
        self.finish()
        self._touch.join()
        _copy(self._buffers, (live.params.flat, live.first, live.second))
        params, first, second = self._buffers
        params = Parameters(live.config, flat=params)
        snapshot = live._replace(params=params, first=first, second=second, beside=self._beside)
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="checkpoint", daemon=True)
        self._thread.start()

    def check(self):
        """Raise the error of a save that has ended."""
        if self._error is not None:
            self.finish()

    def finish(self):
        """Wait for the save under way, and raise its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, snapshot):
        try:
            checkpoint.save(self.folder, snapshot, self.keep)
        except BaseException as error:  # handed to the training thread by check() or finish()
            self._error = error

    def _touch_all(self):
        for buffer in self._buffers:
            buffer.fill(0)


def _copy(targets, sources):
    """Copy arrays onto arrays, in threads."""
    pieces = [
        (target[start : start + _PIECE], source[start : start + _PIECE])
        for target, source in zip(targets, sources, strict=True)
        for start in range(0, len(source), _PIECE)
    ]
    with ThreadPoolExecutor(min(_MOST_THREADS, thread_count())) as pool:
        for _ in pool.map(lambda piece: np.copyto(*piece), pieces):
            pass
