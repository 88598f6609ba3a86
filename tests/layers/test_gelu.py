import math

import numpy as np
import pytest

from gpt_numpy import layers


def gelu(x):
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def test_gradients(prove_gradients):
    prove_gradients("gelu", {"": 2 * 5 * 12})


def test_values():
    x = np.linspace(-8, 8, 161).reshape(7, 23)
    out, _ = layers.gelu_forward(x)
    np.testing.assert_allclose(out, np.vectorize(gelu)(x), rtol=1e-12, atol=4e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_ends_of_the_number_line(dtype):
    x = np.array([-np.inf, np.inf, np.nan, 1e30, -1e30, 0.0], dtype)
    with np.errstate(all="raise"):
        out, cache = layers.gelu_forward(x)
        dx = layers.gelu_backward(np.ones_like(x), cache)
    np.testing.assert_array_equal(out, np.array([0, np.inf, np.nan, 1e30, 0, 0], dtype))
    np.testing.assert_array_equal(dx, np.array([0, 1, np.nan, 1, 0, 0.5], dtype))
    assert out.dtype == dx.dtype == dtype


def test_the_derivative_is_of_the_tanh_form_not_of_the_exact_one():
    x = np.linspace(-3, 3, 61)
    _, cache = layers.gelu_forward(x)
    slope = layers.gelu_backward(np.ones_like(x), cache)
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    exact = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]) + x * density
    difference = np.abs(slope - exact).max()
    assert 1e-4 < difference < 2e-3  # near, and yet another function


def test_results_lie_where_alloc_says(rng, counting_alloc):
    out, cache = layers.gelu_forward(rng.normal(size=(3, 4)), counting_alloc)
    dx = layers.gelu_backward(rng.normal(size=(3, 4)), cache, counting_alloc)
    assert counting_alloc.owns(out) and counting_alloc.owns(dx) and np.isfinite(dx).all()
