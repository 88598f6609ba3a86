"""Checkpoints written while training goes on.

Parameters and moments only change in the optimizer's update. Copying them for a checkpoint can therefore run beside
the next step's forward and backward, and only the update has to wait until the copy is done; hashing, writing
and flushing then work on the copy. Training loses close to nothing, and what is written is one step's state.
"""

from __future__ import annotations

import threading

import numpy as np

from ..parameters import Parameters
from . import checkpoint


class Saver:
    """Writes checkpoints into ``folder``, one at a time, in a thread of its own."""

    def __init__(self, folder, keep):
        self.folder, self.keep = folder, keep
        self._thread, self._error, self._buffers = None, None, None
        self._copied = threading.Event()

    def save(self, live):
        """Begin to write the ``Checkpoint`` ``live``, whose arrays must not change before ``wait_until_copied``."""
        self.finish()
        self._copied.clear()
        self._thread = threading.Thread(target=self._write, args=(live,), name="checkpoint", daemon=True)
        self._thread.start()

    def wait_until_copied(self):
        """Return when the arrays may change again; raise what a save that has already ended raised."""
        if self._thread is not None:
            self._copied.wait()
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

    def _write(self, live):
        try:
            snapshot = self._copy(live)
            self._copied.set()
            checkpoint.save(self.folder, snapshot, self.keep)
        except BaseException as error:  # handed to the training thread by finish()
            self._error = error
        finally:
            self._copied.set()

    def _copy(self, live):
        sources = (live.params.flat, live.first, live.second)
        if self._buffers is None:
            self._buffers = [np.empty_like(source) for source in sources]
        for buffer, source in zip(self._buffers, sources):
            np.copyto(buffer, source)
        params, first, second = self._buffers
        return live._replace(params=Parameters(live.config, flat=params), first=first, second=second)
