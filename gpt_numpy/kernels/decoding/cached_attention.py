"""Attention of the queries of some heads over the cached keys that they share, as a piece of the launch that decodes a token.

Where query heads share keys and values (``n_kv_head`` below ``n_head``), these are read from memory once for all of them:
``KEYS`` keys at a time, which then lie in the nearest cache for the other heads. The sums of a head are added up in one
order, whatever heads are taken together.

``attention.few_queries`` is the op for the same work: a launch of its own, for several queries and any strides. Here
everything is float32, keys lie densely in the decoder's cache, and nothing but the output is kept.
"""

import numpy as np

from ..runtime.decorators import part
from ..runtime.vectors import (
    add_lanes,
    add_lanes_of_four,
    broadcast,
    exp,
    fma,
    keep_first,
    lanes,
    load,
    load_tail,
    max_lanes,
    maximum,
    read,
    store,
    store_tail,
)

KEYS = 32  # keys or values that several heads read together; a multiple of 4
_WIDEST = 16  # lanes of a vector, at most


def scratch_size(heads: int, head_size: int, capacity: int) -> int:
    """Numbers of memory that ``attend`` takes for ``heads`` query heads that share keys; a multiple of the widest vector."""
    size = heads * (capacity + 2 * _WIDEST + 4 * (head_size + _WIDEST) + 1)
    return -(-size // _WIDEST) * _WIDEST


@part
def attend(q, heads, keys, values, count, scale, out, memory):
    """out of each of ``heads`` heads = softmax(q · kᵀ · scale) · v over ``count`` keys that all of them see.

    q, out, keys and values are ``Rows`` of head_size numbers: a row for each head, and for each key. memory: see
    ``scratch_size``.
    """
    width = lanes(memory)
    room = (count + 2 * width - 1) // width * width  # of a head's scores, which are written a vector at a time
    sums = heads * room
    factors = sums + heads * 4 * (q.step + width)
    block = KEYS if heads > 1 else count
    for first in range(0, count, block):
        for head in range(heads):
            _score(q, head, keys, first, min(first + block, count), scale, memory, head * room)
    for head in range(heads):
        memory[factors + head] = np.float32(1) / softmax_in_place(memory, head * room, count)
    for first in range(0, count, block):
        last = min(first + block, count)
        for head in range(heads):
            at = sums + head * 4 * (q.step + width)
            _weigh(values, first, last, memory, head * room, at)
            if last == count:
                _finish(memory, at, memory[factors + head], out, head)


@part
def _score(q, head, keys, first, last, scale, scores, to):
    """scores[to + j] = scale · q of ``head`` · key j, for the keys from ``first`` to ``last`` − 1.

    Four keys are read together, for four independent sums. What lies behind the scores, up to a vector, is written to.
    """
    size, width, at = q.step, lanes(scores), q.first + head * q.step
    for j in range(first, last, 4):
        k0 = keys.first + j * size
        k1 = k0 + size if j + 1 < last else k0
        k2 = k0 + 2 * size if j + 2 < last else k0
        k3 = k0 + 3 * size if j + 3 < last else k0
        s0 = broadcast(scores, np.float32(0))
        s1, s2, s3 = s0, s0, s0
        i = 0
        while i + width <= size:
            x = load(q.array, at + i)
            s0 = fma(load(keys.array, k0 + i), x, s0)
            s1 = fma(load(keys.array, k1 + i), x, s1)
            s2 = fma(load(keys.array, k2 + i), x, s2)
            s3 = fma(load(keys.array, k3 + i), x, s3)
            i += width
        if i < size:
            x = load_tail(q.array, at + i, size - i)
            s0 = fma(load_tail(keys.array, k0 + i, size - i), x, s0)
            s1 = fma(load_tail(keys.array, k1 + i, size - i), x, s1)
            s2 = fma(load_tail(keys.array, k2 + i, size - i), x, s2)
            s3 = fma(load_tail(keys.array, k3 + i, size - i), x, s3)
        store(scores, to + j, add_lanes_of_four(s0, s1, s2, s3) * scale)


@part
def softmax_in_place(scores, start, count):
    """scores[start : start + count] = exp(scores − their maximum); returns the sum."""
    width, lowest = lanes(scores), np.float32(-np.inf)
    largest = broadcast(scores, lowest)
    for j in range(0, count, width):
        largest = maximum(keep_first(load_tail(scores, start + j, count - j), count - j, lowest), largest)
    peak = max_lanes(largest)
    total = broadcast(scores, np.float32(0))
    for j in range(0, count, width):
        weight = exp(load_tail(scores, start + j, count - j) - peak)
        store_tail(scores, start + j, weight, count - j)
        total += keep_first(weight, count - j, np.float32(0))
    return add_lanes(total)


@part
def _weigh(values, first, last, memory, weights, sums):
    """Four sums of each column + Σ_j memory[weights + j] · value j, for the values from ``first`` to ``last`` − 1.

    The sums lie from memory[sums] on, each head_size and a vector long; value 0 begins them. Value j belongs to sum j mod
    4, but behind the last multiple of 4, and in columns that fill no vector, to the first.
    """
    size, width = values.step, lanes(memory)
    i = 0
    if width == _WIDEST:  # sixteen sums fit the registers that vectors of this width come with
        while i + 4 * width <= size:
            _weigh_wide(values, first, last, memory, weights, sums, i)
            i += 4 * width
    while i < size:
        _weigh_narrow(values, first, last, memory, weights, sums, i)
        i += width


@part
def _weigh_narrow(values, first, last, memory, weights, sums, i):
    """`_weigh` of one vector of columns, from column i on."""
    size, width = values.step, lanes(memory)
    apart, to, left = size + width, sums + i, size - i
    s0 = broadcast(memory, np.float32(0))
    s1, s2, s3 = s0, s0, s0
    if first > 0:
        s0, s1, s2, s3 = _load_four(memory, to, apart)
    j, at = first, values.first + first * size + i
    while j + 4 <= last and left >= width:
        s0 = fma(load(values.array, at), broadcast(memory, read(memory, weights + j)), s0)
        s1 = fma(load(values.array, at + size), broadcast(memory, read(memory, weights + j + 1)), s1)
        s2 = fma(load(values.array, at + 2 * size), broadcast(memory, read(memory, weights + j + 2)), s2)
        s3 = fma(load(values.array, at + 3 * size), broadcast(memory, read(memory, weights + j + 3)), s3)
        at += 4 * size
        j += 4
    while j < last:
        s0 = fma(load_tail(values.array, at, left), broadcast(memory, read(memory, weights + j)), s0)
        at += size
        j += 1
    _store_four(memory, to, apart, (s0, s1, s2, s3))


@part
def _weigh_wide(values, first, last, memory, weights, sums, i):
    """`_weigh` of four vectors of columns, from column i on: memory is read in straight lines."""
    size, width, array = values.step, lanes(memory), values.array
    apart, to = size + width, sums + i
    zero = broadcast(memory, np.float32(0))
    s0 = zero, zero, zero, zero
    s1, s2, s3 = s0, s0, s0
    if first > 0:
        s0, s1 = _load_four(memory, to, width), _load_four(memory, to + apart, width)
        s2, s3 = _load_four(memory, to + 2 * apart, width), _load_four(memory, to + 3 * apart, width)
    j, at = first, values.first + first * size + i
    while j + 4 <= last:
        s0 = _add_row(array, at, memory, weights + j, s0)
        s1 = _add_row(array, at + size, memory, weights + j + 1, s1)
        s2 = _add_row(array, at + 2 * size, memory, weights + j + 2, s2)
        s3 = _add_row(array, at + 3 * size, memory, weights + j + 3, s3)
        at += 4 * size
        j += 4
    while j < last:
        s0 = _add_row(array, at, memory, weights + j, s0)
        at += size
        j += 1
    _store_four(memory, to, width, s0)
    _store_four(memory, to + apart, width, s1)
    _store_four(memory, to + 2 * apart, width, s2)
    _store_four(memory, to + 3 * apart, width, s3)


@part
def _add_row(array, at, memory, weight, sums):
    """Four vectors of sums + memory[weight] · the numbers from array[at] on."""
    a, b, c, d = sums
    x, width = broadcast(memory, read(memory, weight)), lanes(memory)
    a, b = fma(load(array, at), x, a), fma(load(array, at + width), x, b)
    return a, b, fma(load(array, at + 2 * width), x, c), fma(load(array, at + 3 * width), x, d)


@part
def _load_four(memory, at, step):
    """Four vectors, ``step`` elements apart."""
    return load(memory, at), load(memory, at + step), load(memory, at + 2 * step), load(memory, at + 3 * step)


@part
def _store_four(memory, at, step, vectors):
    store(memory, at, vectors[0])
    store(memory, at + step, vectors[1])
    store(memory, at + 2 * step, vectors[2])
    store(memory, at + 3 * step, vectors[3])


@part
def _finish(memory, sums, factor, out, head):
    """out of ``head`` = factor · the four sums of each column."""
    size, width = out.step, lanes(memory)
    apart, to = size + width, out.first + head * size
    for i in range(0, size, width):
        s0, s1, s2, s3 = _load_four(memory, sums + i, apart)
        store_tail(out.array, to + i, ((s0 + s1) + (s2 + s3)) * factor, size - i)
