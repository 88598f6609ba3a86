"""RMSNorm, rotary positions and attention with shared heads: the kernels against their twins."""

import numpy as np
import pytest

from gpt_numpy import kernels, layers
from gpt_numpy.architecture.rotation import frequencies, rotation_of
from gpt_numpy.errors import KernelError
from gpt_numpy.randomness import Dropout


@pytest.mark.parametrize("shape", [(1, 3), (2, 5, 12), (233, 75), (0, 4), (70, 576)])
def test_rmsnorm(rng, assert_parity, shape):
    x, weight, dout = rng.normal(size=shape), 1 + rng.normal(size=shape[-1]), rng.normal(size=shape)

    def call(ops, array):
        out, cache = ops.rmsnorm_forward(array(x), array(weight), epsilon=1e-3)
        into = (np.ones_like(array(weight)),)
        return out, *ops.rmsnorm_backward(array(dout), cache), *ops.rmsnorm_backward(array(dout), cache, into=into)

    assert_parity(kernels, call, float32_bound=3e-6)


@pytest.mark.parametrize("pairing", ["halves", "neighbours"])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 233, 2, 38), (3, 7, 1, 64), (0, 3, 2, 4)])
def test_rotary(rng, assert_parity, shape, pairing):
    x, dout = rng.normal(size=shape), rng.normal(size=shape)
    for positions in (np.arange(shape[1]), rng.integers(0, 300, shape[:2])):

        def call(ops, array, positions=positions):
            dtype = array(x).dtype
            angles = rotation_of(positions, frequencies(shape[-1], 1e4), dtype, pairing)
            out, cache = ops.rotary_forward(array(x), angles)
            return out, ops.rotary_backward(array(dout), cache)

        assert_parity(kernels, call, float32_bound=1e-6)


def test_rotary_of_a_view(rng):
    wide = rng.normal(size=(2, 7, 5, 8))
    view, angles = wide[:, :, 1:4], rotation_of(np.arange(7), frequencies(8, 1e4), np.float64)
    expected, _ = layers.rotary_forward(view, angles)
    np.testing.assert_allclose(kernels.rotary_forward(view, angles)[0], expected, atol=1e-15)


@pytest.mark.parametrize("dropout", [None, Dropout(0.2, 7)])
@pytest.mark.parametrize("heads, kv_heads", [(4, 1), (6, 2), (3, 3)])
@pytest.mark.parametrize("Tq, Tk", [(130, 130), (1, 70), (3, 50), (40, 75)])
def test_attention_with_shared_heads(rng, assert_parity, heads, kv_heads, Tq, Tk, dropout):
    q, dout = rng.normal(size=(2, 2, Tq, heads, 20))
    k, v = rng.normal(size=(2, 2, Tk, kv_heads, 20))
    window = np.maximum(np.arange(Tk - Tq, Tk) - 33, 0)[None].repeat(2, axis=0)
    for first_key in (None, window):

        def call(ops, array, first_key=first_key):
            out, cache = ops.attention_forward(array(q), array(k), array(v), first_key, dropout)
            return out, *ops.attention_backward(array(dout), cache)

        assert_parity(kernels, call, float32_bound=6e-6, float64_bound=1e-11)


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_the_whole_attention_layer(rng, assert_parity, norms, turned):
    B, T, C, heads, kv_heads, size = 2, 70, 24, 6, 2, 10
    columns = (heads + 2 * kv_heads) * size
    x, dout = rng.normal(size=(2, B, T, C))
    weights = [rng.normal(size=s) / np.sqrt(s[0]) for s in ((C, columns), (columns,), (heads * size, C), (C,))]
    q_norm, k_norm = 1 + 0.3 * rng.normal(size=(2, size))

    def call(ops, array):
        angles = rotation_of(np.arange(T), frequencies(size, 1e4), array(x).dtype) if turned else None
        options = dict(n_kv_head=kv_heads, rotation=angles)
        options |= dict(q_norm=array(q_norm), k_norm=array(k_norm), epsilon=1e-4) if norms else {}
        own = [array(w) for w in weights]
        out, cache = ops.multi_head_attention_forward(array(x), *own, heads, **options)
        into = tuple(np.ones_like(w) for w in own) + ((np.ones(size, own[0].dtype),) * 2 if norms else ())
        into = tuple(array.copy() for array in into)
        added = ops.multi_head_attention_backward(array(dout), cache, into=into)
        return out, *ops.multi_head_attention_backward(array(dout), cache), *added

    assert_parity(kernels, call, float32_bound=1e-5, float64_bound=1e-11)


def test_what_does_not_fit_is_refused():
    for ops in (layers, kernels):
        q, k = np.ones((1, 5, 4, 8)), np.ones((1, 5, 3, 8))
        with pytest.raises(KernelError, match="divides 4"):
            ops.attention_forward(q, k, k)
        weights = np.ones((6, 30)), None, np.ones((12, 6)), None
        with pytest.raises(KernelError, match="n_kv_head"):
            ops.multi_head_attention_forward(np.ones((1, 5, 6)), *weights, 4, n_kv_head=3)
        with pytest.raises(KernelError, match="weight"):
            ops.rmsnorm_forward(np.ones((2, 3)), np.ones(4))
