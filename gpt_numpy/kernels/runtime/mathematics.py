"""exp, tanh, and GELU with its derivative, on vectors: a few multiplications instead of a library call per element.

All work for float32 and float64 and follow the special values: NaN stays NaN, exp(−∞) = 0, exp(+∞) = ∞, tanh(±∞) = ±1.
Each is accurate to a few units in the last place (``tests/kernels/runtime/vector_cases.py`` holds the bounds).

The exponential splits x = n·ln 2 + r with |r| ≤ ln 2 / 2 (Cody and Waite, 1980, keep ln 2 in two pieces so that r is
exact), sums the Taylor series of exp(r), which is short for so small an r, and multiplies by 2ⁿ by writing n into the
exponent bits. GELU is the tanh form of Hendrycks and Gimpel (2016), as in GPT-2.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numba import types

from .emitting import absolute, fma, select


class _Format(NamedTuple):
    """What exp needs to know of a floating-point format."""

    integer: types.Integer  # same size
    mantissa_bits: int
    bias: int
    degree: int  # of the Taylor series: the first dropped term is below half a unit in the last place
    exp2_degree: int  # of the polynomial for 2ʳ, |r| ≤ ½
    ln2_high: float  # ln 2 with enough trailing zero bits that n·ln2_high is exact
    ln2_low: float
    largest: float  # exp overflows beyond
    smallest: float  # exp is 0 below
    flat: float  # tanh is 1 beyond


_FLOAT32 = _Format(types.int32, 23, 127, 7, 5, 0.693359375, -2.12194440054690583e-4, 89.0, -104.0, 10.0)
_FLOAT64 = _Format(
    types.int64, 52, 1023, 13, 11, 0.693147180369123816490, 1.90821492927058770002e-10, 710.0, -746.0, 22.0
)


def _format(x):
    return _FLOAT32 if x.type.element.bitwidth == 32 else _FLOAT64


def _reduce(x, form):
    """n (as the low bits of an integer vector, and as floats) and r with x = n·ln 2 + r."""
    # Adding 1.5·2^mantissa pushes the fraction out of the mantissa: what is left is x/ln 2 rounded to an integer.
    magic = x.constant(1.5 * 2.0**form.mantissa_bits)
    shifted = fma(x, x.constant(1 / math.log(2)), magic)
    n = shifted - magic
    r = fma(n, x.constant(-form.ln2_low), fma(n, x.constant(-form.ln2_high), x))
    return shifted.bits(form.integer) - magic.bits(form.integer), r


def _exp_minus_one(r, degree):
    """exp(r) − 1 for |r| ≤ ln 2 / 2, by Horner's rule."""
    total = r.constant(1 / math.factorial(degree))
    for k in range(degree - 1, 0, -1):
        total = fma(total, r, r.constant(1 / math.factorial(k)))
    return total * r


def _power_of_two(n, x, form):
    return ((n + form.bias) << form.mantissa_bits).bits(x.type.element)


def exp(x):
    """eˣ."""
    form = _format(x)
    x = select(x > form.largest, x.constant(form.largest), x)
    x = select(x < form.smallest, x.constant(form.smallest), x)
    n, r = _reduce(x, form)
    half = n >> 1  # 2ⁿ in two factors: n itself may be outside the exponent's range at both ends
    return (_exp_minus_one(r, form.degree) + 1.0) * _power_of_two(half, x, form) * _power_of_two(n - half, x, form)


@functools.cache
def _exp2_series(degree):
    """The polynomial of ``degree`` through 2ʳ at Chebyshev's points of |r| ≤ ½: a few percent short of the best one.

    Its first coefficient is made exact, so that 2⁰ is 1 to the last bit.
    """
    fit = np.polynomial.Chebyshev.interpolate(np.exp2, degree, [-0.5, 0.5])
    return [1.0, *fit.convert(kind=np.polynomial.Polynomial).coef.tolist()[1:]]


def _estrin(coefficients, r):
    """Σ coefficients[k]·rᵏ by pairs, pairs of pairs, …: more multiplications than Horner's rule, in fewer steps."""
    terms = [r.constant(number) for number in coefficients]
    while len(terms) > 1:
        pairs = [fma(terms[i + 1], r, terms[i]) for i in range(0, len(terms) - 1, 2)]
        terms, r = pairs + terms[len(pairs) * 2 :], r * r
    return terms[0]


def _exp2_of_normal(x, form):
    """2ˣ for an x at which it is a normal number: |x| < form.bias."""
    # As in _reduce, with the exponent's bias in the magic number: the low bits of ``shifted`` are 2ⁿ's exponent.
    magic = x.constant(1.5 * 2.0**form.mantissa_bits + form.bias)
    shifted = x + magic
    r = x - (shifted - magic)
    power = (shifted.bits(form.integer) << form.mantissa_bits).bits(x.type.element)
    return _estrin(_exp2_series(form.exp2_degree), r) * power


def exp2_of_negative(x):
    """2ˣ for x ≤ 0 (a rounding error above is fine), as softmax needs it: half the work of ``exp``, and less waiting.

    Relative error below 3e-7 in float32 and 4e-15 in float64. What would be denormal is 0. NaN stays NaN.
    """
    form = _format(x)
    low = x.constant(1 - form.bias)
    return select(x < low, x.constant(0.0), _exp2_of_normal(select(x < low, low, x), form))


def tanh(x):
    """(e²ˣ − 1) / (e²ˣ + 1), from e²ˣ − 1 so that small x keep their accuracy."""
    form = _format(x)
    size = absolute(x)
    size = select(size > form.flat, x.constant(form.flat), size)
    n, r = _reduce(size + size, form)
    scale = _power_of_two(n, x, form)
    grown = fma(_exp_minus_one(r, form.degree), scale, scale - 1.0)
    ratio = grown / (grown + 2.0)
    return select(x < 0.0, -ratio, ratio)


_CUBIC = 0.044715
_SLOPE = 2 * math.sqrt(2 / math.pi)
_FLAT = 100.0  # beyond ± this the gate is 0 or 1 to the last bit


def _gate(x):
    """s = 1 / (1 + e⁻ᵛ) with v = 2·√(2/π)·(x + 0.044715·x³), which equals (1 + tanh(v/2)) / 2; and 1 − s, x².

    With e = e⁻ᵛ, s is 1 / (1 + e) and 1 − s is e / (1 + e): neither is a difference of nearly equal numbers. e is kept
    within the normal numbers, where s and 1 − s are 1 and next to nothing on either side.
    """
    form, square, slope = _format(x), x * x, -_SLOPE * math.log2(math.e)
    v = fma(square, x.constant(slope * _CUBIC), x.constant(slope)) * x
    low, high = x.constant(1 - form.bias), x.constant(form.bias - 1)
    v = select(v < low, low, v)
    e = _exp2_of_normal(select(v > high, high, v), form)
    share = x.constant(1.0) / (e + 1.0)
    return share, e * share, square


def _stem(x):
    # What the gate multiplies: x, but 0 where the gate is 0 in any case and −∞ · 0 would be NaN.
    return select(x < -_FLAT, x.constant(0.0), x)


def gelu(x):
    """½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))."""
    return _stem(x) * _gate(x)[0]


def gelu_and_derivative(x):
    """gelu(x) and s + x·s·(1 − s)·v′, with s the gate and v′ = 2·√(2/π)·(1 + 3·0.044715·x²)."""
    near = select(x < -_FLAT, x.constant(-_FLAT), select(x > _FLAT, x.constant(_FLAT), x))
    gate, rest, square = _gate(near)
    slope = fma(square, x.constant(3 * _SLOPE * _CUBIC), x.constant(_SLOPE))
    derivative = fma(gate * rest * near, slope, gate)
    return _stem(x) * gate, select(x < -_FLAT, x.constant(0.0), derivative)


def gelu_derivative(x):
    """d gelu/dx."""
    return gelu_and_derivative(x)[1]
