"""A case: a layer with inputs, ready to be checked; and the values that inputs are drawn from. ``cases`` lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

B, T, N_HEAD, HEAD_SIZE, V, BLOCK_SIZE = 2, 5, 3, 4, 11, 7
C = N_HEAD * HEAD_SIZE
OPTIMIZER = "adamw"
LONG_C = 75  # four vectors of 16, one of 8, and a rest that divides by none
LONG_ROWS = 233  # rows: several tasks of every kernel at that width, and a rest


class Case(NamedTuple):
    layer: str
    variant: str  # "" for the plain form
    inputs: dict
    forward: Callable[..., Any]
    backward: Callable[..., Any]  # (dout, cache), and into= where n_parameters > 0
    n_parameters: int = 0  # how many gradients, the last ones returned, ``into`` accumulates
    visible: np.ndarray | None = None  # (B, Tq, Tk) bool: which query may see which key; None where nothing is masked
    value: Callable[..., Any] | None = None  # the output for these inputs, by another road; None where none is known

    @property
    def name(self):
        return f"{self.layer} ({self.variant})" if self.variant else self.layer


class Draw:
    """Unit-scale values from a generator of its own for each layer."""

    def __init__(self, seed, number):
        self.rng = np.random.default_rng([seed, number])

    def normal(self, *shape):
        return self.rng.standard_normal(shape)

    def weight(self, *shape):
        """A matrix that keeps unit-scale inputs at unit scale."""
        return self.normal(*shape) / np.sqrt(shape[0])

    def around_one(self, *shape):
        return 1 + 0.5 * self.normal(*shape)

    def targets(self):
        targets = self.rng.integers(0, V, (B, T))
        targets[0, 1] = targets[1, 3] = -1  # two that do not count
        return targets


def without(inputs, *names):
    return {**inputs, **dict.fromkeys(names)}


def visible(Tq, Tk, first_key=0):
    """The mask, computed pair by pair and independently of the layers: bool (B, Tq, Tk)."""
    first_key = np.broadcast_to(first_key, (B, Tq))
    rows = [[[first_key[b, i] <= j <= Tk - Tq + i for j in range(Tk)] for i in range(Tq)] for b in range(B)]
    return np.array(rows)
