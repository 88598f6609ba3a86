"""Token and position embedding: rows gathered in parallel, and their gradients scattered without a race.

If each task took some tokens, two threads could add to one row of dwte. Instead every row has one owner: the task
with the row's number modulo `_OWNERS`. Each task goes through all tokens in order and adds those of its own rows. The
sums are then in the order of the tokens, for any number of threads. The twin is ``layers.embedding``.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import own_tokens
from .runtime.checks import check_shape, flat, given, gradients, one_dtype
from .runtime.decorators import part
from .runtime.threads import launcher, parallel_for
from .runtime.vectors import lanes, load, load_tail, store, store_tail

_OWNERS = 16
_ROWS = 16  # rows a task of the forward


class EmbeddingCache(NamedTuple):
    tokens: np.ndarray  # (B·T,) int64
    positions: np.ndarray | None  # (B·T,) int64, or (T,), the same in every sequence
    wte_shape: tuple
    wpe_shape: tuple | None
    tokens_shape: tuple  # (B, T)


@part
def _gather_rows(worker, task, tokens, positions, wte, wpe, out, C):
    for row in range(task * _ROWS, min(tokens.size, (task + 1) * _ROWS)):
        token, position, base, j = tokens[row] * C, positions[row % positions.size] * C, row * C, 0
        while j + lanes(out) <= C:
            store(out, base + j, load(wte, token + j) + load(wpe, position + j))
            j += lanes(out)
        if j < C:
            store_tail(out, base + j, load_tail(wte, token + j, C - j) + load_tail(wpe, position + j, C - j), C - j)


@launcher
def _gather(n_tasks, tokens, positions, wte, wpe, out, C):
    parallel_for(_gather_rows, n_tasks, (tokens, positions, wte, wpe, out, C))


@part
def _add_owned_rows(worker, task, index, dout, table, C):
    for row in range(dout.size // C):
        number = index[row % index.size]
        if number % _OWNERS == task:
            to, base, j = number * C, row * C, 0
            while j + lanes(table) <= C:
                store(table, to + j, load(table, to + j) + load(dout, base + j))
                j += lanes(table)
            if j < C:
                store_tail(table, to + j, load_tail(table, to + j, C - j) + load_tail(dout, base + j, C - j), C - j)


@launcher
def _scatter(index, dout, table, C):
    parallel_for(_add_owned_rows, _OWNERS, (index, dout, table, C))


def embedding_forward(tokens, positions, wte, wpe, alloc=np.empty):
    """out[b, t] = wte[tokens[b, t]] + wpe[positions[b, t]].

    tokens (B, T) and positions (T,) or (B, T) are integers; wte is (V, C), wpe (block_size, C); out (B, T, C).
    wpe None: no learned positions, out[b, t] = wte[tokens[b, t]].
    """
    dtype = one_dtype(wte=wte, **given(wpe=wpe))
    tokens, positions = own_tokens(tokens, positions, wte, wpe)
    C, token = wte.shape[1], tokens.reshape(-1)
    if wpe is None:
        out = alloc((*tokens.shape, C), dtype)
        np.take(wte, tokens, axis=0, out=out, mode="clip")  # checked above; other modes copy out
        return out, EmbeddingCache(token, None, wte.shape, None, tokens.shape)
    position = positions.reshape(-1)
    out = alloc((*tokens.shape, C), dtype)
    _gather(-(-token.size // _ROWS), token, position, flat(wte), flat(wpe), out.reshape(-1), C)
    return out, EmbeddingCache(token, position, wte.shape, wpe.shape, tokens.shape)


def embedding_backward(dout, cache, *, add=True, into=None):
    """Gradients of both tables: dwte (V, C), dwpe (block_size, C) or None, added to, or written to, those of ``into``."""
    dtype = one_dtype(dout=dout)
    C = cache.wte_shape[1]
    check_shape("dout", dout, (*cache.tokens_shape, C))
    tables, add = gradients(into, dtype, add, dwte=cache.wte_shape, dwpe=cache.wpe_shape)
    rows = flat(dout)
    for table, index in zip(tables, (cache.tokens, cache.positions)):
        if table is None:
            continue
        if not add:
            table.fill(0)
        _scatter(index, rows, table.reshape(-1), C)
    return tuple(tables)
