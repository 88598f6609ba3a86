"""Rotary position embedding: one pass over queries or keys, which may be a view of a wider array, also in place.

The twin of ``layers.rotary``, which derives the gradient.
"""

from typing import NamedTuple

import numpy as np

from ..architecture.rotation import Rotation
from ..arguments import check_rotary
from .runtime.checks import check_shape, flat, one_dtype
from .runtime.decorators import part
from .runtime.threads import launcher, parallel_for
from .runtime.vectors import lanes, load_tail, read, store_tail, write

_TASK_ELEMENTS = 1 << 13


class RotaryCache(NamedTuple):
    rotation: Rotation
    shape: tuple


@part
def _turn_halves(x, at, out, to, cos, sin, angle, pairs, sign):
    """One head: number i is paired with number i + pairs."""
    for i in range(0, pairs, lanes(x)):
        n = pairs - i
        a, b = load_tail(x, at + i, n), load_tail(x, at + pairs + i, n)
        c, s = load_tail(cos, angle + i, n), load_tail(sin, angle + i, n) * sign
        store_tail(out, to + i, a * c - b * s, n)
        store_tail(out, to + pairs + i, a * s + b * c, n)


@part
def _turn_neighbours(x, at, out, to, cos, sin, angle, pairs, sign):
    """One head: number 2i is paired with number 2i + 1."""
    for i in range(pairs):
        a, b = read(x, at + 2 * i), read(x, at + 2 * i + 1)
        c, s = read(cos, angle + i), read(sin, angle + i) * sign
        write(out, to + 2 * i, a * c - b * s)
        write(out, to + 2 * i + 1, a * s + b * c)


@part
def turn_head(x, at, out, to, cos, sin, angle, pairs, halves, sign):
    """One head, from element ``at`` of x to element ``to`` of out; its cosines and sines begin at element ``angle``."""
    if halves:
        _turn_halves(x, at, out, to, cos, sin, angle, pairs, sign)
    else:
        _turn_neighbours(x, at, out, to, cos, sin, angle, pairs, sign)


@part
def _turn_rows(worker, task, x, out, cos, sin, per_sequence, halves, sign, rows):
    T, n_head, pairs = x.shape[1], x.shape[2], x.shape[3] // 2
    size, out_size = x.itemsize, out.itemsize
    for row in range(task * rows, min(x.shape[0] * T, (task + 1) * rows)):
        b, t = row // T, row % T
        at = b * (x.strides[0] // size) + t * (x.strides[1] // size)
        to = b * (out.strides[0] // out_size) + t * (out.strides[1] // out_size)
        angle = (row if per_sequence else t) * pairs
        for h in range(n_head):
            first, target = at + h * (x.strides[2] // size), to + h * (out.strides[2] // out_size)
            turn_head(x, first, out, target, cos, sin, angle, pairs, halves, sign)


@launcher
def _turn(n_tasks, x, out, cos, sin, per_sequence, halves, sign, rows):
    parallel_for(_turn_rows, n_tasks, (x, out, cos, sin, per_sequence, halves, sign, rows))


def turn(x, out, rotation, sign=1):
    """out = x (B, T, n_head, head_size) turned by ``sign`` times the angles of ``rotation``; ``out`` may be x itself.

    The arguments are not checked. The last axis of both is contiguous.
    """
    B, T, n_head, head_size = x.shape
    rows = max(1, _TASK_ELEMENTS // (n_head * head_size))
    cos, sin = flat(rotation.cos), flat(rotation.sin)
    options = rotation.cos.ndim == 3, rotation.pairing == "halves", x.dtype.type(sign), rows
    if x.size:
        _turn(-(-B * T // rows), x, out, cos, sin, *options)


def rotary_forward(x, rotation, alloc=np.empty):
    """x (B, T, n_head, head_size) with every pair (a, b) replaced by (a cos − b sin, a sin + b cos)."""
    dtype = one_dtype(x=x, cos=rotation.cos, sin=rotation.sin)
    check_rotary(x, rotation)
    out = alloc(x.shape, dtype)
    turn(_readable(x), out, rotation)
    return out, RotaryCache(rotation, x.shape)


def rotary_backward(dout, cache, alloc=np.empty):
    """dx: every pair of dout turned back by the same angle; see ``layers.rotary``."""
    dtype = one_dtype(dout=dout, cos=cache.rotation.cos)
    check_shape("dout", dout, cache.shape)
    dx = alloc(dout.shape, dtype)
    turn(_readable(dout), dx, cache.rotation, -1)
    return dx


def _readable(x):
    return x if x.strides[3] == x.itemsize and x.flags.aligned else np.array(x, order="C")
