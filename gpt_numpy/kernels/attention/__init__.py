"""Causal attention and the multi-head layer around it, without copies of q, k or v and without a (T, T) array.

The forward saves its output and one number a row, log Σ exp of the scores (in base 2). ``forward`` and ``backward``
hold the two walks over tiles, ``score_tile`` the products that they are made of, and ``few_queries`` the short way for
a few queries. The twin of ``layers.attention``, which derives the gradients.
"""

import math
from typing import NamedTuple

import numpy as np

from ...architecture.rotation import Rotation
from ...arguments import check_attention, check_axes, check_heads, check_linear, check_rotary, own_first_key
from ...randomness import Dropout
from ..dropout import mask_of
from ..gemm import current_products, gemm, products_of
from ..gemm.narrow import NARROW, narrow
from ..gemm.tile import columns_of
from ..linear import LinearCache, bias_epilogue, for_backward, linear_backward, linear_forward
from ..rmsnorm import RmsnormCache, rmsnorm_backward, rmsnorm_forward
from ..rotary import turn
from ..runtime import threads
from ..runtime.checks import check_shape, contiguous, given, gradients, matrix, one_dtype
from ..runtime.recording import not_only_launches
from ..runtime.remembering import remembered
from ..runtime.scratch import op_scratch, worker_scratch
from . import backward as backward_pass
from . import few_queries
from . import forward as forward_pass
from .score_tile import QUERIES, RANGE_FIELDS, STRIP_ROWS

CHUNK_ROWS = 1024  # rows of queries, keys and values at a time, where they are narrowed
_CACHE_BYTES = 800_000  # what the rows that a task works on may take: they should stay in the second-level cache
_TASKS_PER_THREAD = 3  # at least, where there are queries enough, so that no thread waits long for the last
_LEAST_ROWS = 96  # queries for which packing the keys is worth it
_NO_DROPOUT = Dropout(0.0, 0)


class AttentionCache(NamedTuple):
    q: np.ndarray  # (B, Tq, n_head, head_size); all three floating-point, or all narrow
    k: np.ndarray  # (B, Tk, n_head, head_size)
    v: np.ndarray  # (B, Tk, n_head, head_size)
    out: np.ndarray  # (B, Tq, n_head, head_size)
    log_sums: np.ndarray  # (B · n_head · Tq,), log₂ Σ exp of each row's scaled scores
    first_key: np.ndarray  # (B, Tq) int64, or (0, 0) for none
    dropout: Dropout
    scale: float | None  # None: 1/√head_size


class HeadsCache(NamedTuple):
    norm: RmsnormCache | None
    rotation: Rotation | None


class MultiHeadAttentionCache(NamedTuple):
    attn: LinearCache  # x (B, T, C), perhaps narrow; weight (C, 3C)
    attention: AttentionCache
    proj: LinearCache  # heads side by side (B, T, C), weight (C, C)
    q: HeadsCache
    k: HeadsCache


def _readable(x):
    """x itself if a kernel can walk over it, a contiguous copy if not."""
    whole = x.strides[3] == x.itemsize and all(step % x.itemsize == 0 for step in x.strides)
    if whole and x.flags.aligned:
        return x
    not_only_launches()
    return np.array(x, order="C")


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


def _plan(out, k, backward):
    """(number of tasks, queries at a time, scratch, the same as operands, strips' ranges, padded head size)."""
    B, Tq, n_head, head_size = out.shape
    n_keys, n_kv_head = k.shape[1:3]
    columns = columns_of(out.itemsize)
    width = -(-head_size // columns) * columns
    rows = _rows_in_cache(Tq, width, columns, 3 if backward else 2, out.itemsize)
    if backward:
        n_tasks, size = B * n_kv_head, backward_pass.scratch_size(n_keys, rows, width, columns)
    else:
        wanted = -(-_TASKS_PER_THREAD * threads.count() // (B * n_head))
        n_blocks = max(-(-Tq // rows), min(-(-Tq // _LEAST_ROWS), wanted))
        rows = -(-Tq // n_blocks // STRIP_ROWS) * STRIP_ROWS
        n_tasks, size = -(-Tq // rows) * B * n_head, forward_pass.scratch_size(rows, width, columns)
        if Tq <= few_queries.MOST_QUERIES and not _rounds(out):
            size = few_queries.scratch_size(n_keys, width, columns)
    ranges = worker_scratch(np.int64, RANGE_FIELDS * (QUERIES // STRIP_ROWS))
    scratch = worker_scratch(out.dtype, size)
    panels = scratch.view(np.uint32) if _rounds(out) else scratch
    return n_tasks, rows, scratch, panels, ranges.reshape(len(ranges), -1, RANGE_FIELDS), width


def attention_forward(q, k, v, first_key=None, dropout=None, alloc=np.empty, scale=None):
    """out = softmax(q · kᵀ · scale) · v, each query over the keys that it sees.

    q (B, Tq, n_head, head_size); k and v (B, Tk, n_kv_head, head_size) with Tk >= Tq; out like q. All may be views with
    any strides but the last axis'. n_kv_head divides n_head: each head of k and v serves as many query heads.
    first_key (B, Tq): the first key each query sees, none beyond its own position.
    dropout: a ``randomness.Dropout`` for the attention weights, or None. scale: a number; None is 1/√head_size.
    """
    one_dtype(q=q, k=k, v=v)
    check_attention(q, k, v)
    return _attend(q, k, v, first_key, dropout, alloc(q.shape, q.dtype), scale)


def _attend(q, k, v, first_key, dropout, out, scale):
    """`attention_forward` into ``out`` without checks of q, k and v, which may be narrow for products in bfloat16."""
    B, Tq, n_head, _ = q.shape
    first_key, dropout = _first_key_or_none(first_key, B, Tq, k.shape[1]), dropout or _NO_DROPOUT
    log_sums = np.empty(B * n_head * Tq, out.dtype)
    cache = AttentionCache(_readable(q), _readable(k), _readable(v), out, log_sums, first_key, dropout, scale)
    if q.size:
        n_tasks, rows, scratch, panels, ranges, width = _plan(out, k, backward=False)
        mask = mask_of(dropout, n_head * Tq, out.dtype)
        shared = first_key, log_sums, *mask, _base2_scale(out, scale), width  # the fields of Shared
        if Tq <= few_queries.MOST_QUERIES and not _rounds(out):
            few_queries.forward_few(B * n_head, *cache[:3], out, scratch, ranges, *shared)
        else:
            forward_pass.forward(n_tasks, *cache[:3], out, scratch, panels, ranges, rows, *shared)
    return out, cache


def attention_backward(dout, cache, alloc=np.empty):
    """Gradients dq (B, Tq, n_head, head_size), dk and dv (B, Tk, n_kv_head, head_size)."""
    gradients = tuple(alloc(x.shape, x.dtype) for x in cache[:3])
    _backward_into(dout, cache, *gradients)
    return gradients


def _backward_into(dout, cache, dq, dk, dv):
    """The gradients, written to dq, dk and dv, which may be strided views."""
    q, k, v, out, log_sums, first_key, dropout, scale = cache
    one_dtype(out=out, dout=dout)
    check_shape("dout", dout, q.shape)
    B, Tq, n_head, head_size = q.shape
    if not q.size:
        dk[...] = dv[...] = 0
        not_only_launches()
        return
    n_tasks, group_rows, scratch, panels, ranges, width = _plan(out, k, backward=True)
    factor = out.dtype.type(1 / math.sqrt(head_size) if scale is None else scale)
    arrays = q, k, v, out, contiguous(dout), dq, dk, dv  # the fields of Arrays
    mask = mask_of(dropout, n_head * Tq, out.dtype)
    shared = first_key, log_sums, *mask, _base2_scale(out, scale), width  # the fields of Shared
    backward_pass.backward(n_tasks, scratch, panels, ranges, group_rows, factor, *arrays, *shared)


def _base2_scale(out, scale):
    natural = math.log2(math.e) / math.sqrt(out.shape[3]) if scale is None else math.log2(math.e) * scale
    return out.dtype.type(natural)


def _looked_at(
    x, attn_weight, attn_bias, proj_weight, proj_bias, n_head, first_key=None, dropout=None, *rest, **options
):
    """Whether the forward looks at elements of an array, or its dropout is another in every step."""
    return first_key is not None or dropout is not None


@remembered(unless=_looked_at, setting=current_products)
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
    n_kv_head=None,
    rotation=None,
    q_norm=None,
    k_norm=None,
    epsilon=1e-5,
):
    """Project x to queries, keys and values, attend in each head, project the heads' outputs back.

    x and out (B, T, C); attn_weight and attn_bias hold the three projections side by side, (C, 3C) and (3C,) where there
    are as many heads of keys as of queries; proj_weight (n_head · head_size, C), proj_bias (C,). Head h owns columns
    h · head_size … of each part. Biases may be None. alloc_out, where given, allocates ``out``: the backward does not read
    ``out``, so its memory may be reused before the backward. scale: what scores are multiplied by; None is 1/√head_size.

    n_kv_head        heads of keys and of values, a divisor of n_head; None: n_head
    q_norm, k_norm   weights (head_size,) of an rmsnorm of each query and key, with ``epsilon``; None: no norm
    rotation         angles by which queries and keys are turned, after the norm; None: they are not
    """
    check_axes(2, x=x, attn_weight=attn_weight)
    n_head = check_heads(n_head, attn_weight.shape[-1], n_kv_head)
    if _rounds(x) and q_norm is None:
        qkv, attn_cache = _project_narrow(x, attn_weight, attn_bias, n_head, n_kv_head, rotation, alloc)
        q, k, v = split_heads(qkv, n_head, n_kv_head)
        q_cache = k_cache = HeadsCache(None, rotation)
    else:
        qkv, attn_cache = linear_forward(x, attn_weight, attn_bias, alloc)
        attn_cache = attn_cache._replace(x=for_backward(x, alloc))
        q, k, v = split_heads(qkv, n_head, n_kv_head)
        q, q_cache = _prepare_heads(q, q_norm, epsilon, rotation, alloc)
        k, k_cache = _prepare_heads(k, k_norm, epsilon, rotation, alloc)
        check_attention(q, k, v)
    heads, attention_cache = _attend(q, k, v, first_key, dropout, alloc(q.shape, x.dtype), scale)
    out, proj_cache = linear_forward(merge_heads(heads), proj_weight, proj_bias, alloc_out or alloc)
    return out, MultiHeadAttentionCache(attn_cache, attention_cache, proj_cache, q_cache, k_cache)


def _of_one_step(dout, cache, *rest, **options):
    """Whether the cache is that of a forward that is not remembered, or the backward does more than launch kernels."""
    attention = cache.attention
    return attention.first_key.size > 0 or attention.dropout is not _NO_DROPOUT or cache.q.norm is not None


@remembered(unless=_of_one_step, setting=current_products)
def multi_head_attention_backward(dout, cache, alloc=np.empty, *, add=True, into=None):
    """Gradients dx (B, T, C), dattn_weight, dattn_bias, dproj_weight, dproj_bias; ``into`` takes all but the first.

    Where queries and keys have norms, the gradients of their weights follow: dq_norm, dk_norm.
    """
    attn_into, proj_into, norms_into = _checked_into(into, dout, cache)
    dheads, dproj_weight, dproj_bias = linear_backward(dout, cache.proj, alloc, into=proj_into, add=add)
    dqkv = alloc((*dout.shape[:2], cache.attn.weight.shape[1]), dout.dtype)
    parts = split_heads(dqkv, cache.attention.q.shape[2], cache.attention.k.shape[2])
    _backward_into(dheads.reshape(cache.attention.q.shape), cache.attention, *parts)
    norms = [
        _prepare_heads_backward(part, heads, target, add)
        for part, heads, target in zip(parts, (cache.q, cache.k), norms_into)
    ]
    dx, dattn_weight, dattn_bias = linear_backward(dqkv, cache.attn, alloc, into=attn_into, add=add)
    return dx, dattn_weight, dattn_bias, dproj_weight, dproj_bias, *(norms if cache.q.norm else ())


def _checked_into(into, dout, cache):
    """``into`` for both projections and for both norms; all are checked before the first is added to."""
    if into is None:
        return None, None, (None, None)
    names = ["dattn_weight", "dattn_bias", "dproj_weight", "dproj_bias"]
    shapes = [s for c in (cache.attn, cache.proj) for s in (c.weight.shape, c.weight.shape[1:] if c.biased else None)]
    if cache.q.norm:
        names, shapes = [*names, "dq_norm", "dk_norm"], shapes + [c.norm.weight.shape for c in (cache.q, cache.k)]
    gradients(into, one_dtype(dout=dout, weight=cache.attn.weight), **dict(zip(names, shapes)))
    return into[:2], into[2:4], [(target,) for target in into[4:]] or (None, None)


def _project_narrow(x, weight, bias, n_head, n_kv_head, rotation, alloc):
    """Queries, keys and values (B, T, columns), narrow and turned by the angles of ``rotation``; and the ``LinearCache``.

    They are scratch before they are rounded, of as many sequences at a time as have about ``CHUNK_ROWS`` rows.
    """
    dtype = one_dtype(x=x, weight=weight, **given(bias=bias))
    check_linear(x, weight, bias)
    x = for_backward(x, alloc)
    qkv, weight = alloc((*x.shape[:2], weight.shape[1]), NARROW), matrix(weight)
    if rotation is not None:
        one_dtype(weight=weight, cos=rotation.cos, sin=rotation.sin)
        check_rotary(split_heads(qkv, n_head, n_kv_head)[0], rotation)
    at_a_time = max(1, CHUNK_ROWS // max(1, x.shape[1]))
    for first in range(0, len(x), at_a_time):
        part = slice(first, first + at_a_time)
        (numbers,) = op_scratch("heads", dtype, qkv[part].shape)
        gemm(matrix(x[part]), weight, matrix(numbers), **bias_epilogue(bias))
        if rotation is not None:
            angles = rotation.of_sequences(part)
            for heads in split_heads(numbers, n_head, n_kv_head)[:2]:
                turn(heads, heads, angles)
        narrow(numbers, qkv[part])
    return qkv, LinearCache(x, weight, bias is not None)


def _prepare_heads(x, weight, epsilon, rotation, alloc):
    """``layers.attention.prepare_heads``; the angles are applied in place, for the projection's output is not kept."""
    norm = None
    if weight is not None:
        x, norm = rmsnorm_forward(x, weight, epsilon, alloc)
    if rotation is not None:
        one_dtype(x=x, cos=rotation.cos, sin=rotation.sin)
        check_rotary(x, rotation)
        turn(x, x, rotation)
    return x, HeadsCache(norm, rotation)


def _prepare_heads_backward(dx, cache, into, add):
    """The gradient of the heads before `_prepare_heads`, in place; returns that of the norm's weight, or None."""
    if cache.rotation is not None:
        turn(dx, dx, cache.rotation, -1)
    if cache.norm is None:
        return None
    before, dweight = rmsnorm_backward(dx, cache.norm, into=into, add=add)
    dx[...] = before
    return dweight


def split_heads(qkv, n_head, n_kv_head=None):
    """Views q (B, T, n_head, head_size) and k, v (B, T, n_kv_head, head_size) of one (B, T, columns) array."""
    B, T, columns = qkv.shape
    check_heads(n_head, columns, n_kv_head)
    n_kv_head = n_head if n_kv_head is None else n_kv_head
    n_heads = n_head + 2 * n_kv_head
    heads = qkv.reshape(B, T, n_heads, columns // n_heads)
    return heads[:, :, :n_head], heads[:, :, n_head:-n_kv_head], heads[:, :, -n_kv_head:]


def merge_heads(heads):
    """(B, T, n_head · head_size): the heads side by side."""
    return heads.reshape(*heads.shape[:2], heads.shape[2] * heads.shape[3])
