"""How a product is cut: tasks for the threads, blocks for the caches. Pure arithmetic, without numba.

C (M, N) = A (M, K) · B (K, N) is cut three times (Goto and van de Geijn, 2008):

    task    a rectangle of C, the work that one thread does in one go
    block   BLOCK_TILES tiles of A's rows, or BLOCK_COLUMNS of B's columns, ``depth`` deep: what is packed at a time
    tile    ``tile.rows`` × ``tile.columns`` elements of C, which stay in registers

The depth of a block follows from K alone, never from the number of threads: an element is the sum over blocks, in
order, of sums over k, in order, so its bits do not depend on how C is cut.
"""

import functools
import math
from typing import NamedTuple

DEPTH_STEP = 4  # the tile's loop takes so many k at a time: the depth of a packed panel is a multiple of it
BLOCK_TILES = 12  # tiles of A's rows packed at a time: with the depth below, half of a second-level cache
BLOCK_COLUMNS = 768  # columns of B packed at a time: a few megabytes of the last-level cache
GAP = 16  # elements between panels: at least a vector, and a cache line so that panels do not share cache sets
PANEL_BYTES = 3072  # of each row of A in a block: a panel of A this deep fits the first-level cache

_PACKING_COST = 16  # multiply-adds per element of a panel that take as long as packing that element
_CUT_ROWS = 1 / 32  # of a task that applies GELU to parts of rows: how long it waits for lines that others write to
_ALONE = 1 << 18  # multiply-adds below which waking a second thread costs more than it saves
_TASKS_PER_THREAD = 4  # at most; several, so that a thread which is held up leaves its share to the others
_WAIT = 1 / 16  # of a task: how long the thread that ends first waits for the last


class Tiling(NamedTuple):
    """What the CPU and the element type decide."""

    rows: int  # of a tile
    columns: int  # of a tile
    most_depth: int  # of a block, in k


class Plan(NamedTuple):
    n_tasks: int
    rows: int  # of a task; a multiple of the tile's
    columns: int  # of a task; a multiple of the tile's
    depth: int  # of a block, in k
    block_columns: int  # of a block; a multiple of the tile's


@functools.lru_cache(maxsize=4096)
def plan(M, N, K, n_threads, tiling, curved=False):
    """The ``Plan`` of a product (M, K) · (K, N), all at least 1, on ``n_threads`` threads.

    Each task packs all the A and B that it needs by itself. The grid of tasks is the one with the lowest cost, in
    multiply-adds of the thread that has most to do. curved: GELU goes over C once more when C is complete.
    """
    depth = even_size(K, tiling.most_depth, 16)
    if M * N * K < _ALONE:
        n_threads = 1
    best = None
    for wanted in range(n_threads, n_threads * _TASKS_PER_THREAD + 1, n_threads) if n_threads > 1 else (1,):
        for down in range(1, wanted + 1):
            if wanted % down == 0:
                rows = round_up(-(-M // down), tiling.rows)
                columns = round_up(-(-N // (wanted // down)), tiling.columns)
                n_tasks = -(-M // rows) * -(-N // columns)
                packed = rows * -(-columns // BLOCK_COLUMNS) + columns
                work = rows_of_work(min(rows, M), tiling) * columns * (1 + _CUT_ROWS * (curved and columns < N))
                cost = (-(-n_tasks // n_threads) + _WAIT) * (work + _PACKING_COST * packed)
                best = min(best or (math.inf,), (cost, n_tasks, rows, columns))
    _, n_tasks, rows, columns = best
    return Plan(n_tasks, rows, columns, depth, even_size(columns, BLOCK_COLUMNS, tiling.columns))


def short_rows(tile_rows):
    """Rows of the short tile, which takes what is left of C's rows where that is little."""
    return tile_rows // 3


def rows_of_work(rows, tiling):
    """``rows`` as the tiles that cover them compute: up to whole tiles, but for a last one that is short."""
    left, short = rows % tiling.rows, short_rows(tiling.rows)
    return rows - left + (short if 0 < left <= short else round_up(left, tiling.rows))


@functools.cache
def panels_size(tiling, words_per_k):
    """Elements of memory that a worker needs: a tile, the packed panels of A and those of B.

    words_per_k: elements of a panel for each row and k; 1, or 1/2 where an element holds two k.
    """
    depth = round_up(math.ceil(tiling.most_depth * words_per_k), DEPTH_STEP)
    column_panels = BLOCK_COLUMNS // tiling.columns + 1
    row_memory = BLOCK_TILES * (tiling.rows * depth + GAP)
    column_memory = column_panels * (tiling.columns * depth + GAP)
    return tiling.rows * tiling.columns + row_memory + column_memory


def round_up(number, multiple):
    """The smallest multiple of ``multiple`` that is not below ``number``."""
    return -(-number // multiple) * multiple


def even_size(total, at_most, multiple):
    """The size of the fewest equal pieces of ``total`` that are no larger than ``at_most``, in whole ``multiple``s."""
    return round_up(-(-total // -(-total // at_most)), multiple)
