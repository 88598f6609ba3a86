"""Memory for the arrays of a training step, allocated once and used again in every step.

Every step makes the same arrays in the same order. A ``Workspace`` therefore remembers how much each of its
regions needed, takes that as one block, and hands out the same addresses in every step. After the first
step, the operating system is not asked for memory again. (Page faults on fresh memory cost more than many
of the kernels that fill the memory.)

A region is a stack that is only ever emptied whole. The model uses one region for the arrays that live from forward to
backward, one for a single block's backward, and two that hold the gradient of the residual stream in turn: a
block's input gradient is made in one while its output gradient still lies in the other.
"""

from __future__ import annotations

import math

import numpy as np

from .wording import counted, in_bytes

_ALIGNMENT = 64  # a cache line, and the width of the widest vector register
_CHUNK = 1 << 26  # bytes of a chunk, for a pass that outgrows its block: large enough to go back to the system


class Region:
    """A stack of arrays in one block of memory; ``alloc`` has np.empty's first two arguments."""

    def __init__(self):
        self._block = np.empty(0, np.uint8)
        self._used = 0
        self._overflow = []  # chunks for a pass that outgrew the block; a bigger block follows at reset
        self._left = 0  # bytes of the last chunk

    def reset(self):
        """Forget every array handed out; grow the block to what the last pass needed."""
        if self._used > len(self._block):
            self._overflow.clear()
            self._left = 0
            self._block = aligned_empty((self._used,), np.uint8)
        self._used = 0

    def alloc(self, shape, dtype):
        """An uninitialised array that stays valid until the next ``reset``."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        start = self._used
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        if self._used > len(self._block):
            return self._beyond(size).view(dtype).reshape(shape)
        return self._block[start : start + size].view(dtype).reshape(shape)

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


class Workspace:
    """Named regions, each made at its first use."""

    def __init__(self):
        self._regions = {}

    def begin(self, name):
        """The region ``name``, emptied; returns its ``alloc``."""
        region = self._regions.setdefault(name, Region())
        region.reset()
        return region.alloc

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
