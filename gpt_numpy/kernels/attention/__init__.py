"""Causal attention and the multi-head layer around it, without copies of q, k or v and without a (T, T) array.

The forward saves its output and one number a row, log Σ exp of the scores (in base 2). ``forward`` and ``backward``
hold the two walks over tiles, ``score_tile`` the products that they are made of, and ``few_queries`` the short way for
a few queries. The twin of ``layers.attention``, which derives the gradients.
"""

import math
from typing import NamedTuple

import numpy as np

from ...arguments import check_attention, check_axes, check_heads, own_first_key
from ...randomness import Dropout
from ..dropout import mask_of
from ..gemm import products_of
from ..gemm.tile import columns_of
from ..linear import LinearCache, linear_backward, linear_forward
from ..runtime import threads
from ..runtime.checks import check_shape, gradients, one_dtype
from ..runtime.scratch import worker_scratch
from . import backward as backward_pass
from . import few_queries
from . import forward as forward_pass
from .score_tile import QUERIES, STRIP_ROWS

_CACHE_BYTES = 200_000  # what the rows that a task works on may take: they should stay in the second-level cache
_TASKS_PER_THREAD = 3  # at least, where there are queries enough, so that no thread waits long for the last
_LEAST_ROWS = 96  # queries for which packing the keys is worth it
_NO_DROPOUT = Dropout(0.0, 0)


class AttentionCache(NamedTuple):
    q: np.ndarray  # (B, Tq, n_head, head_size)
    k: np.ndarray  # (B, Tk, n_head, head_size)
    v: np.ndarray  # (B, Tk, n_head, head_size)
    out: np.ndarray  # (B, Tq, n_head, head_size)
    log_sums: np.ndarray  # (B · n_head · Tq,), log₂ Σ exp of each row's scaled scores
    first_key: np.ndarray  # (B, Tq) int64, or (0, 0) for none
    dropout: Dropout
    scale: float | None  # None: 1/√head_size


class MultiHeadAttentionCache(NamedTuple):
    attn: LinearCache  # x (B, T, C), weight (C, 3C)
    attention: AttentionCache
    proj: LinearCache  # heads side by side (B, T, C), weight (C, C)


def _readable(x):
    """x itself if a kernel can walk over it, a contiguous copy if not."""
    whole = x.strides[3] == x.itemsize and all(step % x.itemsize == 0 for step in x.strides)
    return x if whole and x.flags.aligned else np.array(x, order="C")


def _first_key_or_none(first_key, B, Tq, Tk):
    """``first_key`` (B, Tq), checked and copied, or an empty array (0, 0) where every query sees key 0."""
    first_key = own_first_key(first_key, B, Tq, Tk)
    none = first_key is None or not first_key.any()  # one document: nothing to look up in the kernels
    return np.empty((0, 0), np.int64) if none else first_key


def _rows_in_cache(Tq, width, columns, arrays, itemsize):
    """How many queries to take at a time where each takes ``arrays`` rows: equal parts of Tq, in whole strips."""
    most = max(_CACHE_BYTES // (arrays * (width + columns) * itemsize), STRIP_ROWS)
    return -(-Tq // -(-Tq // most) // STRIP_ROWS) * STRIP_ROWS


def _rounds(q):
    """Whether attention's products of arrays like q round their operands to bfloat16."""
    return products_of(q.dtype) == "bfloat16"


def _plan(q, n_keys, backward):
    """(number of tasks, queries at a time, scratch, the same as operands, strips' ranges, padded head size)."""
    B, Tq, n_head, head_size = q.shape
    columns = columns_of(q.itemsize)
    width = -(-head_size // columns) * columns
    rows = _rows_in_cache(Tq, width, columns, 3 if backward else 2, q.itemsize)
    if backward:
        n_tasks, size = B * n_head, backward_pass.scratch_size(n_keys, rows, width, columns)
    else:
        wanted = -(-_TASKS_PER_THREAD * threads.count() // (B * n_head))
        n_blocks = max(-(-Tq // rows), min(-(-Tq // _LEAST_ROWS), wanted))
        rows = -(-Tq // n_blocks // STRIP_ROWS) * STRIP_ROWS
        n_tasks, size = -(-Tq // rows) * B * n_head, forward_pass.scratch_size(rows, width, columns)
        if Tq <= few_queries.MOST_QUERIES and not _rounds(q):
            size = few_queries.scratch_size(n_keys, width, columns)
    ranges = worker_scratch(np.int64, 2 * (QUERIES // STRIP_ROWS))
    scratch = worker_scratch(q.dtype, size)
    panels = scratch.view(np.uint32) if _rounds(q) else scratch
    return n_tasks, rows, scratch, panels, ranges.reshape(len(ranges), -1, 2), width


def attention_forward(q, k, v, first_key=None, dropout=None, alloc=np.empty, scale=None):
    """out = softmax(q · kᵀ · scale) · v, each query over the keys that it sees.

    q (B, Tq, n_head, head_size); k and v (B, Tk, n_head, head_size) with Tk >= Tq; out like q. All may be views with
    any strides but the last axis'. first_key (B, Tq): the first key each query sees, none beyond its own position.
    dropout: a ``randomness.Dropout`` for the attention weights, or None. scale: a number; None is 1/√head_size.
    """
    one_dtype(q=q, k=k, v=v)
    check_attention(q, k, v)
    B, Tq, n_head, head_size = q.shape
    first_key, dropout = _first_key_or_none(first_key, B, Tq, k.shape[1]), dropout or _NO_DROPOUT
    out, log_sums = alloc(q.shape, q.dtype), np.empty(B * n_head * Tq, q.dtype)
    cache = AttentionCache(_readable(q), _readable(k), _readable(v), out, log_sums, first_key, dropout, scale)
    if q.size:
        n_tasks, rows, scratch, panels, ranges, width = _plan(q, k.shape[1], backward=False)
        mask = mask_of(dropout, n_head * Tq, q.dtype)
        shared = first_key, log_sums, *mask, _base2_scale(q, scale), width  # the fields of Shared
        if Tq <= few_queries.MOST_QUERIES and not _rounds(q):
            few_queries.forward_few(B * n_head, *cache[:3], out, scratch, ranges, *shared)
        else:
            forward_pass.forward(n_tasks, *cache[:3], out, scratch, panels, ranges, rows, *shared)
    return out, cache


def attention_backward(dout, cache, alloc=np.empty):
    """Gradients dq (B, Tq, n_head, head_size), dk and dv (B, Tk, n_head, head_size)."""
    gradients = tuple(alloc(x.shape, x.dtype) for x in cache[:3])
    _backward_into(dout, cache, *gradients)
    return gradients


def _backward_into(dout, cache, dq, dk, dv):
    """The gradients, written to dq, dk and dv, which may be strided views."""
    q, k, v, out, log_sums, first_key, dropout, scale = cache
    one_dtype(q=q, dout=dout)
    check_shape("dout", dout, q.shape)
    B, Tq, n_head, head_size = q.shape
    if not q.size:
        dk[...] = dv[...] = 0
        return
    n_tasks, group_rows, scratch, panels, ranges, width = _plan(q, k.shape[1], backward=True)
    factor = q.dtype.type(1 / math.sqrt(head_size) if scale is None else scale)
    arrays = q, k, v, out, np.ascontiguousarray(dout), dq, dk, dv  # the fields of Arrays
    mask = mask_of(dropout, n_head * Tq, q.dtype)
    shared = first_key, log_sums, *mask, _base2_scale(q, scale), width  # the fields of Shared
    backward_pass.backward(n_tasks, scratch, panels, ranges, group_rows, factor, *arrays, *shared)


def _base2_scale(q, scale):
    natural = math.log2(math.e) / math.sqrt(q.shape[3]) if scale is None else math.log2(math.e) * scale
    return q.dtype.type(natural)


def multi_head_attention_forward(
    x,
    attn_weight,
    attn_bias,
    proj_weight,
    proj_bias,
    n_head,
    first_key=None,
    dropout: Dropout | None = None,
    alloc=np.empty,
    alloc_out=None,
    *,
    scale=None,
):
    """Project x to queries, keys and values, attend in each head, project the heads' outputs back.

    x and out (B, T, C); attn_weight (C, 3C) and attn_bias (3C,) hold the three projections side by side;
    proj_weight (C, C), proj_bias (C,). Head h owns columns h · head_size … of each third. scale: what scores are
    multiplied by; None is 1/√head_size.
    """
    check_axes(2, x=x, attn_weight=attn_weight)
    n_head = check_heads(n_head, attn_weight.shape[-1])
    qkv, attn_cache = linear_forward(x, attn_weight, attn_bias, alloc)
    q, k, v = split_heads(qkv, n_head)
    heads, attention_cache = attention_forward(q, k, v, first_key, dropout, alloc, scale)
    out, proj_cache = linear_forward(heads.reshape(x.shape), proj_weight, proj_bias, alloc_out or alloc)
    return out, MultiHeadAttentionCache(attn_cache, attention_cache, proj_cache)


def multi_head_attention_backward(dout, cache, alloc=np.empty, *, into=None):
    """Gradients dx (B, T, C), dattn_weight, dattn_bias, dproj_weight, dproj_bias; ``into`` takes the last four."""
    attn_into, proj_into = None, None
    if into is not None:  # all four, before the first is added to
        names, caches = ("dattn_weight", "dattn_bias", "dproj_weight", "dproj_bias"), (cache.attn, cache.proj)
        shapes = [shape for c in caches for shape in (c.weight.shape, c.weight.shape[1:] if c.biased else None)]
        gradients(into, one_dtype(dout=dout, x=cache.attn.x), **dict(zip(names, shapes)))
        attn_into, proj_into = into[:2], into[2:]
    B, T, n_head, head_size = cache.attention.q.shape
    dheads, dproj_weight, dproj_bias = linear_backward(dout, cache.proj, alloc, into=proj_into)
    dqkv = alloc((B, T, 3 * n_head * head_size), dout.dtype)
    _backward_into(dheads.reshape(B, T, n_head, head_size), cache.attention, *split_heads(dqkv, n_head))
    dx, dattn_weight, dattn_bias = linear_backward(dqkv, cache.attn, alloc, into=attn_into)
    return dx, dattn_weight, dattn_bias, dproj_weight, dproj_bias


def split_heads(qkv, n_head):
    """Views q, k, v, each (B, T, n_head, head_size), of one (B, T, 3C) array."""
    B, T, three_C = qkv.shape
    check_heads(n_head, three_C)
    thirds = qkv.reshape(B, T, 3, n_head, three_C // 3 // n_head)
    return thirds[:, :, 0], thirds[:, :, 1], thirds[:, :, 2]
