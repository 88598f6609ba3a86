"""Memory for the arrays of a training step, allocated once and used again in every step.

Every step makes the same arrays in the same order. A ``Workspace`` therefore remembers how much each of its
regions needed, takes that as one block, and hands out the same addresses in every step. After the first
step, the operating system is not asked for memory again. (Page faults on fresh memory cost more than many
of the kernels that fill the memory.)

A region is a stack that is only ever emptied whole. The model uses one region for the arrays that live from forward to
backward, one for a single block's backward, and two that hold the gradient of the residual stream in turn: a
block's input gradient is made in one while its output gradient still lies in the other.

Not only the addresses come again, but the same array objects. An op whose arguments are all the same objects as in the
last pass need not check them again: ``Calls`` keeps what such an op remembers (``kernels.runtime.remembering``).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable

import numpy as np

from .wording import counted, in_bytes

_ALIGNMENT = 64  # a cache line, and the width of the widest vector register
_CHUNK = 1 << 26  # bytes of a chunk, for a pass that outgrows its block: large enough to go back to the system
_MOST_VIEWS = 4096  # arrays that a region hands out again
_MOST_KINDS = 4  # of passes whose calls are remembered: training, validation, and their last batches


class Region:
    """A stack of arrays in one block of memory; ``alloc`` has np.empty's first two arguments."""

    def __init__(self):
        self._block = np.empty(0, np.uint8)
        self._used = 0
        self._overflow = []  # chunks for a pass that outgrew the block; a bigger block follows at reset
        self._left = 0  # bytes of the last chunk
        self._views = {}  # (start, shape, dtype) → the array there, and where the next one begins

    def reset(self):
        """Forget every array handed out; grow the block to what the last pass needed."""
        grows = self.overflows
        if grows or len(self._views) > _MOST_VIEWS:
            self._views = {}
        if grows:
            self._overflow.clear()
            self._left = 0
            self._block = np.empty(0, np.uint8)  # the old memory goes first
            self._block = aligned_empty((self._used,), np.uint8)
        self._used = 0

    def alloc(self, shape, dtype):
        """An uninitialised array that stays valid until the next ``reset``; after it, the same object may come again."""
        known = self._views.get((self._used, shape, dtype))
        if known is not None:
            array, self._used = known
            return array
        key, size = (self._used, shape, dtype), math.prod(shape) * np.dtype(dtype).itemsize
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        if self._used > len(self._block):
            return self._beyond(size).view(dtype).reshape(shape)
        array = self._block[key[0] : key[0] + size].view(dtype).reshape(shape)
        self._views[key] = array, self._used
        return array

    def advance(self, nbytes):
        """Hand out, all at once, the arrays that an earlier pass got up to its byte ``nbytes``."""
        self._used = nbytes

    @property
    def overflows(self):
        """Whether the current pass has outgrown the block, so that its arrays will not come again."""
        return self._used > len(self._block)

    def _beyond(self, size):
        padded = -(-size // _ALIGNMENT) * _ALIGNMENT
        if padded > self._left or not self._overflow:
            self._left = max(padded, _CHUNK)
            self._overflow.append(aligned_empty((self._left,), np.uint8))
        start = len(self._overflow[-1]) - self._left
        self._left -= padded
        return self._overflow[-1][start : start + size]

    @property
    def nbytes(self):
        """Bytes taken so far by the current pass."""
        return self._used


class Calls:
    """What ops remember of their calls in passes of one kind. A call that the newest pass did not make is forgotten."""

    def __init__(self):
        self._by_key = {}
        self._pass, self._added = 0, False

    def begin(self):
        """A pass of this kind begins."""
        if self._added:
            self._by_key = {key: kept for key, kept in self._by_key.items() if kept.newest_pass == self._pass}
        self._pass, self._added = self._pass + 1, False

    def forget(self):
        """Forget all calls."""
        self._by_key = {}

    def find(self, key):
        """What was remembered of the call ``key``, or None."""
        kept = self._by_key.get(key)
        if kept is not None:
            kept.newest_pass = self._pass
        return kept

    def add(self, key, kept):
        """Remember ``kept``, which has an attribute ``newest_pass``."""
        kept.newest_pass, self._by_key[key], self._added = self._pass, kept, True


class Alloc:
    """The ``alloc`` of a region, with the ``Calls`` of the pass that is going on in ``current.calls`` (None: remember none)."""

    __slots__ = ("current", "region")

    def __init__(self, region, current):
        self.region, self.current = region, current

    def __call__(self, shape, dtype):
        return self.region.alloc(shape, dtype)


class _Current:
    """The ``Calls`` of the pass that is going on; None for none."""

    def __init__(self):
        self.calls = None

    @contextlib.contextmanager
    def paused(self):
        """Within it, there are none; yields those outside."""
        calls, self.calls = self.calls, None
        try:
            yield calls
        finally:
            self.calls = calls


class Workspace:
    """Named regions, each made at its first use."""

    def __init__(self):
        self._regions, self._allocs = {}, {}
        self._kinds = {}  # of passes, the newest last: kind → Calls
        self._current = _Current()

    def begin_pass(self, kind: Hashable) -> None:
        """A pass begins. ``kind``, such as the shape of its batch, is the same for passes that make the same arrays."""
        calls = self._kinds.pop(kind, None) or Calls()
        calls.begin()
        self._kinds[kind] = self._current.calls = calls
        if len(self._kinds) > _MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]

    def begin(self, name: str) -> Alloc:
        """The region ``name``, emptied; returns its ``Alloc``."""
        alloc = self._allocs.get(name)
        if alloc is None:
            region = self._regions[name] = Region()
            alloc = self._allocs[name] = Alloc(region, self._current)
        if alloc.region.overflows:  # its block is about to go, and with it arrays of the calls
            for calls in self._kinds.values():
                calls.forget()
        alloc.region.reset()
        return alloc

    def __repr__(self):
        return f"<Workspace: {counted(len(self._regions), 'region')}, {in_bytes(self.nbytes)}>"

    @property
    def nbytes(self):
        """Bytes of all regions, as of their last pass."""
        return sum(region.nbytes for region in self._regions.values())


def aligned_empty(shape, dtype):
    """``np.empty`` that begins on a cache line."""
    return _aligned(np.empty, shape, dtype)


def aligned_zeros(shape, dtype):
    """``np.zeros`` that begins on a cache line."""
    return _aligned(np.zeros, shape, dtype)


def _aligned(make, shape, dtype):
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    raw = make(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)
