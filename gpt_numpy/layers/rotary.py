"""Rotary position embedding: queries and keys are turned by an angle that grows with the position (Su et al. 2021, RoPE).

The numbers of a head form pairs; pair i of the token at position m is turned by the angle m · ω_i. The product of a query
at m and a key at n then depends on m − n alone, because turning both by the same angle does not change it. Two pairings
are in use: ``halves`` pairs number i with number i + head_size/2 (Llama's weights in transformers), ``neighbours`` pairs
2i with 2i + 1 (the paper). ``gpt_numpy.architecture.rotation`` makes the angles. The fast twin is ``kernels.rotary``.
"""

from typing import NamedTuple

import numpy as np

from ..architecture.rotation import Rotation
from ..arguments import check_rotary, check_shape


class RotaryCache(NamedTuple):
    rotation: Rotation
    shape: tuple


def rotary_forward(x, rotation, alloc=np.empty):
    """x (B, T, n_head, head_size) with every pair (a, b) replaced by (a cos − b sin, a sin + b cos)."""
    check_rotary(x, rotation)
    return turned(x, rotation, alloc, 1), RotaryCache(rotation, x.shape)


def rotary_backward(dout, cache, alloc=np.empty):
    """dx: every pair of dout turned back by the same angle.

    The forward is linear: (a, b) ↦ R (a, b) with R = [[cos, −sin], [sin, cos]]. The gradient passes through Rᵀ, and a
    rotation's transpose is its inverse, the rotation by −angle:

        da = cos · dout_a + sin · dout_b,   db = −sin · dout_a + cos · dout_b.
    """
    check_shape("dout", dout, cache.shape)
    return turned(dout, cache.rotation, alloc, -1)


def turned(x, rotation, alloc, sign):
    """x with every pair turned by ``sign`` times its angle: (a cos − b sin, a sin + b cos); sign is 1 or −1."""
    cos, sin = (table[..., :, None, :] for table in (rotation.cos, rotation.sin))  # one angle for all heads
    sin = sign * sin
    out = alloc(x.shape, x.dtype)
    (a, b), (out_a, out_b) = pairs(x, rotation.pairing), pairs(out, rotation.pairing)
    out_a[...] = a * cos - b * sin
    out_b[...] = a * sin + b * cos
    return out


def pairs(x, pairing):
    """Views of the first and of the second numbers of all pairs, each (B, T, n_head, head_size / 2)."""
    if pairing == "neighbours":
        return x[..., 0::2], x[..., 1::2]
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]
