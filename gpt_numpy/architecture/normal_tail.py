"""The normal distribution function Φ, for the activations that are defined by it. NumPy has no error function.

For z >= 0 the complementary error function is written as

    erfc(z) = t · exp(−z² + P(t)),   t = 2 / (2 + z),

where P is so smooth that a short polynomial follows it (Press et al., "Numerical Recipes", 3rd edition, section 6.2.2). The
polynomial is interpolated here from ``math.erfc`` at Chebyshev's points. Then Φ(x) = ½ erfc(−x/√2): small values in the
left tail keep their relative accuracy, because nothing is subtracted there. ``layers`` evaluate the formula with
NumPy, ``kernels`` with vectors.
"""

from __future__ import annotations

import functools
import math

import numpy as np

LARGEST = {np.dtype(np.float32): 10.0, np.dtype(np.float64): 26.0}  # erfc is (almost) 0 beyond
_DEGREE = {np.dtype(np.float32): 9, np.dtype(np.float64): 27}


@functools.cache
def tail_polynomial(dtype: np.dtype) -> tuple[float, float, tuple[float, ...]]:
    """(scale, shift, coefficients): P(t) = Σ coefficients[k] · uᵏ with u = scale · t + shift in −1 … 1."""
    dtype = np.dtype(dtype)
    least = 2 / (2 + LARGEST[dtype])

    def exponent(ts):
        zs = [2 / t - 2 for t in ts]
        return np.array([math.log(math.erfc(z) / t) + z * z for z, t in zip(zs, ts)])

    fit = np.polynomial.Chebyshev.interpolate(exponent, _DEGREE[dtype], [least, 1.0])
    scale = 2 / (1 - least)
    series = np.polynomial.Chebyshev(fit.coef).convert(kind=np.polynomial.Polynomial)
    return scale, 1 - scale, tuple(series.coef.tolist())


def normal_distribution(x: np.ndarray) -> np.ndarray:
    """Φ(x), elementwise, of float32, float64, or complex128 with small imaginary parts (for a complex step)."""
    dtype = np.dtype(np.float32 if x.dtype == np.float32 else np.float64)
    left = x.real < 0
    z = np.where(left, -x, x) * dtype.type(math.sqrt(0.5))
    beyond = z.real > LARGEST[dtype]
    z = np.where(beyond, dtype.type(LARGEST[dtype]), z)
    scale, shift, coefficients = tail_polynomial(dtype)
    t = 2 / (2 + z)
    u = dtype.type(scale) * t + dtype.type(shift)
    total = np.zeros_like(u)
    for coefficient in reversed(coefficients):
        total = total * u + dtype.type(coefficient)
    tail = np.where(beyond, dtype.type(0), dtype.type(0.5) * t * np.exp(total - z * z))
    return np.where(left, tail, 1 - tail)


def normal_density(x: np.ndarray) -> np.ndarray:
    """The derivative of ``normal_distribution``: exp(−x²/2) / √(2π)."""
    return np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
