"""The functions that stand where GPT-2 has its tanh GELU, by name; ``gelu`` has a file of its own.

    gelu_erf     x · Φ(x), Φ the normal distribution function (Hendrycks and Gimpel 2016); transformers: ``gelu``
    gelu_10      the same, clipped to −10 … 10
    quick_gelu   x · σ(1.702 x), with σ(x) = 1 / (1 + e⁻ˣ)
    silu         x · σ(x), also called swish (Elfwing et al. 2017; Ramachandran et al. 2017)
    mish         x · tanh(log(1 + eˣ)) (Misra 2019)
    hardswish    x · relu6(x + 3) / 6 (Howard et al. 2019)
    relu         max(x, 0)
    relu2        max(x, 0)² (So et al. 2021)
    relu6        min(max(x, 0), 6)
    leaky_relu   x for x > 0, 0.01 x elsewhere
    tanh, sigmoid, linear
    laplace      Φ((x − √½) / √(1 / 4π)) (Ma et al. 2022), with transformers' six digits for the two numbers

The gated form takes rows of twice the width, gate and up side by side (Shazeer 2020, "GLU variants improve transformer"):

    out = f(gate) ∘ up,   where gate | up are the left and the right half of each row

With f = silu this is SwiGLU, the hidden layer of Llama, Mistral and Qwen. At a corner (relu at 0) the derivative is the
left one, as in PyTorch. The fast twin is ``kernels.activation``.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..architecture.normal_tail import normal_density, normal_distribution
from ..arguments import check_axes, check_choice, check_shape, halves
from ..config import PLAIN_ACTIVATIONS
from .gelu import gelu_backward, gelu_forward

QUICK = 1.702
LEAK = 0.01
LAPLACE_MEAN, LAPLACE_DEVIATION = 0.707107, 0.282095


class ActivationCache(NamedTuple):
    x: np.ndarray  # any shape
    name: str


class SwigluCache(NamedTuple):
    hidden: np.ndarray  # (..., 2W): gate, then up
    activation: str


class Activation(NamedTuple):
    """An elementwise function and its derivative, functions of an array."""

    value: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]


def sigmoid(x):
    """1 / (1 + e⁻ˣ), from the exponential of −|x|, which cannot overflow."""
    negative = x.real < 0
    e = np.exp(np.where(negative, x, -x))
    return np.where(negative, e, 1) / (1 + e)


def _times(x, gate):
    """x · gate, with the limit 0 where x is −∞ and the gate is 0."""
    return np.where(np.isneginf(x.real), x.dtype.type(0), x) * gate


def _positive(x):
    return np.where(x.real <= 0, x.dtype.type(0), x)  # a NaN stays one


def _step(x, below, above=1):
    """``above`` for x > 0, ``below`` elsewhere; a NaN stays one."""
    return np.where(x.real > 0, above, np.where(x.real <= 0, x.real.dtype.type(below), x))


def _logistic(beta):
    """x · σ(βx). Its derivative is σ + x · β σ (1 − σ), by the product rule and σ′ = σ (1 − σ)."""

    def slope(x):
        gate = sigmoid(beta * x)
        return gate + _times(np.clip(x, -1e4, 1e4), beta * gate * (1 - gate))

    return Activation(lambda x: _times(x, sigmoid(beta * x)), slope)


def _gelu_slope(x):
    """(x · Φ)′ = Φ + x · φ, with φ = Φ′ the normal density."""
    near = np.clip(x, -40, 40)  # outside, φ is 0
    return normal_distribution(near) + near * normal_density(near)


def _mish_parts(x):
    """n / (n + 2) = tanh(log(1 + eˣ)), n = eˣ (eˣ + 2): with s = 1 + eˣ, tanh(log s) = (s² − 1) / (s² + 1)."""
    e = np.exp(np.where(x.real > 20, 20, x))  # beyond, the ratio is 1 to the last bit
    n = e * (e + 2)
    return n / (n + 2), e / (1 + e)


def _mish_slope(x):
    """With g = tanh(softplus(x)): g + x · (1 − g²) · σ(x), because softplus′ = σ."""
    near = np.clip(x, -1e4, 1e4)
    gate, logistic = _mish_parts(near)
    return gate + near * (1 - gate * gate) * logistic


def _laplace(x):
    return (x - LAPLACE_MEAN) / LAPLACE_DEVIATION


def _clipped(x):
    value = _times(x, normal_distribution(x))
    return np.where(value.real > 10, x.dtype.type(10), value)


ACTIVATIONS = {
    "gelu_erf": Activation(lambda x: _times(x, normal_distribution(x)), _gelu_slope),
    "gelu_10": Activation(_clipped, lambda x: np.where(x.real > 10, 0, _gelu_slope(x))),
    "quick_gelu": _logistic(QUICK),
    "silu": _logistic(1),
    "mish": Activation(lambda x: _times(x, _mish_parts(x)[0]), _mish_slope),
    "hardswish": Activation(
        lambda x: np.where(x.real >= 3, x, _times(x, _positive(x + 3) / 6)),
        lambda x: np.where(x.real > 3, 1, np.where(x.real <= -3, 0, (2 * x + 3) / 6)),
    ),
    "relu": Activation(_positive, lambda x: _step(x, 0)),
    "relu2": Activation(lambda x: _positive(x) ** 2, lambda x: 2 * _positive(x)),
    "relu6": Activation(
        lambda x: np.where(x.real > 6, x.dtype.type(6), _positive(x)), lambda x: np.where(x.real >= 6, 0, _step(x, 0))
    ),
    "leaky_relu": Activation(lambda x: np.where(x.real > 0, x, LEAK * x), lambda x: _step(x, LEAK)),
    "tanh": Activation(np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": Activation(sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    "linear": Activation(lambda x: x, np.ones_like),
    "laplace": Activation(
        lambda x: normal_distribution(_laplace(x)),
        lambda x: normal_density(np.clip(_laplace(x), -40, 40)) / LAPLACE_DEVIATION,
    ),
}


def activation_forward(x, name, alloc=np.empty):
    """out = f(x), elementwise, with f the function of that name."""
    check_axes(0, x=x)
    check_choice("name", name, PLAIN_ACTIVATIONS)
    if name == "gelu":
        return gelu_forward(x, alloc)[0], ActivationCache(x, name)
    out = alloc(x.shape, x.dtype)
    out[...] = ACTIVATIONS[name].value(x)
    return out, ActivationCache(x, name)


def activation_backward(dout, cache, alloc=np.empty):
    """dx = dout · f′(x), by the chain rule; each derivative stands under its function."""
    x, name = cache
    check_shape("dout", dout, x.shape)
    if name == "gelu":
        _, gelu_cache = gelu_forward(x)
        return gelu_backward(dout, gelu_cache, alloc)
    dx = alloc(x.shape, x.dtype)
    return np.multiply(dout, ACTIVATIONS[name].slope(x), out=dx)


def swiglu_forward(hidden, activation="silu", alloc=np.empty):
    """out (..., W) = f(gate) · up, elementwise, for hidden (..., 2W) = gate | up."""
    gate, up = halves(hidden)
    activated, _ = activation_forward(gate, activation)
    out = np.multiply(activated, up, out=alloc(up.shape, hidden.dtype))
    return out, SwigluCache(hidden, activation)


def swiglu_backward(dout, cache, alloc=np.empty):
    """dhidden (..., 2W) = dgate | dup.

    out = f(gate) · up is a product of two inputs, so each gets dout times the derivative of its own factor:

        dup   = dout · f(gate)
        dgate = dout · up · f′(gate)

    A gate near 0 closes both ways: neither the value nor the gradient of ``up`` passes.
    """
    hidden, activation = cache
    gate, up = halves(hidden)
    check_shape("dout", dout, up.shape)
    activated, cache = activation_forward(gate, activation)
    dhidden = alloc(hidden.shape, hidden.dtype)
    dgate, dup = halves(dhidden)
    dgate[...] = activation_backward(dout * up, cache)
    np.multiply(dout, activated, out=dup)
    return dhidden
