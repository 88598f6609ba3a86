"""Scratch memory: arrays for use within one call, whose memory is kept from call to call.

The operating system provides fresh memory page by page, which takes longer than many kernels take to fill it. Scratch
is uninitialised, begins on a cache line, and grows to the largest size ever needed. The next call overwrites its
contents. There are two kinds: `op_scratch` for the Python code of one op, `worker_scratch` for the tasks of one launch.
"""

import math
import threading

import numpy as np

from . import threads

_LINE = 64  # bytes of a cache line
_of_ops = threading.local()
_of_workers: dict[np.dtype, np.ndarray] = {}


def _aligned(dtype, size):
    """``size`` zeros that begin on a cache line."""
    memory = np.zeros(size + _LINE // dtype.itemsize, dtype)
    first = -memory.ctypes.data % _LINE // dtype.itemsize
    return memory[first : first + size]


def _whole_lines(dtype, size):
    """``size`` elements, rounded up to whole cache lines."""
    line = _LINE // dtype.itemsize
    return -(-size // line) * line


def chunks(total, count):
    """``count`` slices of about equal length that cover ``total`` rows, for scratch that holds one at a time; none is empty."""
    parts = [slice(total * i // count, total * (i + 1) // count) for i in range(count)]
    return [part for part in parts if part.start < part.stop]


def op_scratch(owner, dtype, *shapes):
    """Arrays of these shapes. Each ``owner`` (a name) has memory of its own in each Python thread."""
    kept = _of_ops.__dict__.setdefault("kept", {})
    sizes = [math.prod(shape) for shape in shapes]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + _whole_lines(dtype, size))
    block = kept.get((owner, dtype))
    if block is None or block.size < starts[-1]:
        block = kept[owner, dtype] = _aligned(dtype, starts[-1])
    return [block[start : start + size].reshape(shape) for start, size, shape in zip(starts, sizes, shapes)]


def worker_scratch(dtype, size):
    """An array (workers, at least ``size``): row ``worker`` is for the tasks that this worker does.

    Launches take turns, so one array of each type serves all kernels.
    """
    dtype = np.dtype(dtype)
    kept = _of_workers.get(dtype)
    if kept is None or len(kept) < threads.count() or kept.shape[1] < size:
        columns = _whole_lines(dtype, max(size, kept.shape[1] if kept is not None else 0))
        kept = _of_workers[dtype] = _aligned(dtype, threads.count() * columns).reshape(-1, columns)
    return kept
