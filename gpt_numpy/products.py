"""Products in bfloat16: what is rounded, and how far the result may be off.

A matrix product C = A · B with ``products="bfloat16"`` rounds each element of A and of B to the nearest bfloat16
(8 bits of precision, ties to even) and multiplies and adds those in float32. The forward rounds nothing else, the backward
only the input of the activation: weights, gradients, moments, biases, layernorm, the softmax of attention, and the loss stay
float32. A bias's gradient is the sum of unrounded numbers.

    where                rounded operands                                                  not rounded
    linear, mlp, head    x and W forward; dout and W, x and dout backward                  bias, dbias
    mlp, activation      its input h in the backward                                       h in the forward
    attention, forward   q and k; W̃ and v, where W̃ = dropout(e^s / 2ⁿ)                     scores s, Σ e^s, out
    attention, backward  q and k; dout and v; P̃ and dout; dS and k; dS and q               P, dP

P = softmax(s), P̃ = dropout(P), and dS = P ∘ (dropout(dP) − Σ dout · out) with dout rounded, before 1/√head_size scales the
gradients of q and k. n is an integer for which no e^s / 2ⁿ of a row exceeds 2⁸; the result is divided by Σ e^s / 2ⁿ.
Another n would give the same rounded numbers, times a power of two.

The kernels keep in bfloat16, in half the memory, what only products read in the backward: the inputs of attention and of
the feed-forward layer, and q, k and v (but not where q and k have a norm, whose gradient needs float32). Products round
these arrays in any case, so every bit of the gradients is that of arrays kept in float32. The activation's input h, the widest
array of a block, is kept in bfloat16 as well. The backward therefore takes f(ĥ), an operand, and the slope f′(ĥ) of the
activation f at ĥ = h(1 + ε), |ε| ≤ u = 2⁻⁸, where the forward takes f(h). To first order in u,

    |f(ĥ) − f(h)| ≤ u·|h·f′(h)|     |f′(ĥ) − f′(h)| ≤ u·|h·f″(h)|, which for GELU is at most 0.34 u.

Attention's ``out`` stays float32 for the sums Σ dout · out, the residual stream for the gradients of the norms. For each number
of a row of the residual stream, a block of GPT-2 keeps 30 bytes instead of 48.

A rounding is off by at most u of the number, so with Â, B̂ for the rounded operands, for each element

    |C − A·B| ≤ |C − Â·B̂| + |Â·B̂ − A·B| ≤ (γ + 2u + u²) · (|A|·|B|)

where γ ≈ K · 2⁻²⁴ bounds the rounding of a float32 sum of K products. ``layers.rounded`` is the oracle: it multiplies the
rounded operands exactly as ``layers`` would, so a kernel's product differs from it by γ alone. Where a kernel computes the
operand itself (W̃, P̃, dS, what a layer gets from the one before), the two may be on either side of a tie, and that operand
then differs by one unit, 2u of it: rarely, but a difference of that size is no error.
"""

from __future__ import annotations

import importlib

import numpy as np

from .errors import ConfigError

PRODUCTS = ("float32", "bfloat16")
WEIGHT_FORMATS = ("float32", "bfloat16", "int8", "int4")  # of packed weights: ``inference.packed``


def check_products(products):
    """``products``; raises ``ConfigError`` if it is none of PRODUCTS."""
    if products not in PRODUCTS:
        raise ConfigError("no such products", field="products", found=products, expected=" or ".join(PRODUCTS))
    return products


def with_products(ops, products):
    """The module of layer functions whose matrix products are ``products``: ``ops``, or its module ``rounded``.

    ops: ``gpt_numpy.layers`` or ``gpt_numpy.kernels`` for "bfloat16", anything for "float32".
    """
    if check_products(products) == "float32":
        return ops
    name = getattr(ops, "__name__", type(ops).__name__)
    if name not in ("gpt_numpy.layers", "gpt_numpy.kernels"):
        raise ConfigError(
            "products in bfloat16 come with two modules of layers",
            field="ops",
            found=name,
            expected="gpt_numpy.layers or gpt_numpy.kernels",
        )
    return importlib.import_module(f"{name}.rounded")


def round_to_bfloat16(x: np.ndarray) -> np.ndarray:
    """x (float32 or float64) with each element replaced by the nearest bfloat16, ties to even, in x's own type.

    A finite number beyond the largest bfloat16 becomes infinite, a NaN stays one. float64 is rounded once, not by way
    of float32.
    """
    x = np.asarray(x)
    if x.dtype == np.float64:
        return _round_double(x)
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), np.float32(np.nan), rounded.view(np.float32)).astype(x.dtype, copy=False)


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """The upper halves (uint16) of float32 ``x`` rounded by ``round_to_bfloat16``, which are all that a bfloat16 has."""
    return (round_to_bfloat16(x).view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """float32 array from uint16 bits of bfloat16, which are the upper half of a float32's."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _round_double(x):
    _, exponent = np.frexp(x)
    unit = np.ldexp(1.0, np.maximum(exponent, -125) - 8)  # of the eighth bit, or of bfloat16's denormals
    with np.errstate(invalid="ignore"):
        rounded = np.where(np.isfinite(x), np.rint(x / unit) * unit, x)
    return np.where(np.abs(rounded) > np.finfo(np.float32).max, np.copysign(np.inf, rounded), rounded)
