"""Short functions written to be read: the solutions of the exercises beyond the layers.

Each function is one idea in its smallest form (one head, one row, one token) with a name for every intermediate
value. The tests hold each to the part of the package that does the same at full size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit


class HeadCache(NamedTuple):
    q: np.ndarray  # (T, d)
    k: np.ndarray  # (T, d)
    v: np.ndarray  # (T, d)
    weights: np.ndarray  # (T, T), 0 where the key comes after the query


def head_forward(q, k, v):
    """One masked head: out (T, d) = softmax(q · kᵀ / √d over the keys j <= i) · v; q, k, v (T, d)."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores = np.where(np.tri(len(q), dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights @ v, HeadCache(q, k, v, weights)


def head_backward(dout, cache):
    """Gradients dq, dk and dv, each (T, d), of one masked head."""
    q, k, v, weights = cache
    scale = 1 / math.sqrt(q.shape[1])
    dv = weights.T @ dout
    dweights = dout @ v.T
    row_sums = (dweights * weights).sum(axis=-1, keepdims=True)
    dscores = weights * (dweights - row_sums)
    dq = scale * dscores @ k
    dk = scale * dscores.T @ q
    return dq, dk, dv


def attend_with_cache(q, k, v, keys, values, length):
    """Attention's output (n_head, head_size) for one new token, whose key and value are added to the cache in place.

    q, k, v (n_head, head_size) belong to the new token; keys and values (capacity, n_head, head_size) hold the
    ``length`` tokens before it. The new token sees those and itself.
    """
    keys[length] = k
    values[length] = v
    seen_keys = keys[: length + 1]
    seen_values = values[: length + 1]
    scores = np.einsum("hd,jhd->hj", q, seen_keys) / math.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return np.einsum("hj,jhd->hd", weights, seen_values)


def next_token_probabilities(logits, temperature, top_k, top_p):
    """Probabilities (V,) of the next token, from logits (V,): temperature, then top-k, then top-p, renormalised.

    temperature > 0. top_k: only the k largest logits. top_p: only the fewest tokens, most probable first, whose
    probabilities (after top-k) add up to at least top_p. A token that is cut has probability 0.
    """
    order = np.argsort(-logits, kind="stable")
    scaled = logits[order] / temperature
    scaled = scaled[:top_k]
    kept = np.exp(scaled - scaled[0])
    kept = kept / kept.sum()
    before = np.cumsum(kept) - kept
    kept = np.where(before < top_p, kept, 0)
    kept = kept / kept.sum()
    probabilities = np.zeros(len(logits))
    probabilities[order[:top_k]] = kept
    return probabilities


def tiled_attention(q, k, v, tile):
    """softmax(q · kᵀ / √d) · v for q (Tq, d), k and v (Tk, d), reading the keys ``tile`` at a time, without a mask.

    No more than (Tq, tile) scores exist at once: each tile's contribution is added to a running sum, and what was
    summed before is rescaled whenever a larger maximum appears (Milakov and Gimelshein 2018).
    """
    maximum = np.full((len(q), 1), -np.inf)
    total = np.zeros((len(q), 1))
    out = np.zeros(q.shape)
    for start in range(0, len(k), tile):
        scores = q @ k[start : start + tile].T / math.sqrt(q.shape[1])
        new_maximum = np.maximum(maximum, scores.max(axis=-1, keepdims=True))
        rescale = np.exp(maximum - new_maximum)
        weights = np.exp(scores - new_maximum)
        total = total * rescale + weights.sum(axis=-1, keepdims=True)
        out = out * rescale + weights @ v[start : start + tile]
        maximum = new_maximum
    return out / total


@njit
def softmax_rows(x, out):
    """Write the softmax of each row of x (N, V) to out (N, V): a numba kernel, one row at a time."""
    for n in range(x.shape[0]):
        maximum = x[n, 0]
        for j in range(x.shape[1]):
            maximum = max(maximum, x[n, j])
        total = 0.0
        for j in range(x.shape[1]):
            out[n, j] = math.exp(x[n, j] - maximum)
            total += out[n, j]
        for j in range(x.shape[1]):
            out[n, j] /= total
