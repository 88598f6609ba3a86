"""Random numbers as a function of coordinates: equal coordinates give equal numbers, and no state is saved.

Dropout keeps no generator. Whether an element is dropped is a hash of its position: the seed, the
training step, the layer, the site inside the layer, its sequence in the global batch, its row and its
column. A resumed run, another split of the batch over micro-batches or ranks, and a kernel that visits the
elements in tiles therefore all see the same mask, and the backward pass recomputes it instead of storing it.

``layers.dropout`` and ``kernels.dropout`` both compute the hash from the ``Dropout`` made here.
"""

from __future__ import annotations

from typing import NamedTuple

_MASK64 = (1 << 64) - 1


class Dropout(NamedTuple):
    """A site where activations are dropped.

    probability     of dropping an element, 0 <= p < 1
    key             64 bits that name the site: see ``dropout_key``
    first_sequence  index, in the global batch, of the first sequence in the array at hand
    """

    probability: float
    key: int
    first_sequence: int = 0


def splitmix64(x: int) -> int:
    """Scramble a 64-bit integer: the output function of SplitMix64 (Steele, Lea and Flood 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)


def fold(*coordinates: int) -> int:
    """64 bits from any number of integers; each one changes all bits of the result."""
    key = 0
    for coordinate in coordinates:
        key = splitmix64(key ^ (coordinate & _MASK64))
    return key


def dropout_key(seed: int, step: int, layer: int, site: int) -> int:
    """The key of a dropout site. ``site`` is 0 embedding, 1 attention weights, 2 and 3 the two residuals."""
    return fold(seed, step, layer, site)
