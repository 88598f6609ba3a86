"""New tokens of one or several sequences: the whole model in one launch, at the speed of reading its weights.

Decoding is limited by memory: a token needs every weight once, for two operations. The kernel is fast because it reads
nothing twice and does not wait. Weights are read as panels of columns (``panel_tile``), and all work between two matrices
is fused into the pieces before or after. One launch serves all layers (``stages``).

A layer has five stages. In each, pieces have disjoint outputs, and every number is added up in an order that depends
neither on the number of threads nor on the other rows:

    layernorm 1 and c_attn   the queries to a buffer, keys and values straight into the cache
    attention                a piece is one head of one row, over the cached keys up to its own
    c_proj                   added to the residual stream
    layernorm 2 and c_fc     with the activation
    mlp.c_proj               added to the residual stream

and last, layernorm and the output head. Where a few of the largest logits are all that is wanted, each thread keeps its
own in passing, and none is written. A row is one new token of one sequence; several rows may be consecutive tokens of
the same one (a prompt, or a draft to be verified), since all keys are written before any row attends.
With many rows the work is matrix multiplication: each panel is taken ``CHUNK`` deep at a time, which stays in the
nearest cache while all rows pass over it.

Its specification is ``inference.decoder.OpsDecoder``.
"""

from typing import NamedTuple

import numpy as np

from ..activation import activate
from ..runtime.decorators import part
from ..runtime.emitting import Rows
from ..runtime.threads import launcher, parallel_for
from ..runtime.vectors import (
    add_lanes,
    broadcast,
    keep_first,
    lanes,
    load,
    load_tail,
    max_lanes,
    maximum,
    read,
    store_tail,
)
from .activations import begin_sums, copy_numbers, layernorm_row, prepare
from .cached_attention import attend
from .panel_tile import BLOCK, PANEL, STREAMS, TILE_ROWS, panel_tile
from .stages import claim, finish, wait

QKV, PROJ, FC, MLP_PROJ, HEAD = range(5)  # the kinds of matrix, in the order of ``Weights.offsets``
STAGES = 5  # of a layer: the matrices, and attention between the first two
PIECES = 8  # of a matrix for each thread, at least, where there are as many panels
CHUNK = 256  # k; a multiple of BLOCK
MOST_LARGEST = 128  # logits of a row that are found in passing


class Weights(NamedTuple):
    data: np.ndarray  # all panels: float32, uint16 (bfloat16) or int8
    offsets: np.ndarray  # (4 n_layer + 1,) where each matrix begins; the last is the output head
    panel_sizes: np.ndarray  # (5,) elements of a panel of each kind
    chunk_size: int  # elements of CHUNK rows of a panel
    vectors: np.ndarray  # float32: ln_1, c_attn's bias, c_proj's, ln_2, c_fc's, mlp.c_proj's; …; ln_f


class Shape(NamedTuple):
    rows: int
    wanted: int  # rows whose logits are wanted: the last ones
    largest: int  # how many of a row's largest logits are wanted, 1 … MOST_LARGEST; 0 for all, written to ``logits``
    n_layer: int
    n_head: int
    head_size: int
    n_embd: int
    mlp_width: int
    vocab_size: int
    batch: int  # of the cache
    capacity: int  # of the cache
    activation: NamedTuple  # one of ``activation.KINDS``
    epsilon: np.float32  # of the norms
    scale: np.float32  # of attention's scores
    scale_by_layer: bool  # whether block i divides the scale by i + 1


class Buffers(NamedTuple):
    """Memory of one token, kept from call to call. The last five have one part for each thread."""

    counters: np.ndarray  # int64, zero at the start of a launch
    sequences: np.ndarray  # (rows,) int64: index of each row's sequence in the cache
    positions: np.ndarray  # (rows,) int64
    x: np.ndarray  # (rows, C): the residual stream
    q: np.ndarray  # (rows, C)
    heads: np.ndarray  # (rows, C)
    hidden: np.ndarray  # (rows, mlp_width)
    logits: np.ndarray  # (wanted, V), or (0, 0) where only the largest are wanted
    best: np.ndarray  # (threads, rows, 1 + MOST_LARGEST, 2) float64: see `_keep_largest`
    activations: np.ndarray  # (threads, rows, step): what a matrix is multiplied by; float32, or int16 for int8 weights
    scales: np.ndarray  # (threads, rows, step / BLOCK) of int16 activations
    sums: np.ndarray  # (threads, rows, STREAMS · PANEL)
    scratch: np.ndarray  # (threads, max(capacity, C))


class Run(NamedTuple):
    """All that the pieces of a launch share."""

    weights: Weights
    shape: Shape
    buffers: Buffers
    keys: np.ndarray  # the cache's, flat
    values: np.ndarray


class Matrix(NamedTuple):
    """One matrix of the model, and the position of its layernorm and bias."""

    layer: int
    kind: int
    depth: int  # K
    columns: int  # N
    first: int  # of its panels, in ``Weights.data``
    panel_size: int
    vector: int  # where its layernorm, or else its bias, is in ``Weights.vectors``
    bias: int


class Part(NamedTuple):
    """``rows`` rows and ``width`` columns of a product, from row ``row`` and column ``first`` on."""

    row: int
    rows: int
    first: int
    width: int


@part
def prepare_rows(task, run, matrix, first, count):
    """activations[task] = what the matrix is multiplied by: ``count`` rows from ``first`` on."""
    shape, buffers, kind = run.shape, run.buffers, matrix.kind
    normed = buffers.scratch[task, : shape.n_embd]
    for i in range(count):
        row = shape.rows - shape.wanted + first + i if kind == HEAD else first + i
        if kind == HEAD and shape.largest > 0:
            buffers.best[task, i, 0, 0] = 0
            for j in range(1, shape.largest + 1):
                buffers.best[task, i, j, 0], buffers.best[task, i, j, 1] = -np.inf, -1
        activations, scales = buffers.activations[task, i], buffers.scales[task, i]
        if kind == PROJ:
            prepare(buffers.heads[row], activations, scales)
        elif kind == MLP_PROJ:
            prepare(buffers.hidden[row], activations, scales)
        else:
            vector = matrix.vector
            layernorm_row(buffers.x[row], normed, vector, vector + shape.n_embd, run.weights.vectors, shape.epsilon)
            prepare(normed, activations, scales)


@part
def _multiply_panels(task, run, matrix, rows, panel, panels):
    """sums[task] (rows, panels · PANEL) = bias + activations[task] · ``panels`` panels from number ``panel`` on."""
    weights, buffers = run.weights, run.buffers
    x_step, scales_step, sums_step = buffers.activations.shape[2], buffers.scales.shape[2], buffers.sums.shape[2]
    first_row = task * buffers.sums.shape[1]
    sums = first_row * sums_step
    start = matrix.first + panel * matrix.panel_size
    count = 0 if matrix.kind == HEAD else min(panels * PANEL, matrix.columns - panel * PANEL)
    begin_sums(buffers.sums, sums, sums_step, rows, panels * PANEL, weights.vectors, matrix.bias + panel * PANEL, count)
    tiles = max(1, (rows * panels + TILE_ROWS - 1) // TILE_ROWS)  # a pass may want no logits at all
    step = max(1, (rows + tiles - 1) // tiles)  # even tiles: few sums do not hide the additions' latency
    chunk = matrix.depth if tiles == 1 else CHUNK
    for k in range(0, matrix.depth, chunk):
        chunk_weights = Rows(weights.data, start + k // CHUNK * weights.chunk_size, matrix.panel_size)
        for row in range(0, rows, step):
            panel_tile(
                min(step, rows - row),
                panels,
                chunk_weights,
                Rows(buffers.activations, (first_row + row) * x_step + k, x_step),
                Rows(buffers.scales, (first_row + row) * scales_step + k // BLOCK, scales_step),
                min(chunk, matrix.depth - k),
                Rows(buffers.sums, sums + row * sums_step, sums_step),
            )


@part
def _scatter(run, layer, sums, part):
    """Columns of rows of (q, k, v) to where they belong: the query buffer, or a head's cache."""
    shape, buffers = run.shape, run.buffers
    C, size, done = shape.n_embd, shape.head_size, 0
    while done < part.width:
        column = part.first + done
        third, head, i = column // C, column % C // size, column % size
        run_length = min(part.width - done, size - i)  # columns of the same head
        for r in range(part.rows):
            to = part.row + r
            source = sums.first + r * sums.step + done
            if third == 0:
                copy_numbers(sums.array, source, buffers.q, to * C + column, run_length)
            else:
                cached = (layer * shape.batch + buffers.sequences[to]) * shape.n_head + head
                target = (cached * shape.capacity + buffers.positions[to]) * size + i
                copy_numbers(sums.array, source, run.keys if third == 1 else run.values, target, run_length)
        done += run_length


@part
def _keep_largest(sums, start, first, count, keep, best):
    """Go through ``count`` more logits, of the tokens from ``first`` on.

    best (1 + keep, 2): best[0, 0] is the sum of all so far, then come the largest (logit, token), largest first. Tokens
    come in ascending order, so of equals the lower stays ahead.
    """
    lowest, width = np.float32(-np.inf), lanes(sums)
    largest, total = broadcast(sums, lowest), broadcast(sums, np.float32(0))
    for i in range(0, count, width):
        numbers = load(sums, start + i)
        largest = maximum(keep_first(numbers, count - i, lowest), largest)
        total += keep_first(numbers, count - i, np.float32(0))
    best[0, 0] += add_lanes(total)
    if max_lanes(largest) > best[keep, 0]:  # seldom, once the first few have been seen
        for i in range(count):
            number, j = np.float64(read(sums, start + i)), keep
            if number > best[keep, 0]:
                while j > 1 and number > best[j - 1, 0]:
                    best[j, 0], best[j, 1] = best[j - 1, 0], best[j - 1, 1]
                    j -= 1
                best[j, 0], best[j, 1] = number, first + i


@part
def deliver(task, run, matrix, sums, part):
    """Write a part of a product to the buffer that the next stage reads. ``sums``: the part's rows, as ``Rows``."""
    shape, buffers, kind, array = run.shape, run.buffers, matrix.kind, sums.array
    C = shape.n_embd
    if kind == QKV:
        _scatter(run, matrix.layer, sums, part)
        return
    start = sums.first
    for to in range(part.row, part.row + part.rows):
        if kind == FC:
            for i in range(0, part.width, lanes(array)):
                at, left = to * shape.mlp_width + part.first + i, part.width - i
                store_tail(buffers.hidden, at, activate(shape.activation, load(array, start + i)), left)
        elif kind == HEAD and shape.largest > 0:
            _keep_largest(array, start, part.first, part.width, shape.largest, buffers.best[task, to])
        elif kind == HEAD:
            copy_numbers(array, start, buffers.logits, to * shape.vocab_size + part.first, part.width)
        else:
            for i in range(0, part.width, lanes(array)):
                at, left = to * C + part.first + i, part.width - i
                store_tail(buffers.x, at, load_tail(buffers.x, at, left) + load(array, start + i), left)
        start += sums.step


@part
def matrix_of(layer, kind, weights, shape):
    """The ``Matrix`` of this kind in this layer; of the head, layer is n_layer.

    A layer's vectors are ln_1 and c_attn's bias (5C), c_proj's (C), ln_2 and c_fc's (2C + W), mlp.c_proj's (C). A bias
    follows its layernorm, if there is one. The head has no bias.
    """
    C, W = shape.n_embd, shape.mlp_width
    depth = W if kind == MLP_PROJ else C
    columns = 3 * C if kind == QKV else W if kind == FC else shape.vocab_size if kind == HEAD else C
    before = 5 * C if kind == PROJ else 6 * C if kind == FC else 8 * C + W if kind == MLP_PROJ else 0
    vector = layer * (9 * C + W) + before
    bias = vector + 2 * C if kind in (QKV, FC) else vector
    first = weights.offsets[4 * layer + kind % HEAD]
    return Matrix(layer, kind, depth, columns, first, weights.panel_sizes[kind], vector, bias)


@part
def _matrix_stage(task, run, stage, matrix):
    """One matrix: layernorm or not before it, its bias, and what follows."""
    shape, buffers = run.shape, run.buffers
    rows = shape.wanted if matrix.kind == HEAD else shape.rows
    panels = (matrix.columns + PANEL - 1) // PANEL
    step = max(1, min(STREAMS, panels // (PIECES * len(buffers.activations))))
    together = max(1, min(step, TILE_ROWS // max(1, rows)))  # panels whose sums fit the registers side by side
    pieces = (panels + step - 1) // step
    sums_step = buffers.sums.shape[2]
    sums = Rows(buffers.sums, task * buffers.sums.shape[1] * sums_step, sums_step)
    piece = claim(buffers.counters, stage)
    prepare_rows(task, run, matrix, 0, rows)
    while piece < pieces:
        last = min(panels, piece * step + step)
        for panel in range(piece * step, last, together):
            first, width = panel * PANEL, min(together, last - panel)
            _multiply_panels(task, run, matrix, rows, panel, width)
            deliver(task, run, matrix, sums, Part(0, rows, first, min(width * PANEL, matrix.columns - first)))
        finish(buffers.counters, stage)
        piece = claim(buffers.counters, stage)
    wait(buffers.counters, stage, pieces)


@part
def _attention_stage(task, run, stage, layer):
    shape, buffers = run.shape, run.buffers
    pieces = shape.rows * shape.n_head
    scale = shape.scale / np.float32(layer + 1) if shape.scale_by_layer else shape.scale
    piece = claim(buffers.counters, stage)
    while piece < pieces:
        row, head = piece // shape.n_head, piece % shape.n_head
        cached = (layer * shape.batch + buffers.sequences[row]) * shape.n_head + head
        start = cached * shape.capacity * shape.head_size
        first, last = head * shape.head_size, (head + 1) * shape.head_size
        q, out = buffers.q[row, first:last], buffers.heads[row, first:last]
        attend(q, run.keys, run.values, start, buffers.positions[row] + 1, scale, out, buffers.scratch[task])
        finish(buffers.counters, stage)
        piece = claim(buffers.counters, stage)
    wait(buffers.counters, stage, pieces)


@part
def _walk(worker, task, run):
    """What each thread does in a launch: its pieces of all stages, in order."""
    for stage in range(STAGES * run.shape.n_layer + 1):
        layer, step = stage // STAGES, stage % STAGES
        if step == 1:
            _attention_stage(task, run, stage, layer)
        else:
            kind = HEAD if layer == run.shape.n_layer else max(step - 1, 0)
            _matrix_stage(task, run, stage, matrix_of(layer, kind, run.weights, run.shape))


@launcher
def decode_rows(n_threads, weights, shape, buffers, keys, values):
    """Logits of ``shape.rows`` new tokens, whose embeddings are in ``buffers.x``.

    They are written to ``buffers.logits``, or the largest to ``buffers.best``. keys and values: the cache's arrays,
    flat; the new tokens' are written to them.
    """
    for i in range(len(buffers.counters)):
        buffers.counters[i] = 0
    parallel_for(_walk, n_threads, (Run(weights, shape, buffers, keys, values),))
