"""The cases of the layers that GPT-2 does not have; ``cases`` lists them after GPT-2's own."""

from __future__ import annotations

from ..config import PLAIN_ACTIVATIONS
from .case import LONG_C, LONG_ROWS, B, C, Case, T


def _activation(ops, draw):
    x = 2 * draw.normal(B, T, C)
    x[0, 0, :5] = 0.25, -0.75, 3.5, -4.5, 1e-3  # away from the corners, where no derivative exists
    pair = ops.activation_forward, ops.activation_backward
    cases = [Case("activation", name, dict(x=x, name=name), *pair) for name in PLAIN_ACTIVATIONS]
    wide = dict(x=2 * draw.normal(1, LONG_ROWS, LONG_C), name="silu")
    return [*cases, Case("activation", "long", wide, *pair)]


def _swiglu(ops, draw):
    pair = ops.swiglu_forward, ops.swiglu_backward
    inputs = dict(hidden=2 * draw.normal(B, T, 2 * C))
    return [
        Case("swiglu", "", inputs, *pair),
        Case("swiglu", "gate of gelu_erf", dict(**inputs, activation="gelu_erf"), *pair),
        Case("swiglu", "long", dict(hidden=draw.normal(1, LONG_ROWS, 2 * LONG_C)), *pair),
    ]


MAKERS = {"activation": _activation, "swiglu": _swiglu}
