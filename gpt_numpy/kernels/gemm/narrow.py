"""Narrow arrays: numbers kept in memory as bfloat16, two bytes each, in uint16, for which NumPy has no type of its own.

``runtime.bfloat16`` has the operations with which kernels read and write them. `narrow` and `widen` convert whole arrays,
in one pass over memory.
"""

import numpy as np

from ..runtime.bfloat16 import load_number, load_number_tail, store_number, store_number_tail
from ..runtime.decorators import part
from ..runtime.threads import launcher, parallel_for
from ..runtime.vectors import lanes

NARROW = np.dtype(np.uint16)

_BLOCK = 1 << 14  # elements a task, a multiple of every vector's length


@part
def _convert_block(worker, task, x, out):
    i, stop = task * _BLOCK, min(x.size, (task + 1) * _BLOCK)
    step = lanes(load_number_tail(x, i, 0))
    while i + step <= stop:
        store_number(out, i, load_number(x, i))
        i += step
    if i < stop:
        store_number_tail(out, i, load_number_tail(x, i, stop - i), stop - i)


@launcher
def _convert(n_tasks, x, out):
    parallel_for(_convert_block, n_tasks, (x, out))


def narrow(x, out):
    """out = x, each float32 rounded to the nearest bfloat16, as packing rounds; contiguous arrays of the same size."""
    _convert(-(-x.size // _BLOCK), x.reshape(-1), out.reshape(-1))
    return out


def widen(x, out):
    """out = x, each bfloat16 as a float32; contiguous arrays of the same size."""
    _convert(-(-x.size // _BLOCK), x.reshape(-1), out.reshape(-1))
    return out
