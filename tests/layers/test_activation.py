"""The activations by name, against plain Python and at the ends of the number line."""

import math

import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.architecture.normal_tail import normal_density, normal_distribution
from gpt_numpy.config import PLAIN_ACTIVATIONS
from gpt_numpy.errors import KernelError


def phi(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


def logistic(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


PLAIN = {
    "gelu": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_erf": lambda x: x * phi(x),
    "gelu_10": lambda x: min(10, x * phi(x)),
    "quick_gelu": lambda x: x * logistic(1.702 * x),
    "silu": lambda x: x * logistic(x),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "hardswish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "relu": lambda x: max(x, 0),
    "relu2": lambda x: max(x, 0) ** 2,
    "relu6": lambda x: min(max(x, 0), 6),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "tanh": math.tanh,
    "sigmoid": logistic,
    "laplace": lambda x: 0.5 * (1 + math.erf((x - 0.707107) / (0.282095 * math.sqrt(2)))),
    "linear": lambda x: x,
}


def test_gradients(prove_gradients):
    prove_gradients("activation", dict.fromkeys(PLAIN_ACTIVATIONS, 2 * 5 * 12))


@pytest.mark.parametrize("name", PLAIN_ACTIVATIONS)
def test_values(name):
    x = np.linspace(-12, 12, 1001)
    out, _ = layers.activation_forward(x, name)
    np.testing.assert_allclose(out, [PLAIN[name](v) for v in x.tolist()], rtol=1e-11, atol=4e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", PLAIN_ACTIVATIONS)
def test_the_ends_of_the_number_line(name, dtype):
    x = np.array([-np.inf, -1e30, 1e30, np.inf, np.nan], dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        out, cache = layers.activation_forward(x, name)
        dx = layers.activation_backward(np.ones_like(x), cache)
    assert out.dtype == dx.dtype == dtype
    assert np.isnan(out).tolist() == [False] * 4 + [True]
    assert not np.isnan(dx[:4]).any()


def test_the_normal_distribution_keeps_its_relative_accuracy_in_the_tail():
    x = np.linspace(-36, 9, 4001)
    expected = np.array([phi(v) for v in x])
    np.testing.assert_allclose(normal_distribution(x), expected, rtol=1e-12)
    np.testing.assert_allclose(normal_distribution(x.astype(np.float32)), expected, atol=3e-7)
    step = normal_distribution(x + 1e-30j).imag / 1e-30
    np.testing.assert_allclose(step, normal_density(x), rtol=1e-9, atol=1e-300)


def test_an_unknown_name():
    with pytest.raises(KernelError, match="name.*softsign.*silu"):
        layers.activation_forward(np.ones(3), "softsign")


def test_gradients_of_the_gated_form(prove_gradients):
    prove_gradients("swiglu", {"": 2 * 5 * 24, "gate of gelu_erf": 2 * 5 * 24})


def test_values_of_the_gated_form(rng):
    hidden = rng.normal(size=(3, 10))
    out, _ = layers.swiglu_forward(hidden)
    expected = [[g / (1 + math.exp(-g)) * up for g, up in zip(row[:5], row[5:])] for row in hidden.tolist()]
    np.testing.assert_allclose(out, expected, rtol=1e-13)


def test_a_closed_gate_passes_nothing():
    hidden = np.array([[-800.0, 0.0, 3.0, 5.0]])
    out, cache = layers.swiglu_forward(hidden)
    dhidden = layers.swiglu_backward(np.ones((1, 2)), cache)
    np.testing.assert_array_equal(out, [[0.0, 0.0]])
    np.testing.assert_array_equal(dhidden, [[0.0, 2.5, 0.0, 0.0]])  # silu'(0) = 1/2, times up


def test_an_odd_number_of_columns():
    with pytest.raises(KernelError, match=r"hidden.*\(2, 5\)"):
        layers.swiglu_forward(np.ones((2, 5)))
