"""The residual connection, with the branch's dropout in the same pass. The twin of ``layers.residual``."""

from typing import NamedTuple

import numpy as np

from .dropout import DropoutCache, dropout_backward, keep_factors, mask_of, row_hash, rows_of
from .runtime.checks import check_shape, flat, one_dtype
from .runtime.decorators import part
from .runtime.remembering import remembered
from .runtime.threads import launcher, parallel_for
from .runtime.vectors import lanes, load, load_tail, store, store_tail

_BLOCK = 1 << 14  # elements a task
_ROWS = 16  # rows a task, with dropout


class ResidualCache(NamedTuple):
    dropout_cache: DropoutCache | None


@part
def _add_block(worker, task, x, branch, out):
    i, stop = task * _BLOCK, min(x.size, (task + 1) * _BLOCK)
    while i + lanes(x) <= stop:
        store(out, i, load(x, i) + load(branch, i))
        i += lanes(x)
    if i < stop:
        store_tail(out, i, load_tail(x, i, stop - i) + load_tail(branch, i, stop - i), stop - i)


@launcher
def _add(n_tasks, x, branch, out):
    parallel_for(_add_block, n_tasks, (x, branch, out))


@part
def _add_dropped_rows(worker, task, x, branch, out, n_rows, mask):
    columns = x.size // n_rows
    for row in range(task * _ROWS, min(n_rows, (task + 1) * _ROWS)):
        hashed, base, j = row_hash(mask, row), row * columns, 0
        while j + lanes(x) <= columns:
            kept = load(branch, base + j) * keep_factors(x, mask, hashed, j)
            store(out, base + j, load(x, base + j) + kept)
            j += lanes(x)
        if j < columns:
            n = columns - j
            kept = load_tail(branch, base + j, n) * keep_factors(x, mask, hashed, j)
            store_tail(out, base + j, load_tail(x, base + j, n) + kept, n)


@launcher
def _add_dropped(n_tasks, x, branch, out, n_rows, mask):
    parallel_for(_add_dropped_rows, n_tasks, (x, branch, out, n_rows, mask))


@remembered(unless=lambda x, branch, dropout=None, alloc=None: dropout is not None)
def residual_forward(x, branch, dropout=None, alloc=np.empty):
    """out = x + dropout(branch); all (B, T, C)."""
    dtype = one_dtype(1, x=x, branch=branch)
    check_shape("branch", branch, x.shape)
    out = alloc(x.shape, dtype)
    if dropout is None:
        _add(-(-x.size // _BLOCK), flat(x), flat(branch), out.reshape(-1))
        return out, ResidualCache(None)
    n_rows, rows_per_sequence = rows_of(x.shape)
    mask = mask_of(dropout, rows_per_sequence, dtype)
    if x.size:
        _add_dropped(-(-n_rows // _ROWS), flat(x), flat(branch), out.reshape(-1), n_rows, mask)
    return out, ResidualCache(DropoutCache(dropout))


def residual_backward(dout, cache, alloc=np.empty):
    """Gradients dx and dbranch; without dropout both are ``dout`` itself, so neither may be written to."""
    if cache.dropout_cache is None:
        return dout, dout
    return dout, dropout_backward(dout, cache.dropout_cache, alloc)
