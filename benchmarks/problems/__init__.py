"""The problem of each benchmarked operation: its inputs, its right answer in float64, its operations and bytes.

The rungs of the ladder and the peers solve the same problems. An answer is compared with the result of
``gpt_numpy.layers`` in float64 from the same float32 inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ROUNDED_TOLERANCE = 2e-2  # of an answer whose products round their operands to bfloat16 (a unit is 2⁻⁸)


class Problem(NamedTuple):
    """One operation. A size is a dict of lengths, such as ``dict(rows=4096, columns=768)``."""

    summary: str
    make: (
        Callable  # (rng, **size) -> dict of float32 (or integer) arrays, in the order in which the operation takes them
    )
    through: Callable  # (ops, arrays, alloc) -> tuple of outputs, by a namespace of ops such as gpt_numpy.layers
    flops: Callable  # (**size) -> float32 operations, a multiply-add as two
    bytes: Callable  # (**size) -> bytes that must cross the memory bus at least
    tolerance: float  # largest error allowed, relative to the largest entry of each output
    right: Callable | None = None  # arrays -> the right outputs, where gpt_numpy.layers has no such operation

    def inputs(self, size):
        """The seeded inputs of that size."""
        return self.make(np.random.default_rng(0), **size)

    def oracle(self, arrays):
        """The right outputs, float64."""
        if self.right is not None:
            return self.right(arrays)
        from gpt_numpy import layers

        return self.through(layers, doubled(arrays), np.empty)


def doubled(arrays):
    """``arrays`` in float64, copied; integers as they are."""
    return {name: a.astype(np.float64) if a.dtype == np.float32 else a.copy() for name, a in arrays.items()}


def fresh(arrays):
    """Copies of ``arrays``, for an implementation that works in place."""
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in arrays.items()}


def error_against(expected, outputs):
    """Largest error of any output, relative to that output's largest entry; NaN for a wrong shape or a NaN."""
    worst = 0.0
    for want, got in zip(expected, outputs, strict=True):
        want, got = np.asarray(want, np.float64), np.asarray(got, np.float64)
        if want.shape != got.shape or not np.isfinite(got).all():
            return float("nan")
        scale = max(float(np.abs(want).max(initial=0)), 1e-30)
        worst = max(worst, float(np.abs(want - got).max(initial=0)) / scale)
    return worst
