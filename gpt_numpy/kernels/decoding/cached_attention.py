"""Attention of one query over the cached keys of its head, as a piece of the launch that decodes a token.

``attention.few_queries`` is the op for the same work: a launch of its own, for several queries and any strides. Here
everything is float32, keys lie densely in the decoder's cache, and nothing but the output is kept.
"""

import numpy as np

from ..runtime.decorators import part
from ..runtime.vectors import (
    add_lanes,
    broadcast,
    exp,
    fma,
    keep_first,
    lanes,
    load,
    load_tail,
    max_lanes,
    maximum,
    store_tail,
)


@part
def attend(q, keys, values, start, count, scale, out, scores):
    """out (head_size,) = softmax(q · kᵀ · scale) · v over ``count`` keys.

    Key j lies at ``start`` + j · head_size of the flat array ``keys``, its value at the same index of ``values``.
    Four keys are read together, for four independent sums. scores: room for ``count`` numbers.
    """
    size, width = len(q), lanes(q)
    j = 0
    while j < count:
        k0 = start + j * size
        k1 = k0 + size if j + 1 < count else k0
        k2 = k0 + 2 * size if j + 2 < count else k0
        k3 = k0 + 3 * size if j + 3 < count else k0
        s0 = broadcast(q, np.float32(0))
        s1, s2, s3 = s0, s0, s0
        i = 0
        while i + width <= size:
            x = load(q, i)
            s0 = fma(load(keys, k0 + i), x, s0)
            s1 = fma(load(keys, k1 + i), x, s1)
            s2 = fma(load(keys, k2 + i), x, s2)
            s3 = fma(load(keys, k3 + i), x, s3)
            i += width
        if i < size:
            x = load_tail(q, i, size - i)
            s0 = fma(load_tail(keys, k0 + i, size - i), x, s0)
            s1 = fma(load_tail(keys, k1 + i, size - i), x, s1)
            s2 = fma(load_tail(keys, k2 + i, size - i), x, s2)
            s3 = fma(load_tail(keys, k3 + i, size - i), x, s3)
        scores[j] = add_lanes(s0) * scale
        if j + 1 < count:
            scores[j + 1] = add_lanes(s1) * scale
        if j + 2 < count:
            scores[j + 2] = add_lanes(s2) * scale
        if j + 3 < count:
            scores[j + 3] = add_lanes(s3) * scale
        j += 4
    total = softmax_in_place(scores, count)
    _weigh(values, start, count, out, scores, np.float32(1) / total)


@part
def softmax_in_place(scores, count):
    """scores[:count] = exp(scores − their maximum); returns the sum."""
    width, lowest = lanes(scores), np.float32(-np.inf)
    largest = broadcast(scores, lowest)
    for j in range(0, count, width):
        largest = maximum(keep_first(load_tail(scores, j, count - j), count - j, lowest), largest)
    peak = max_lanes(largest)
    total = broadcast(scores, np.float32(0))
    for j in range(0, count, width):
        weight = exp(load_tail(scores, j, count - j) - peak)
        store_tail(scores, j, weight, count - j)
        total += keep_first(weight, count - j, np.float32(0))
    return add_lanes(total)


@part
def _weigh(values, start, count, out, weights, factor):
    """out = factor · Σ_j weights[j] · value j."""
    size, width = len(out), lanes(out)
    for i in range(0, size, width):
        s0 = broadcast(out, np.float32(0))
        s1, s2, s3 = s0, s0, s0
        left, j = size - i, 0
        at = start + i
        while j + 4 <= count and left >= width:
            s0 = fma(load(values, at), broadcast(out, weights[j]), s0)
            s1 = fma(load(values, at + size), broadcast(out, weights[j + 1]), s1)
            s2 = fma(load(values, at + 2 * size), broadcast(out, weights[j + 2]), s2)
            s3 = fma(load(values, at + 3 * size), broadcast(out, weights[j + 3]), s3)
            at += 4 * size
            j += 4
        while j < count:
            s0 = fma(load_tail(values, at, left), broadcast(out, weights[j]), s0)
            at += size
            j += 1
        store_tail(out, i, ((s0 + s1) + (s2 + s3)) * factor, left)
