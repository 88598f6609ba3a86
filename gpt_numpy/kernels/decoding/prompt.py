"""A prompt, or any longer run of new tokens of one sequence: the matrices of ``decode``, at the speed of arithmetic.

With many rows a weight that has been read is used many times, and what limits is no longer memory but how well operands
are kept near. A task takes a block of rows, makes their activations ready once, and passes every panel over them
``DEPTH`` deep: the rows' part of that depth stays in the second-level cache, the panel's is read from the third and
serves all of them. Panels are used as they are stored; there is no second copy of a weight.

Each number is added up by the very chain of operations that ``decode`` uses, so that it has the same bits. Attention
runs between two of these launches, in tiles (``attention_forward``), and agrees with ``decode``'s to rounding.
"""

from ..runtime.decorators import part
from ..runtime.threads import launcher, parallel_for
from .one_token import HEAD, begin_sums, bias_place, deliver, matrix_shape, prepare_rows, vector_place
from .panel_tile import BLOCK, PANEL, TILE_ROWS, panel_tile

ROWS = 48  # of a task, at most: a multiple of every CPU's TILE_ROWS
DEPTH = 768  # k, a multiple of decode.CHUNK; ROWS × DEPTH numbers take a third of a second-level cache
RANGE = 192  # panels of a task, at most
_TASKS_PER_THREAD = 4  # where there are few blocks of rows


def plan(rows, columns, threads):
    """(number of tasks, rows of a block, panels of a range): a product cut evenly, and into enough for all threads."""
    blocks = -(-rows // ROWS)
    blocks = min(-(-blocks // threads) * threads, -(-rows // TILE_ROWS))
    block = -(-rows // blocks // TILE_ROWS) * TILE_ROWS
    panels = -(-columns // PANEL)
    ranges = max(-(-panels // RANGE), -(-_TASKS_PER_THREAD * threads // blocks) if blocks < 2 * threads else 1)
    per_range = -(-panels // ranges)
    return -(-rows // block) * -(-panels // per_range), block, per_range


@part
def _multiply_block(worker, layer, kind, row, rows, first, last, w, s, b, keys, values):
    """Panels ``first`` … ``last`` of one matrix times ``rows`` rows from ``row`` on."""
    vector = vector_place(layer, kind, s)
    depth, columns = matrix_shape(kind, s)
    bias, matrix, size = bias_place(kind, vector, s), w.offsets[4 * layer + kind % HEAD], w.panel_sizes[kind]
    x_step, s_step = b.activations.shape[2], b.scales.shape[2]
    x0, s0 = worker * b.activations.shape[1] * x_step, worker * b.activations.shape[1] * s_step
    sums0, slot = worker * b.sums.shape[1] * PANEL, b.activations.shape[1] * PANEL if depth > DEPTH else 0
    prepare_rows(worker, kind, row, rows, w, s, b, vector)
    for k in range(0, depth, DEPTH):
        for panel in range(first, last):
            count, place = min(PANEL, columns - panel * PANEL), sums0 + (panel - first) * slot
            if k == 0:
                begin_sums(
                    b.sums, place, PANEL, rows, PANEL, w.vectors, bias + panel * PANEL, 0 if kind == HEAD else count
                )
            for i in range(0, rows, TILE_ROWS):
                panel_tile(
                    min(TILE_ROWS, rows - i),
                    1,
                    w.data,
                    matrix + panel * size + k // DEPTH * w.chunk_size,
                    size,
                    b.activations,
                    x0 + i * x_step + k,
                    x_step,
                    b.scales,
                    s0 + i * s_step + k // BLOCK,
                    s_step,
                    min(DEPTH, depth - k),
                    b.sums,
                    place + i * PANEL,
                    PANEL,
                )
            if k + DEPTH >= depth:
                deliver(worker, kind, b.sums, place, PANEL, rows, row, panel * PANEL, count, layer, s, b, keys, values)


@part
def _multiply_task(worker, task, layer, kind, block, panels, w, s, b, keys, values):
    columns = (matrix_shape(kind, s)[1] + PANEL - 1) // PANEL
    ranges = (columns + panels - 1) // panels
    row, first = task // ranges * block, task % ranges * panels
    rows = s.wanted if kind == HEAD else s.rows
    _multiply_block(
        worker, layer, kind, row, min(block, rows - row), first, min(columns, first + panels), w, s, b, keys, values
    )


@launcher
def multiply(n_tasks, layer, kind, block, panels, w, s, b, keys, values):
    """One matrix of ``decode``'s kinds, with its layernorm, bias and what follows; cut as `plan` says.

    ``w.chunk_size`` is that of ``DEPTH`` rows; ``b`` is described in ``decode``, but activations have room for ``ROWS``
    rows of a worker, and sums for ROWS × RANGE.
    """
    parallel_for(_multiply_task, n_tasks, (layer, kind, block, panels, w, s, b, keys, values))
