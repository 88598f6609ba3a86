import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.errors import KernelError


def test_gradients(prove_gradients):
    prove_gradients("rmsnorm", {"": 2 * 5 * 12 + 12, "large ε": 2 * 5 * 12 + 12})


def test_rows_have_a_mean_square_of_one_and_keep_their_mean(rng):
    x = 3 + 5 * rng.normal(size=(4, 7, 33))
    out, _ = layers.rmsnorm_forward(x, np.ones(33), epsilon=0.0)
    np.testing.assert_allclose((out**2).mean(axis=-1), 1, rtol=1e-13)
    np.testing.assert_allclose(out, x / np.sqrt((x**2).mean(axis=-1, keepdims=True)), rtol=1e-13)
    assert np.abs(out.mean(axis=-1)).min() > 0.1


def test_of_centred_rows_it_is_a_layernorm_and_so_is_its_gradient_but_for_the_mean(rng):
    x, weight, dout = rng.normal(size=(5, 12)), 1 + rng.normal(size=12), rng.normal(size=(5, 12))
    x -= x.mean(axis=-1, keepdims=True)
    out, cache = layers.rmsnorm_forward(x, weight)
    expected, other = layers.layernorm_forward(x, weight, None)
    np.testing.assert_allclose(out, expected, atol=1e-14)
    dx, dweight = layers.rmsnorm_backward(dout, cache)
    of_layernorm, dweight_of_layernorm, dbias = layers.layernorm_backward(dout, other)
    np.testing.assert_allclose(dx - dx.mean(axis=-1, keepdims=True), of_layernorm, atol=1e-13)
    np.testing.assert_allclose(dweight, dweight_of_layernorm, atol=1e-13)
    assert dbias is None


def test_a_scaling_of_the_row_has_no_gradient(rng):
    x, dout = rng.normal(size=(5, 12)), rng.normal(size=(5, 12))
    _, cache = layers.rmsnorm_forward(x, np.ones(12), epsilon=0.0)
    dx, _ = layers.rmsnorm_backward(dout, cache)
    np.testing.assert_allclose((dx * x).sum(axis=-1), 0, atol=1e-13)


def test_what_does_not_fit_is_refused():
    with pytest.raises(KernelError, match="weight"):
        layers.rmsnorm_forward(np.ones((2, 3)), np.ones(4))
    with pytest.raises(KernelError, match="at least 1 column"):
        layers.rmsnorm_forward(np.ones((2, 0)), np.ones(0))
