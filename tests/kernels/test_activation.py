import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.config import GATED_ACTIVATIONS, PLAIN_ACTIVATIONS
from gpt_numpy.errors import KernelError
from gpt_numpy.kernels import activation as kernels
from gpt_numpy.kernels import mlp


@pytest.mark.parametrize("name", PLAIN_ACTIVATIONS)
def test_parity(rng, assert_parity, name):
    x, dout = 3 * rng.normal(size=(5, 2731)), rng.normal(size=(5, 2731))

    def call(ops, array):
        out, cache = ops.activation_forward(array(x), name)
        return out, ops.activation_backward(array(dout), cache)

    assert_parity(kernels, call, float32_bound=2e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", PLAIN_ACTIVATIONS)
def test_special_values(name, dtype):
    x = np.array([-np.inf, -1e15, -50, -3, -0.0, 0.0, 3, 6, 50, 1e15, np.inf, np.nan, 1.0], dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        expected, cache = layers.activation_forward(x.astype(np.float64), name)
        slope = layers.activation_backward(np.ones(x.shape), cache)
    out, cache = kernels.activation_forward(x, name)
    np.testing.assert_allclose(out, expected, rtol=2e-6, atol=1e-9)
    found = kernels.activation_backward(np.ones_like(x), cache)
    known = ~np.isnan(slope)
    np.testing.assert_allclose(found[known], slope[known], rtol=2e-6, atol=3e-7 if dtype == np.float32 else 1e-15)


@pytest.mark.parametrize("shape", [(1, 2), (3, 5, 22), (233, 150), (0, 4)])
def test_swiglu(rng, assert_parity, shape):
    hidden, dout = rng.normal(size=shape), rng.normal(size=(*shape[:-1], shape[-1] // 2))

    def call(ops, array):
        out, cache = ops.swiglu_forward(array(hidden))
        return out, ops.swiglu_backward(array(dout), cache)

    assert_parity(kernels, call, float32_bound=1e-6)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("name", ["gelu", "gelu_erf", "relu2", *GATED_ACTIVATIONS])
def test_the_feed_forward_layer(rng, assert_parity, name, biased):
    rows, C, W = 1030, 12, 20  # more rows than a chunk
    wide = 2 * W if name in GATED_ACTIVATIONS else W
    x, dout = rng.normal(size=(rows, C)), rng.normal(size=(rows, C))
    weights = rng.normal(size=(C, wide)) / 4, rng.normal(size=wide), rng.normal(size=(W, C)) / 4, rng.normal(size=C)

    def call(ops, array):
        own = [array(w) if biased or w.ndim == 2 else None for w in weights]
        out, cache = ops.mlp_forward(array(x), *own, activation=name)
        into = tuple(None if w is None else np.ones_like(w) for w in own)
        added = ops.mlp_backward(array(dout), cache, into=into)
        return tuple(a for a in (out, *ops.mlp_backward(array(dout), cache), *added) if a is not None)

    assert_parity(mlp, call, float32_bound=3e-6)


def test_what_does_not_fit_is_refused_before_anything_is_written():
    with pytest.raises(KernelError, match="name.*softsign"):
        kernels.activation_forward(np.ones(3), "softsign")
    x, fc, proj = np.ones((2, 4)), np.ones((4, 6)), np.ones((6, 4))
    with pytest.raises(KernelError, match="proj_weight"):
        mlp.mlp_forward(x, fc, None, proj, None, activation="swiglu")
    _, cache = mlp.mlp_forward(x, fc, None, proj, None)
    with pytest.raises(KernelError, match="no such parameter"):
        mlp.mlp_backward(x, cache, into=(np.ones((4, 6)), np.ones(6), np.ones((6, 4)), None))
