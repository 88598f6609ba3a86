"""New tokens of one or several sequences: the whole model in one launch, at the speed of reading its weights.

Decoding is limited by memory: a token needs every weight once, for two operations. The kernel is fast because it reads
nothing twice and does not wait. Weights are read as panels of columns (``panel_tile``), and all work between two matrices
is fused into the pieces before or after. One launch serves all layers (``stages``).

A layer has six stages. In each, pieces have disjoint outputs, and every number is added up in an order that depends
neither on the number of threads nor on the other rows:

    norm 1 and c_attn        the queries to a buffer, keys and values straight into the cache
    the new keys             are normalised and turned in the cache, where the model does so
    attention                pieces are heads of one row that share keys: their queries are prepared, and see the cached keys
                             up to their own
    c_proj                   added to the residual stream
    norm 2 and c_fc          with the activation, or the halves of a gated one
    mlp.c_proj               of gate · up where there is a gate; added to the residual stream

and last, a norm and the output head. Where a few of the largest logits are all that is wanted, each thread keeps its
own in passing, and none is written. A row is one new token of one sequence; several rows may be consecutive tokens of
the same one (a prompt, or a draft to be verified), since all keys are written before any row attends.
With many rows the work is matrix multiplication: each panel is taken ``CHUNK`` deep at a time, which stays in the
nearest cache while all rows pass over it.

The norm, the preparation of queries and keys and the feed-forward layer are those of ``block_forms``.

Its specification is ``inference.decoder.OpsDecoder``.
"""

import numpy as np
from numba.extending import overload

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
    write,
)
from .activations import begin_sums, copy_numbers, prepare
from .block_forms import Prepared, normalise, prepare_head, prepare_hidden, store_hidden
from .cached_attention import attend
from .launch import CHUNK, FC, HEAD, MLP_PROJ, PIECES, PROJ, QKV, STAGES, Part, Run, matrix_of
from .panel_tile import BLOCK, PANEL, SCALES, STREAMS, TILE_ROWS, panel_tile
from .stages import claim, finish, own_range, wait


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
            gated = buffers.scratch[task, : shape.mlp_width]
            prepare_hidden(shape.mlp, buffers.hidden[row], gated, activations, scales)
        else:
            normalise(shape.norm, buffers.x[row], normed, run.weights.vectors, matrix.norm)
            prepare(normed, activations, scales)


def multiply_tile(data, matrix, rows, panels, weights, x, scales, depth, out, ahead):
    """`panel_tile` in the format of the matrix; ``weights`` are ``Rows`` of ``Weights.head``, which lies in ``data``."""


@overload(multiply_tile)
def _multiply_tile(data, matrix, rows, panels, weights, x, scales, depth, out, ahead):
    def in_one_format(data, matrix, rows, panels, weights, x, scales, depth, out, ahead):
        panel_tile(rows, panels, weights, x, scales, depth, out, ahead)

    def in_two_formats(data, matrix, rows, panels, weights, x, scales, depth, out, ahead):
        if matrix.kind == HEAD:
            panel_tile(rows, panels, weights, x, scales, depth, out, ahead)
        else:
            panel_tile(rows, panels, Rows(data, weights.first, weights.step), x, scales, depth, out, ahead)

    return in_one_format if data.dtype == weights.types[0].dtype else in_two_formats


@part
def _multiply_panels(task, run, matrix, rows, panel, panels, following):
    """sums[task] (rows, panels · PANEL) = bias + activations[task] · ``panels`` panels from number ``panel`` on.

    following: the element where this thread will read next.
    """
    weights, buffers = run.weights, run.buffers
    x_step, scales_step, sums_step = buffers.activations.shape[2], buffers.scales.shape[2], buffers.sums.shape[2]
    first_row = task * buffers.sums.shape[1]
    sums = first_row * sums_step
    start = matrix.first + panel * matrix.panel_size
    count = 0 if matrix.bias < 0 else min(panels * PANEL, matrix.columns - panel * PANEL)
    begin_sums(buffers.sums, sums, sums_step, rows, panels * PANEL, weights.vectors, matrix.bias + panel * PANEL, count)
    tiles = max(1, (rows * panels + TILE_ROWS - 1) // TILE_ROWS)  # a pass may want no logits at all
    step = max(1, (rows + tiles - 1) // tiles)  # even tiles: few sums do not hide the additions' latency
    chunk = matrix.depth if tiles == 1 else CHUNK
    for k in range(0, matrix.depth, chunk):
        for row in range(0, rows, step):
            multiply_tile(
                weights.data,
                matrix,
                min(step, rows - row),
                panels,
                Rows(weights.head, start + k // CHUNK * matrix.chunk_size, matrix.panel_size),
                Rows(buffers.activations, (first_row + row) * x_step + k, x_step),
                Rows(buffers.scales, (first_row + row) * scales_step + k // BLOCK * SCALES, scales_step),
                min(chunk, matrix.depth - k),
                Rows(buffers.sums, sums + row * sums_step, sums_step),
                following - start,
            )


@part
def key_at(run, layer, row, kv_head, position):
    """Where the key of one position in a row's sequence begins in the cache, and its value."""
    shape = run.shape
    cached = (layer * shape.batch + run.buffers.sequences[row]) * shape.n_kv_head + kv_head
    return (cached * shape.capacity + position) * shape.head_size


@part
def _scatter(run, layer, sums, part):
    """Columns of rows of (q, k, v) to where they belong: the query buffer, or a head's cache."""
    shape, buffers = run.shape, run.buffers
    size, done = shape.head_size, 0
    while done < part.width:
        column = part.first + done
        head, i = column // size, column % size
        run_length = min(part.width - done, size - i)  # columns of the same head
        is_value = head >= shape.n_head + shape.n_kv_head
        kv_head = head - shape.n_head - (shape.n_kv_head if is_value else 0)  # below 0: a query
        for r in range(part.rows):
            to = part.row + r
            source = sums.first + r * sums.step + done
            if kv_head < 0:
                copy_numbers(sums.array, source, buffers.q, to * shape.n_head * size + column, run_length)
            else:
                target = key_at(run, layer, to, kv_head, buffers.positions[to]) + i
                copy_numbers(sums.array, source, run.values if is_value else run.keys, target, run_length)
        done += run_length


@part
def _comes_before(number, token, best, j):
    return number > best[j, 0] or (number == best[j, 0] and token < best[j, 1])


@part
def keep_largest(sums, start, first, count, keep, best):
    """Go through ``count`` more logits, of the tokens from ``first`` on.

    best (1 + keep, 2): best[0, 0] is the sum of all so far, then come the largest (logit, token), largest
    first, and of equals the lowest token first. Tokens of a thread come in any order.
    """
    lowest, width = np.float32(-np.inf), lanes(sums)
    largest, total = broadcast(sums, lowest), broadcast(sums, np.float32(0))
    for i in range(0, count, width):
        numbers = load(sums, start + i)
        largest = maximum(keep_first(numbers, count - i, lowest), largest)
        total += keep_first(numbers, count - i, np.float32(0))
    best[0, 0] += add_lanes(total)
    if max_lanes(largest) >= best[keep, 0]:  # seldom, once the first few have been seen
        for i in range(count):
            number, token, j = np.float64(read(sums, start + i)), first + i, keep
            if _comes_before(number, token, best, keep):
                while j > 1 and _comes_before(number, token, best, j - 1):
                    best[j, 0], best[j, 1] = best[j - 1, 0], best[j - 1, 1]
                    j -= 1
                best[j, 0], best[j, 1] = number, token


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
                at = to * shape.hidden_columns + part.first + i
                store_hidden(shape.mlp, buffers.hidden, at, load(array, start + i), part.width - i)
        elif kind == HEAD and shape.largest > 0:
            keep_largest(array, start, part.first, part.width, shape.largest, buffers.best[task, to])
        elif kind == HEAD:
            copy_numbers(array, start, buffers.logits, to * shape.vocab_size + part.first, part.width)
        else:
            for i in range(0, part.width, lanes(array)):
                at, left = to * C + part.first + i, part.width - i
                store_tail(buffers.x, at, load_tail(buffers.x, at, left) + load(array, start + i), left)
        start += sums.step


@part
def _begin_of(task, run, matrix):
    """The element where thread ``task`` begins to read a matrix."""
    panels = (matrix.columns + PANEL - 1) // PANEL
    return matrix.first + own_range(run.buffers.counters, task, panels)[0] * matrix.panel_size


@part
def _matrix_stage(task, run, stage, matrix, following):
    """One matrix: a norm or not before it, its bias, and what follows. following: where this thread reads after it."""
    shape, buffers, done = run.shape, run.buffers, 0
    rows = shape.wanted if matrix.kind == HEAD else shape.rows
    panels = (matrix.columns + PANEL - 1) // PANEL
    step = max(1, min(STREAMS, panels // (PIECES * len(buffers.activations))))
    own_stop = own_range(buffers.counters, task, panels)[1]
    together = max(1, min(step, TILE_ROWS // max(1, rows)))  # panels whose sums fit the registers side by side
    sums_step = buffers.sums.shape[2]
    sums = Rows(buffers.sums, task * buffers.sums.shape[1] * sums_step, sums_step)
    piece, stop = claim(buffers.counters, stage, task, panels, step)
    prepare_rows(task, run, matrix, 0, rows)
    while piece < panels:
        for panel in range(piece, stop, together):
            first, width = panel * PANEL, min(together, stop - panel)
            after = panel + width
            to = following if after == own_stop else matrix.first + after * matrix.panel_size
            _multiply_panels(task, run, matrix, rows, panel, width, to)
            deliver(task, run, matrix, sums, Part(0, rows, first, min(width * PANEL, matrix.columns - first)))
        done += stop - piece
        piece, stop = claim(buffers.counters, stage, task, panels, step)
    finish(buffers.counters, stage, done)
    wait(buffers.counters, stage, panels)


def _key_stage(heads, task, run, stage, layer):
    """Normalise and turn the new keys, once whole keys are in the cache; nothing where keys stay as they are made."""


@overload(_key_stage)
def _choose_key_stage(heads, task, run, stage, layer):
    if heads.instance_class is Prepared:
        return lambda heads, task, run, stage, layer: _prepare_keys(task, run, stage, layer)
    return lambda heads, task, run, stage, layer: None


@part
def _prepare_keys(task, run, stage, layer):
    shape, buffers, weights = run.shape, run.buffers, run.weights
    units, done = shape.rows * shape.n_kv_head, 0
    unit, _ = claim(buffers.counters, stage, task, units, 1)
    while unit < units:
        row, head = unit // shape.n_kv_head, unit % shape.n_kv_head
        at = key_at(run, layer, row, head, buffers.positions[row])
        norm = weights.head_norms[layer, 1]
        prepare_head(shape.heads, run.keys, at, shape.head_size, weights.vectors, norm, buffers, row)
        done += 1
        unit, _ = claim(buffers.counters, stage, task, units, 1)
    finish(buffers.counters, stage, done)
    wait(buffers.counters, stage, units)


def _prepare_query(heads, run, layer, row, head):
    """Normalise and turn one query; nothing where queries stay as they are made."""


@overload(_prepare_query)
def _choose_prepare_query(heads, run, layer, row, head):
    def prepare_query(heads, run, layer, row, head):
        at, norm = (row * run.shape.n_head + head) * run.shape.head_size, run.weights.head_norms[layer, 0]
        prepare_head(heads, run.buffers.q, at, run.shape.head_size, run.weights.vectors, norm, run.buffers, row)

    return prepare_query if heads.instance_class is Prepared else lambda heads, run, layer, row, head: None


@part
def _attend_together(run, layer, unit, heads, scratch):
    """Attention of ``heads`` heads of one row that share keys, from head ``unit`` on, counted through all rows."""
    shape, buffers, size = run.shape, run.buffers, run.shape.head_size
    row, head = unit // shape.n_head, unit % shape.n_head
    for i in range(heads):
        _prepare_query(shape.heads, run, layer, row, head + i)
    stop = buffers.positions[row] + 1
    first_key = max(stop - shape.window, 0) if layer >= shape.window_from else 0
    start = key_at(run, layer, row, head // (shape.n_head // shape.n_kv_head), first_key)
    scale = shape.scale / np.float32(layer + 1) if shape.scale_by_layer else shape.scale
    attend(
        Rows(buffers.q, unit * size, size),
        heads,
        Rows(run.keys, start, size),
        Rows(run.values, start, size),
        stop - first_key,
        scale,
        Rows(buffers.heads, unit * size, size),
        scratch,
    )


@part
def _attention_stage(task, run, stage, layer):
    shape, buffers = run.shape, run.buffers
    units, group, done = shape.rows * shape.n_head, shape.n_head // shape.n_kv_head, 0
    first_unit = own_range(buffers.counters, task, units)[0]
    unit, stop = claim(buffers.counters, stage, task, units, group - first_unit % group)
    while unit < units:
        done += stop - unit
        while unit < stop:  # heads of other keys follow where a thread takes what another has left
            together = min(stop - unit, group - unit % group)
            _attend_together(run, layer, unit, together, buffers.scratch[task])
            unit += together
        unit, stop = claim(buffers.counters, stage, task, units, group - stop % group)
    finish(buffers.counters, stage, done)
    wait(buffers.counters, stage, units)


@part
def _matrix_at(run, step):
    """The ``Matrix`` of number ``step``: four of each layer, the head, and again the first, for the next token."""
    layer = step // HEAD if step <= HEAD * run.shape.n_layer else 0
    return matrix_of(layer, HEAD if layer == run.shape.n_layer else step % HEAD, run.weights, run.shape)


@part
def _walk(worker, task, run):
    """What each thread does in a launch: its pieces of all stages, in order."""
    number = 0
    for stage in range(STAGES * run.shape.n_layer + 1):
        layer, step = stage // STAGES, stage % STAGES
        if step == 1:
            _key_stage(run.shape.heads, task, run, stage, layer)
        elif step == 2:
            _attention_stage(task, run, stage, layer)
        else:
            following = _begin_of(task, run, _matrix_at(run, number + 1))
            _matrix_stage(task, run, stage, _matrix_at(run, number), following)
            number += 1


@launcher
def decode_rows(n_threads, weights, shape, buffers, keys, values):
    """Logits of ``shape.rows`` new tokens, whose embeddings are in ``buffers.x``.

    They are written to ``buffers.logits``, or the largest to ``buffers.best``. keys and values: the cache's arrays,
    flat; the new tokens' are written to them.
    """
    for i in range(buffers.counters.size):
        write(buffers.counters, i, 0)
    parallel_for(_walk, n_threads, (Run(weights, shape, buffers, keys, values),))
