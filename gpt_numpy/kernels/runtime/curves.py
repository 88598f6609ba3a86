"""The activations beside the tanh GELU, and their derivatives, on vectors.

``layers.activation`` lists the functions and derives the slopes. Here each name has a pair (value, slope): functions of
``Lanes``, written with the exponentials of ``mathematics``. NaN stays NaN; ±∞ gives the limit.
"""

import math
from typing import NamedTuple

import numpy as np

from ...architecture.normal_tail import LARGEST, tail_polynomial
from . import mathematics
from .emitting import absolute, fma, select

QUICK, LEAK = 1.702, 0.01
LAPLACE_MEAN, LAPLACE_DEVIATION = 0.707107, 0.282095
_FLAT = 1e4  # beyond ± this every gate is 0 or 1 to the last bit


def sigmoid(x):
    """1 / (1 + e⁻ˣ), from e^−|x|, so that neither end is a difference of nearly equal numbers."""
    negative = x < 0.0
    e = mathematics.exp(select(negative, x, -x))
    return select(negative, e, x.constant(1.0)) / (e + 1.0)


def normal_distribution(x):
    """Φ(x); see ``gpt_numpy.architecture.normal_tail``."""
    dtype = np.dtype(np.float32 if x.type.element.bitwidth == 32 else np.float64)
    scale, shift, coefficients = tail_polynomial(dtype)
    z = absolute(x) * math.sqrt(0.5)
    far = z > LARGEST[dtype]
    z = select(far, x.constant(LARGEST[dtype]), z)
    t = x.constant(2.0) / (z + 2.0)
    u = fma(t, x.constant(scale), x.constant(shift))
    total = x.constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = fma(total, u, x.constant(coefficient))
    tail = t * 0.5 * mathematics.exp(total - z * z)
    tail = select(far, x.constant(0.0), tail)
    return select(x < 0.0, tail, x.constant(1.0) - tail)


def _density(x):
    return mathematics.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))


def _near(x, limit=_FLAT):
    return select(x < -limit, x.constant(-limit), select(x > limit, x.constant(limit), x))


def _stem(x):
    """x, but 0 at −∞, where the gate is 0 and the product would be NaN."""
    return select(x < -3e38, x.constant(0.0), x)


def _positive(x):
    return select(x <= 0.0, x.constant(0.0), x)  # a NaN stays one


def _logistic(beta):
    def value(x):
        return _stem(x) * sigmoid(x * beta)

    def slope(x):
        near = _near(x)
        gate = sigmoid(near * beta)
        return fma(near * beta, gate * (x.constant(1.0) - gate), gate)

    return value, slope


def _gelu_slope(x):
    near = _near(x, 30.0)
    return fma(near, _density(near), normal_distribution(near))


def _mish_parts(x):
    e = mathematics.exp(select(x > 20.0, x.constant(20.0), x))
    n = e * (e + 2.0)
    return n / (n + 2.0), e / (e + 1.0)


def _mish_slope(x):
    near = _near(x)
    gate, logistic = _mish_parts(near)
    return fma(near * (x.constant(1.0) - gate * gate), logistic, gate)


def _hardswish_slope(x):
    inner = (x * 2.0 + 3.0) * (1 / 6)
    return select(x > 3.0, x.constant(1.0), select(x <= -3.0, x.constant(0.0), inner))


def _clip_above(x, most):
    return select(x > most, x.constant(most), x)


def _step(x, below, above):
    return select(x > 0.0, x.constant(above), select(x <= 0.0, x.constant(below), x))


def _laplace(x):
    return (x - LAPLACE_MEAN) * (1 / LAPLACE_DEVIATION)


class Curve(NamedTuple):
    value: object
    slope: object


CURVES = {
    "gelu": Curve(mathematics.gelu, mathematics.gelu_derivative),
    "gelu_erf": Curve(lambda x: _stem(x) * normal_distribution(x), _gelu_slope),
    "gelu_10": Curve(
        lambda x: _clip_above(_stem(x) * normal_distribution(x), 10.0),
        lambda x: select(x > 10.0, x.constant(0.0), _gelu_slope(x)),
    ),
    "quick_gelu": Curve(*_logistic(QUICK)),
    "silu": Curve(*_logistic(1.0)),
    "mish": Curve(lambda x: _stem(x) * _mish_parts(x)[0], _mish_slope),
    "hardswish": Curve(
        lambda x: select(x >= 3.0, x, _stem(x) * (_clip_above(_positive(x + 3.0), 6.0) * (1 / 6))), _hardswish_slope
    ),
    "relu": Curve(_positive, lambda x: _step(x, 0.0, 1.0)),
    "relu2": Curve(lambda x: _positive(x) * _positive(x), lambda x: _positive(x) * 2.0),
    "relu6": Curve(
        lambda x: _clip_above(_positive(x), 6.0), lambda x: select(x >= 6.0, x.constant(0.0), _step(x, 0.0, 1.0))
    ),
    "leaky_relu": Curve(lambda x: select(x > 0.0, x, x * LEAK), lambda x: _step(x, LEAK, 1.0)),
    "tanh": Curve(mathematics.tanh, lambda x: x.constant(1.0) - mathematics.tanh(x) * mathematics.tanh(x)),
    "sigmoid": Curve(sigmoid, lambda x: sigmoid(x) * (x.constant(1.0) - sigmoid(x))),
    "linear": Curve(lambda x: x, lambda x: x.constant(1.0)),
    "laplace": Curve(
        lambda x: normal_distribution(_laplace(x)),
        lambda x: _density(_near(_laplace(x), 30.0)) * (1 / LAPLACE_DEVIATION),
    ),
}
