"""The Gaussian error linear unit in the tanh form that GPT-2 uses (Hendrycks and Gimpel 2016, section 2).

    gelu(x) = ½ · x · (1 + tanh(u)),   u = √(2/π) · (x + 0.044715 · x³)

This form approximates x · Φ(x), where Φ is the normal distribution function. The derivative below is exact for
this form, not for x · Φ(x). The fast twin is ``kernels.gelu``.
"""

import math
from typing import NamedTuple

import numpy as np

from ..arguments import check_axes, check_shape

SCALE = math.sqrt(2 / math.pi)
CUBIC = 0.044715


class GeluCache(NamedTuple):
    x: np.ndarray  # any shape


def _tanh_argument(x):
    # For |x| > 32, tanh(u) is ±1 in either precision. Clipping keeps x³ finite, and a NaN stays a NaN.
    x = np.clip(x, -32, 32)
    return SCALE * (x + CUBIC * x * x * x)


def gelu_forward(x, alloc=np.empty):
    """out = gelu(x), elementwise; −∞ gives its limit 0, +∞ gives +∞, NaN gives NaN."""
    check_axes(0, x=x)
    gate = 0.5 * (1 + np.tanh(_tanh_argument(x)))
    # At −∞ the gate is exactly 0, and −∞ · 0 would be a NaN, although the limit is 0.
    finite = np.where(x == -np.inf, x.dtype.type(0), x)
    out = np.multiply(finite, gate, out=alloc(x.shape, x.dtype))
    return out, GeluCache(x)


def gelu_backward(dout, cache, alloc=np.empty):
    """dx = dout · gelu'(x); tanh(u) is recomputed from x.

    By the product rule, with t = tanh(u) and dt/du = 1 − t²,

        gelu'(x) = ½ (1 + t) + ½ x (1 − t²) · du/dx,    du/dx = √(2/π) · (1 + 3 · 0.044715 · x²).
    """
    check_shape("dout", dout, cache.x.shape)
    x = np.clip(cache.x, -32, 32)  # outside, gelu' is 0 or 1 to the last bit, as it is at the clip
    t = np.tanh(_tanh_argument(x))
    du_dx = SCALE * (1 + 3 * CUBIC * x * x)
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du_dx
    return np.multiply(dout, slope, out=alloc(x.shape, x.dtype))
