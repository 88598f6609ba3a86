"""What differs between architectures within a launch: the norm, the queries and keys, and the feed-forward layer.

Each is chosen by the type of a field of ``launch.Shape``. numba compiles a launch for its types, so that the code of a
model holds its own forms alone, without a branch. What costs next to nothing is a number instead: groups of query heads,
a window, a bias.

    norm    Layernorm, Rmsnorm
    heads   AsMade (queries and keys are what c_attn makes), Prepared (they are normalised, turned, or both)
    mlp     Plain, Gated
"""

from typing import NamedTuple

import numpy as np
from numba.extending import overload

from ..activation import activate
from ..rmsnorm import mean_square
from ..rotary import turn_head
from ..runtime.decorators import part
from ..runtime.vectors import add_lanes, broadcast, fma, lanes, load_tail, store_tail
from .activations import prepare


class Layernorm(NamedTuple):
    epsilon: np.float32


class Rmsnorm(NamedTuple):
    epsilon: np.float32


class AsMade(NamedTuple):
    unused: int


class Prepared(NamedTuple):
    pairs: int  # numbers that are turned together; 0: heads are not turned
    halves: bool  # the pairing of ``architecture.rotation``
    normed: bool
    epsilon: np.float32


class Plain(NamedTuple):
    activation: NamedTuple  # one of ``activation.KINDS``


class Gated(NamedTuple):
    activation: NamedTuple


def normalise(norm, x, out, vectors, at):
    """out (C,) = the norm of x (C,), whose weight begins at element ``at`` of ``vectors``; a layernorm's bias follows."""


@overload(normalise)
def _normalise(norm, x, out, vectors, at):
    return _rmsnorm_row if norm.instance_class is Rmsnorm else _layernorm_row


def _layernorm_row(norm, x, out, vectors, at):
    layernorm_row(x, out, at, at + len(x), vectors, norm.epsilon)


def _rmsnorm_row(norm, x, out, vectors, at):
    rmsnorm_row(x, 0, len(x), out, vectors, at, norm.epsilon)


@part
def layernorm_row(x, out, weight, bias, vectors, epsilon):
    """out (C,) = layernorm of x (C,); weight and bias are where they begin in ``vectors``."""
    C, width = len(x), lanes(x)
    total = broadcast(x, np.float32(0))
    i = 0
    while i < C:
        total += load_tail(x, i, C - i)
        i += width
    mean = add_lanes(total) / np.float32(C)
    square = np.float32(0)
    for j in range(C):
        out[j] = x[j] - mean
    total = broadcast(x, np.float32(0))
    i = 0
    while i < C:
        centred = load_tail(out, i, C - i)
        total = fma(centred, centred, total)
        i += width
    square = add_lanes(total) / np.float32(C)
    rstd = np.float32(1) / np.sqrt(square + epsilon)
    for j in range(C):
        out[j] = out[j] * rstd * vectors[weight + j] + vectors[bias + j]


@part
def rmsnorm_row(x, start, C, out, vectors, weight, epsilon):
    """out[start …] = rmsnorm of the C numbers x[start …]; the weight begins at element ``weight`` of ``vectors``."""
    rrms = np.float32(1) / np.sqrt(mean_square(x, start, C) + epsilon)
    for j in range(0, C, lanes(x)):
        n = C - j
        store_tail(out, start + j, load_tail(x, start + j, n) * rrms * load_tail(vectors, weight + j, n), n)


@part
def prepare_head(heads, x, start, size, vectors, norm, buffers, row):
    """One query or key, from element ``start`` of x on, in place: normalised and turned as ``Prepared`` says.

    norm: where the norm's weight begins in ``vectors``. row: the row of the launch, for the angles of its position.
    """
    if heads.normed:
        rmsnorm_row(x, start, size, x, vectors, norm, heads.epsilon)
    if heads.pairs > 0:
        angle = row * heads.pairs
        turn_head(x, start, x, start, buffers.cos, buffers.sin, angle, heads.pairs, heads.halves, np.float32(1))


def store_hidden(mlp, hidden, at, x, count):
    """hidden[at …] = the first ``count`` lanes of x, sums of mlp.c_fc: activated, or as they are where there is a gate."""


@overload(store_hidden)
def _store_hidden(mlp, hidden, at, x, count):
    return _store_as_it_is if mlp.instance_class is Gated else _store_activated


def _store_activated(mlp, hidden, at, x, count):
    store_tail(hidden, at, activate(mlp.activation, x), count)


def _store_as_it_is(mlp, hidden, at, x, count):
    store_tail(hidden, at, x, count)


def prepare_hidden(mlp, hidden, gated, activations, scales):
    """`prepare` a row of the hidden layer for mlp.c_proj. gated (mlp_width,): memory for gate · up."""


@overload(prepare_hidden)
def _prepare_hidden(mlp, hidden, gated, activations, scales):
    return _prepare_gated if mlp.instance_class is Gated else _prepare_plain


def _prepare_plain(mlp, hidden, gated, activations, scales):
    prepare(hidden, activations, scales)


def _prepare_gated(mlp, hidden, gated, activations, scales):
    # Every thread does this for all rows, which costs less than meeting once more or packing gates beside their columns.
    width = len(gated)
    for j in range(0, width, lanes(hidden)):
        n = width - j
        gate = activate(mlp.activation, load_tail(hidden, j, n))
        store_tail(gated, j, gate * load_tail(hidden, width + j, n), n)
    prepare(gated, activations, scales)
