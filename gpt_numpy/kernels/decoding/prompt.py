"""A prompt, or any longer run of new tokens of one sequence: the matrices of ``one_token``, at the speed of arithmetic.

With many rows, each weight that is read is used many times, and the limit is the speed of the caches instead of that of
memory. A task takes a block of rows, prepares their activations once, and multiplies them by every panel
``DEPTH`` deep: the rows' part of that depth stays in the second-level cache, the panel's is read from the third and
serves all of them. Panels are used as they are stored; there is no second copy of a weight.

Each number is added up by the very chain of operations that ``one_token`` uses, so that it has the same bits (unless the
products are in bfloat16: activations are then rounded into words). Attention
runs between two of these launches, in tiles (``attention.forward``), and agrees with ``one_token``'s to rounding.
"""

from ..runtime.bfloat16 import numbers_in
from ..runtime.decorators import part
from ..runtime.emitting import Rows
from ..runtime.threads import launcher, parallel_for
from .activations import begin_sums
from .launch import HEAD, Part, Run, matrix_of
from .one_token import deliver, multiply_tile, prepare_rows
from .panel_tile import BLOCK, PANEL, SCALES, TILE_ROWS

ROWS = 48  # of a task, at most: a multiple of every CPU's TILE_ROWS
DEPTH = 768  # k, a multiple of launch.CHUNK; ROWS × DEPTH numbers take a third of a second-level cache
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
def _multiply_block(worker, run, matrix, part):
    """One part of a product: ``part.width`` panels, here, from number ``part.first`` on."""
    weights, buffers = run.weights, run.buffers
    x_step, scales_step, most_rows = buffers.activations.shape[2], buffers.scales.shape[2], buffers.activations.shape[1]
    x, scales = worker * most_rows * x_step, worker * most_rows * scales_step
    first_sums = worker * buffers.sums.shape[1] * PANEL
    slot = most_rows * PANEL if matrix.depth > DEPTH else 0  # sums wait for the next depth, each panel's in its own
    prepare_rows(worker, run, matrix, part.row, part.rows)
    for k in range(0, matrix.depth, DEPTH):
        for panel in range(part.first, part.first + part.width):
            first, sums = panel * PANEL, first_sums + (panel - part.first) * slot
            count = min(PANEL, matrix.columns - first)
            if k == 0:
                biases = 0 if matrix.bias < 0 else count
                begin_sums(buffers.sums, sums, PANEL, part.rows, PANEL, weights.vectors, matrix.bias + first, biases)
            start = matrix.first + panel * matrix.panel_size + k // DEPTH * matrix.chunk_size
            panel_weights = Rows(weights.head, start, matrix.panel_size)
            for i in range(0, part.rows, TILE_ROWS):
                multiply_tile(
                    weights.data,
                    matrix,
                    min(TILE_ROWS, part.rows - i),
                    1,
                    panel_weights,
                    Rows(buffers.activations, x + i * x_step + k // numbers_in(buffers.activations), x_step),
                    Rows(buffers.scales, scales + i * scales_step + k // BLOCK * SCALES, scales_step),
                    min(DEPTH, matrix.depth - k),
                    Rows(buffers.sums, sums + i * PANEL, PANEL),
                    0,
                )
            if k + DEPTH >= matrix.depth:
                deliver(worker, run, matrix, Rows(buffers.sums, sums, PANEL), Part(part.row, part.rows, first, count))


@part
def _multiply_task(worker, task, run, layer, kind, block, panels):
    matrix = matrix_of(layer, kind, run.weights, run.shape)
    n_panels = (matrix.columns + PANEL - 1) // PANEL
    ranges = (n_panels + panels - 1) // panels
    row, first = task // ranges * block, task % ranges * panels
    rows = run.shape.wanted if kind == HEAD else run.shape.rows
    _multiply_block(worker, run, matrix, Part(row, min(block, rows - row), first, min(n_panels - first, panels)))


@launcher
def multiply(n_tasks, layer, kind, block, panels, weights, shape, buffers, keys, values):
    """One matrix of ``launch``'s kinds, with its norm, bias and what follows; cut as `plan` says.

    ``weights.chunk_sizes`` are those of ``DEPTH`` rows. ``launch.Buffers`` describes the memory, but activations have
    room for ``ROWS`` rows of a worker, and sums for ROWS × RANGE.
    """
    run = Run(weights, shape, buffers, keys, values)
    parallel_for(_multiply_task, n_tasks, (run, layer, kind, block, panels))
