"""New tokens of one or several sequences: the whole model in one launch, at the speed of reading its weights.

Decoding is limited by memory: a token needs every weight once and does two operations with it. What there is to win
lies in not reading anything twice (weights come as panels, ``panel_tile``; everything between two matrices is fused
into the piece of work that makes or uses it) and in not waiting (one launch for all layers, ``stages``).

A layer has five stages. In each, pieces have disjoint outputs, and every number is added up in an order that depends
neither on the number of threads nor on the other rows:

    layernorm 1 and c_attn   the queries to a buffer, keys and values straight into the cache
    attention                a piece is one head of one row, over the cached keys up to its own
    c_proj                   added to the residual stream
    layernorm 2 and c_fc     with GELU
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
from numba.extending import overload

from ..runtime.decorators import part
from ..runtime.threads import launcher, parallel_for
from ..runtime.vectors import (
    absolute,
    add_lanes,
    broadcast,
    convert,
    fma,
    gelu,
    keep_first,
    lanes,
    load,
    load_tail,
    max_lanes,
    maximum,
    read,
    store,
    store_tail,
    where,
)
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
    vocab_size: int
    batch: int  # of the cache
    capacity: int  # of the cache


class Buffers(NamedTuple):
    """Memory of one token, kept from call to call. The last five have one part for each thread."""

    counters: np.ndarray  # int64, zero at the start of a launch
    sequences: np.ndarray  # (rows,) int64: each row's place in the cache
    positions: np.ndarray  # (rows,) int64
    x: np.ndarray  # (rows, C): the residual stream
    q: np.ndarray  # (rows, C)
    heads: np.ndarray  # (rows, C)
    hidden: np.ndarray  # (rows, 4C)
    logits: np.ndarray  # (wanted, V), or (0, 0) where only the largest are wanted
    best: np.ndarray  # (threads, rows, 1 + MOST_LARGEST, 2) float64: see `_keep_largest`
    activations: np.ndarray  # (threads, rows, step): what a matrix is multiplied by; float32, or int16 for int8 weights
    scales: np.ndarray  # (threads, rows, step / BLOCK) of int16 activations
    sums: np.ndarray  # (threads, rows, STREAMS · PANEL)
    scratch: np.ndarray  # (threads, max(capacity, C))


@part
def layernorm_row(x, out, weight, bias, vectors):
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
    rstd = np.float32(1) / np.sqrt(square + np.float32(1e-5))
    for j in range(C):
        out[j] = out[j] * rstd * vectors[weight + j] + vectors[bias + j]


def prepare(source, activations, scales):
    """Put a row of activations into the form that the weights' format is multiplied by, padded with zeros."""


@overload(prepare)
def _prepare(source, activations, scales):
    return _quantise_row if activations.dtype.bitwidth == 16 else _copy_row


def _copy_row(source, activations, scales):
    copy_numbers(source, 0, activations, 0, len(source))
    if len(source) % 2:
        activations[len(source)] = 0


@part
def copy_numbers(source, start, target, place, count):
    """target[place …] = ``count`` numbers of source from ``start`` on, counted from either's first, side by side."""
    for i in range(0, count, lanes(source)):
        store_tail(target, place + i, load_tail(source, start + i, count - i), count - i)


def _quantise_row(source, activations, scales):
    width, n = lanes(source), len(source)
    for block in range((n + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        largest = broadcast(source, np.float32(0))
        for i in range(first, first + BLOCK, width):
            largest = maximum(absolute(load_tail(source, i, n - i)), largest)
        peak = max_lanes(largest)
        factor = np.float32(32767) / peak if peak > 0 else np.float32(0)
        scales[block] = peak / np.float32(32767)
        for i in range(first, first + BLOCK, width):
            scaled = load_tail(source, i, n - i) * factor
            # Conversion to integers cuts towards zero.
            rounded = scaled + where(scaled < 0, broadcast(source, np.float32(-0.5)), np.float32(0.5))
            store(activations, i, convert(convert(rounded, np.int32), np.int16))


@part
def prepare_rows(task, kind, first, count, w, s, b, vector):
    """activations[task] = what a matrix of this kind is multiplied by: ``count`` rows from ``first`` on."""
    normed = b.scratch[task, : s.n_embd]
    for i in range(count):
        row = s.rows - s.wanted + first + i if kind == HEAD else first + i
        if kind == HEAD and s.largest > 0:
            b.best[task, i, 0, 0] = 0
            for j in range(1, s.largest + 1):
                b.best[task, i, j, 0], b.best[task, i, j, 1] = -np.inf, -1
        if kind == PROJ:
            prepare(b.heads[row], b.activations[task, i], b.scales[task, i])
        elif kind == MLP_PROJ:
            prepare(b.hidden[row], b.activations[task, i], b.scales[task, i])
        else:
            layernorm_row(b.x[row], normed, vector, vector + s.n_embd, w.vectors)
            prepare(normed, b.activations[task, i], b.scales[task, i])


@part
def begin_sums(sums, place, step, rows, columns, vectors, bias, count):
    """Every row's sums begin with ``count`` biases, zeros in the rest of the columns; rows are ``step`` apart."""
    for row in range(rows):
        at = place + row * step
        if count < columns:
            for j in range(0, columns, lanes(sums)):
                store(sums, at + j, broadcast(sums, np.float32(0)))
        copy_numbers(vectors, bias, sums, at, count)


@part
def multiply_panels(task, rows, panels, start, size, depth, bias, count, w, b):
    """sums[task] (rows, panels · PANEL) = activations[task] · the ``panels`` panels from ``start`` on.

    size: elements from panel to panel. The first ``count`` columns' sums begin with biases.
    """
    x_step, s_step, o_step = b.activations.shape[2], b.scales.shape[2], b.sums.shape[2]
    x0, s0, sums0 = task * b.sums.shape[1] * x_step, task * b.sums.shape[1] * s_step, task * b.sums.shape[1] * o_step
    begin_sums(b.sums, sums0, o_step, rows, panels * PANEL, w.vectors, bias, count)
    tiles = max(1, (rows * panels + TILE_ROWS - 1) // TILE_ROWS)  # a pass may want no logits at all
    step = max(1, (rows + tiles - 1) // tiles)  # even tiles: few sums do not hide the additions' latency
    chunk = depth if tiles == 1 else CHUNK
    for k in range(0, depth, chunk):
        for row in range(0, rows, step):
            panel_tile(
                min(step, rows - row),
                panels,
                w.data,
                start + k // CHUNK * w.chunk_size,
                size,
                b.activations,
                x0 + row * x_step + k,
                x_step,
                b.scales,
                s0 + row * s_step + k // BLOCK,
                s_step,
                min(chunk, depth - k),
                b.sums,
                sums0 + row * o_step,
                o_step,
            )


@part
def _scatter(sums, place, step, rows, row, first, count, layer, s, b, keys, values):
    """Columns ``first`` … of rows of (q, k, v) to where they belong: the query buffer, or a head's cache."""
    C, size, done = s.n_embd, s.head_size, 0
    while done < count:
        column = first + done
        third, head, i = column // C, column % C // size, column % size
        run = min(count - done, size - i)  # columns of the same head
        for r in range(rows):
            to = row + r
            if third == 0:
                copy_numbers(sums, place + r * step + done, b.q, to * C + column, run)
            else:
                cached = (layer * s.batch + b.sequences[to]) * s.n_head + head
                copy_numbers(
                    sums,
                    place + r * step + done,
                    keys if third == 1 else values,
                    (cached * s.capacity + b.positions[to]) * size + i,
                    run,
                )
        done += run


@part
def _keep_largest(sums, place, first, count, keep, best):
    """Go through ``count`` more logits, of the tokens from ``first`` on.

    best (1 + keep, 2): best[0, 0] is the sum of all so far, then come the largest (logit, token), largest first. Tokens
    come in ascending order, so of equals the lower stays ahead.
    """
    lowest, width = np.float32(-np.inf), lanes(sums)
    largest, total = broadcast(sums, lowest), broadcast(sums, np.float32(0))
    for i in range(0, count, width):
        numbers = load(sums, place + i)
        largest = maximum(keep_first(numbers, count - i, lowest), largest)
        total += keep_first(numbers, count - i, np.float32(0))
    best[0, 0] += add_lanes(total)
    if max_lanes(largest) > best[keep, 0]:  # seldom, once the first few have been seen
        for i in range(count):
            number, j = np.float64(read(sums, place + i)), keep
            if number > best[keep, 0]:
                while j > 1 and number > best[j - 1, 0]:
                    best[j, 0], best[j, 1] = best[j - 1, 0], best[j - 1, 1]
                    j -= 1
                best[j, 0], best[j, 1] = number, first + i


@part
def deliver(task, kind, sums, place, step, rows, row, first, count, layer, s, b, keys, values):
    """Hand ``count`` columns of a product, from column ``first`` on, to whoever reads them.

    sums: ``rows`` rows of them, the first at ``place`` and number ``row``, the others ``step`` elements apart.
    """
    C = s.n_embd
    if kind == QKV:
        _scatter(sums, place, step, rows, row, first, count, layer, s, b, keys, values)
        return
    for to in range(row, row + rows):
        if kind == FC:
            for i in range(0, count, lanes(sums)):
                store_tail(b.hidden, to * 4 * C + first + i, gelu(load(sums, place + i)), count - i)
        elif kind == HEAD and s.largest > 0:
            _keep_largest(sums, place, first, count, s.largest, b.best[task, to])
        elif kind == HEAD:
            copy_numbers(sums, place, b.logits, to * s.vocab_size + first, count)
        else:
            for i in range(0, count, lanes(sums)):
                at, left = to * C + first + i, count - i
                store_tail(b.x, at, load_tail(b.x, at, left) + load(sums, place + i), left)
        place += step


@part
def matrix_shape(kind, s):
    """(K, N) of a matrix of this kind."""
    C = s.n_embd
    depth = 4 * C if kind == MLP_PROJ else C
    return depth, 3 * C if kind == QKV else 4 * C if kind == FC else s.vocab_size if kind == HEAD else C


@part
def vector_place(layer, kind, s):
    """Where this matrix's vectors begin; a layer has ln_1 and c_attn's bias (5C), c_proj's (C), ln_2 and c_fc's (6C),
    mlp.c_proj's (C)."""
    before = 5 if kind == PROJ else 6 if kind == FC else 12 if kind == MLP_PROJ else 0
    return (13 * layer + before) * s.n_embd


@part
def bias_place(kind, vector, s):
    """Where this matrix's bias is: behind its layernorm, if it has one. (The head has no bias.)"""
    return vector + 2 * s.n_embd if kind in (QKV, FC) else vector


@part
def _matrix_stage(task, stage, layer, kind, w, s, b, keys, values):
    """One matrix: layernorm or not before it, its bias, and what follows."""
    vector = vector_place(layer, kind, s)
    depth, columns = matrix_shape(kind, s)
    bias = bias_place(kind, vector, s)
    rows = s.wanted if kind == HEAD else s.rows
    panels = (columns + PANEL - 1) // PANEL
    step = max(1, min(STREAMS, panels // (PIECES * len(b.activations))))
    together = max(1, min(step, TILE_ROWS // max(1, rows)))  # panels whose sums fit the registers side by side
    pieces = (panels + step - 1) // step
    size, matrix = w.panel_sizes[kind], w.offsets[4 * layer + kind % HEAD]
    piece = claim(b.counters, stage)
    prepare_rows(task, kind, 0, rows, w, s, b, vector)
    while piece < pieces:
        last = min(panels, piece * step + step)
        for panel in range(piece * step, last, together):
            first, width = panel * PANEL, min(together, last - panel)
            count = min(width * PANEL, columns - first)
            multiply_panels(
                task, rows, width, matrix + panel * size, size, depth, bias + first, 0 if kind == HEAD else count, w, b
            )
            deliver(
                task,
                kind,
                b.sums,
                task * b.sums.shape[1] * b.sums.shape[2],
                b.sums.shape[2],
                rows,
                0,
                first,
                count,
                layer,
                s,
                b,
                keys,
                values,
            )
        finish(b.counters, stage)
        piece = claim(b.counters, stage)
    wait(b.counters, stage, pieces)


@part
def _attention_stage(task, stage, layer, s, b, keys, values):
    pieces = s.rows * s.n_head
    piece = claim(b.counters, stage)
    while piece < pieces:
        row, head = piece // s.n_head, piece % s.n_head
        start = ((layer * s.batch + b.sequences[row]) * s.n_head + head) * s.capacity * s.head_size
        first, last = head * s.head_size, (head + 1) * s.head_size
        q, out = b.q[row, first:last], b.heads[row, first:last]
        attend(q, keys, values, start, b.positions[row] + 1, out, b.scratch[task])
        finish(b.counters, stage)
        piece = claim(b.counters, stage)
    wait(b.counters, stage, pieces)


@part
def _walk(worker, task, w, s, b, keys, values):
    for stage in range(STAGES * s.n_layer + 1):
        layer, step = stage // STAGES, stage % STAGES
        if step == 1:
            _attention_stage(task, stage, layer, s, b, keys, values)
        else:
            kind = HEAD if layer == s.n_layer else max(step - 1, 0)
            _matrix_stage(task, stage, layer, kind, w, s, b, keys, values)


@launcher
def decode_rows(n_threads, w, s, b, keys, values):
    """Logits of ``s.rows`` new tokens, whose embeddings are in ``b.x``, into ``b.logits``, or the largest into
    ``b.best``.

    keys and values: the cache's arrays, flat; the new tokens' are written to them.
    """
    for i in range(len(b.counters)):
        b.counters[i] = 0
    parallel_for(_walk, n_threads, (w, s, b, keys, values))
