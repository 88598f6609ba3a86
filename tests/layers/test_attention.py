import math

import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.layers.attention import visible_keys
from gpt_numpy.layers.dropout import keep_mask
from gpt_numpy.randomness import Dropout

B, T, N_HEAD, HEAD_SIZE = 2, 5, 3, 4
C = N_HEAD * HEAD_SIZE


def qkv(rng, Tk=T, Tq=T):
    shapes = [(B, t, N_HEAD, HEAD_SIZE) for t in (Tq, Tk, Tk)]
    return [rng.normal(size=shape) for shape in shapes]


def attend_slowly(q, k, v, first_key=None, keep=None, probability=0.0):
    """The definition in Python numbers: one query, one key at a time."""
    out = np.zeros_like(q)
    Tq, Tk = q.shape[1], k.shape[1]
    for b, i, h in np.ndindex(B, Tq, N_HEAD):
        first = 0 if first_key is None else first_key[b, i]
        keys = range(first, Tk - Tq + i + 1)
        scores = [sum(q[b, i, h] * k[b, j, h]) / math.sqrt(HEAD_SIZE) for j in keys]
        total = sum(math.exp(s) for s in scores)
        for j, score in zip(keys, scores):
            kept = 1.0 if keep is None else keep[b, h, i, j] / (1 - probability)
            out[b, i, h] += math.exp(score) / total * kept * v[b, j, h]
    return out


def test_gradients(prove_gradients):
    square, longer = 3 * B * T * C, B * T * C + 2 * B * (T + 3) * C
    prove_gradients(
        "attention",
        {"": square, "first_key": square, "dropout": square, "Tk > Tq": longer, "Tk > Tq, first_key, dropout": longer},
    )


def test_multi_head_gradients(prove_gradients):
    entries = B * T * C + C * 3 * C + 3 * C + C * C + C
    prove_gradients("multi-head", {"": entries, "first_key, dropout": entries})


@pytest.mark.parametrize("Tk", [T, T + 3])
def test_against_the_definition(rng, Tk):
    q, k, v = qkv(rng, Tk)
    first_key = np.array([[0, 0, 2, 2, 2], [0, 1, 1, 3, 4]]) + Tk - T
    dropout = Dropout(0.3, 1234567, first_sequence=2)
    keep = keep_mask((B, N_HEAD, T, Tk), dropout)
    plain, _ = layers.attention_forward(q, k, v)
    np.testing.assert_allclose(plain, attend_slowly(q, k, v), rtol=1e-12, atol=1e-13)
    masked, _ = layers.attention_forward(q, k, v, first_key, dropout)
    np.testing.assert_allclose(masked, attend_slowly(q, k, v, first_key, keep, 0.3), rtol=1e-12, atol=1e-13)


def test_more_keys_than_queries_is_the_tail_of_the_square(rng):
    q, k, v = qkv(rng, 8, 8)
    whole, _ = layers.attention_forward(q, k, v)
    tail, _ = layers.attention_forward(q[:, 3:], k, v)
    np.testing.assert_allclose(tail, whole[:, 3:], rtol=1e-13, atol=1e-14)


def test_visible_keys_counted():
    first_key = np.array([[0, 1, 2], [3, 4, 5]])
    visible = visible_keys(3, 6, first_key)
    np.testing.assert_array_equal(visible[:, 0].sum(axis=-1), [[4, 4, 4], [1, 1, 1]])
    assert visible_keys(3, 6)[0, 0].sum(axis=-1).tolist() == [4, 5, 6]


def test_unseen_keys_are_not_multiplied_by_zero_but_absent(rng):
    q, k, v = qkv(rng)
    before, cache = layers.attention_forward(q, k, v)
    k[:, 3:] *= 1e3
    v[:, 3:] = 1e300
    after, _ = layers.attention_forward(q, k, v)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (cache.weights[:, :, :3, 3:] == 0).all()


def test_nothing_flows_back_from_the_future(rng):
    q, k, v = qkv(rng)
    _, cache = layers.attention_forward(q, k, v)
    for t in range(T):
        dout = np.zeros_like(q)
        dout[:, t] = rng.normal(size=dout[:, t].shape)
        dq, dk, dv = layers.attention_backward(dout, cache)
        assert not dk[:, t + 1 :].any() and not dv[:, t + 1 :].any()
        assert dv[:, : t + 1].all()
        assert not np.delete(dq, t, axis=1).any()


def test_documents_in_one_block_are_attended_to_apart(rng):
    q, k, v = qkv(rng)
    first_key = np.broadcast_to([0, 0, 2, 2, 2], (B, T))
    out, _ = layers.attention_forward(q, k, v, first_key)
    first, _ = layers.attention_forward(q[:, :2], k[:, :2], v[:, :2])
    second, _ = layers.attention_forward(q[:, 2:], k[:, 2:], v[:, 2:])
    np.testing.assert_allclose(out, np.concatenate([first, second], axis=1), rtol=1e-13, atol=1e-14)


def test_huge_scores_neither_overflow_nor_lose_the_largest(rng):
    q, k, v = (a.astype(np.float32) for a in qkv(rng))
    with np.errstate(over="raise", invalid="raise"):
        out, cache = layers.attention_forward(1e4 * q, 1e4 * k, v)
        gradients = layers.attention_backward(out, cache)
    assert all(np.isfinite(a).all() and a.dtype == np.float32 for a in (out, *gradients))
    np.testing.assert_allclose(cache.weights.sum(axis=-1), 1, rtol=1e-6)


def test_views_of_one_array_give_the_bits_of_copies(rng, counting_alloc):
    joined = rng.normal(size=(B, T, 3, N_HEAD, HEAD_SIZE))
    views = [joined[:, :, i] for i in range(3)]
    dout = rng.normal(size=(B, T, N_HEAD, HEAD_SIZE))
    out, cache = layers.attention_forward(*views, alloc=counting_alloc)
    copied_out, copied_cache = layers.attention_forward(*(v.copy() for v in views))
    np.testing.assert_array_equal(out, copied_out)
    gradients = layers.attention_backward(dout, cache, counting_alloc)
    for a, b in zip(gradients, layers.attention_backward(dout, copied_cache)):
        np.testing.assert_array_equal(a, b)
        assert counting_alloc.owns(a)


def test_multi_head_is_one_attention_for_each_head(rng):
    x, attn_weight, attn_bias = rng.normal(size=(B, T, C)), rng.normal(size=(C, 3 * C)), rng.normal(size=3 * C)
    proj_weight, proj_bias = rng.normal(size=(C, C)), rng.normal(size=C)
    out, _ = layers.multi_head_attention_forward(x, attn_weight, attn_bias, proj_weight, proj_bias, N_HEAD)
    expected = np.zeros((B, T, C)) + proj_bias
    for h in range(N_HEAD):
        columns = [slice(third * C + h * HEAD_SIZE, third * C + (h + 1) * HEAD_SIZE) for third in range(3)]
        q, k, v = ((x @ attn_weight[:, s] + attn_bias[s])[:, :, None] for s in columns)
        head, _ = layers.attention_forward(q, k, v)
        expected += head[:, :, 0] @ proj_weight[h * HEAD_SIZE : (h + 1) * HEAD_SIZE]
    np.testing.assert_allclose(out, expected, rtol=1e-11, atol=1e-12)
