"""The three nested blockings of a product, as one kernel: tasks, blocks, tiles; and the fused operations on C.

``plan`` says how C is cut. A task takes B in blocks of ``depth`` × a few hundred columns, packed into panels that stay
in the outer caches; against each it takes A in blocks of rows, packed to stay in the second-level cache; and multiplies
panel by panel (``tile``).
"""

from typing import NamedTuple

import numpy as np

from ..runtime.bfloat16 import is_rounded, load_number, load_number_tail, store_number, store_number_tail
from ..runtime.decorators import part
from ..runtime.emitting import Rows
from ..runtime.threads import launcher, parallel_for
from ..runtime.vectors import (
    add_lanes,
    broadcast,
    gelu,
    gelu_and_derivative,
    lane_index,
    lanes,
    load,
    load_tail,
    store,
    store_tail,
    where,
)
from .numpy_twin import BIAS, BIAS_GELU_KEEP, GELU_BACKWARD
from .packing import Source, pack_column_panels, pack_row_panels
from .plan import BLOCK_TILES, DEPTH_STEP, GAP
from .tile import (
    SHORT_ROWS,
    TILE,
    Ahead,
    Panels,
    Shift,
    Target,
    multiply_plain_tile,
    multiply_short_tile,
    multiply_tile,
    tile_columns,
    words_of,
)

BLOCK_ROWS = BLOCK_TILES * TILE.rows  # rows of A packed at a time


class Operands(NamedTuple):
    """C (+)= A · B; all arrays flat."""

    a: np.ndarray  # narrow (uint16) or not, for products in bfloat16
    b: np.ndarray
    c: np.ndarray
    M: int
    N: int
    K: int
    a_deep: bool  # k runs along A's rows: A is stored (M, K), else (K, M)
    b_deep: bool  # k runs along B's rows: B is stored (N, K), else (K, N)
    add: bool  # C +=, not C =


class Passing(NamedTuple):
    """The fused operations. An array that ``epilogue`` does not use is empty; so is ``sums``, if no sums are wanted."""

    epilogue: int
    bias: np.ndarray  # (N,)
    extra: np.ndarray  # like C, narrow or not
    activation: np.ndarray  # like C
    sums: np.ndarray  # (N,), the column sums of B
    add_sums: bool  # sums +=, not sums =


class Cut(NamedTuple):
    """A ``plan.Plan``, but for the number of tasks."""

    rows: int
    columns: int
    depth: int
    block_columns: int


class Memory(NamedTuple):
    """Where a task keeps what it packs: all in one array, a part of it for each worker."""

    array: np.ndarray
    tiles: np.ndarray  # the same array, but where panels hold words of bfloat16
    tile: int  # a tile of sums at the edge of C, in ``tiles``
    a_first: int  # the panels of A
    a_step: int
    b_first: int  # the panels of B
    b_step: int


class Block(NamedTuple):
    """A rectangle of C, of one task, with what the current depth adds to it."""

    row: int
    rows: int
    column: int
    columns: int
    depth: int  # of the packed panels, in their elements
    add: bool
    last: bool  # the sums are complete with this depth
    plain: bool  # whole tiles read A where it lies
    a_first: int  # the first element of A of the block


class Next(NamedTuple):
    """The block of B that a task packs next, where it lies: ``rows`` × ``length`` elements from b[first] on."""

    first: int
    step: int
    rows: int
    length: int


class Piece(NamedTuple):
    """``rows`` × ``columns`` elements of C, from c[first] on; its rows are ``step`` apart."""

    first: int
    step: int
    rows: int
    columns: int


@part
def _store_edge(memory, c, piece, add, shift):
    """Store the part of a tile of sums that lies in C."""
    width = tile_columns(c)
    for i in range(piece.rows):
        row = piece.first + i * piece.step
        for j in range(0, piece.columns, lanes(c)):
            left = piece.columns - j
            value = load(memory.tiles, memory.tile + i * width + j)
            if add:
                value += load_tail(c, row + j, left)
            if shift.present:
                value += load_tail(shift.bias, shift.first + j, left)
            store_tail(c, row + j, value, left)


@part
def _activate(c, piece, shift, extra, keep):
    """gelu(C + bias) where C is complete, while it is still in cache; ``keep``: extra = what GELU is applied to."""
    for row in range(piece.first, piece.first + piece.rows * piece.step, piece.step):
        j = 0
        while j + lanes(c) <= piece.columns:
            value = load(c, row + j) + load(shift.bias, shift.first + j)
            if keep:
                store_number(extra, row + j, value)
            store(c, row + j, gelu(value))
            j += lanes(c)
        left = piece.columns - j
        if left > 0:
            value = load_tail(c, row + j, left) + load_tail(shift.bias, shift.first + j, left)
            if keep:
                store_number_tail(extra, row + j, value, left)
            store_tail(c, row + j, gelu(value), left)


@part
def _differentiate(c, piece, extra, activation):
    """C · gelu'(extra), and activation = gelu(extra).

    C is read before ``activation`` is written: their addresses often differ by a multiple of 4,096 bytes, and a processor
    takes a store to the one for a store to the other until it has compared all bits.
    """
    for row in range(piece.first, piece.first + piece.rows * piece.step, piece.step):
        j = 0
        while j + lanes(c) <= piece.columns:
            gradient = load(c, row + j)
            activated, slope = gelu_and_derivative(load_number(extra, row + j))
            store(activation, row + j, activated)
            store(c, row + j, gradient * slope)
            j += lanes(c)
        left = piece.columns - j
        if left > 0:
            gradient = load_tail(c, row + j, left)
            activated, slope = gelu_and_derivative(load_number_tail(extra, row + j, left))
            store_tail(activation, row + j, activated, left)
            store_tail(c, row + j, gradient * slope, left)


@part
def _add_column_sums(b, first, step, deep, depth, sums, columns, add):
    """sums (``Rows``, its first row) (+)= the sums over ``depth`` k of ``columns`` columns of B from b[first] on.

    B is read where it lies, not from panels, which may be rounded; packing has just brought it near.
    """
    for j in range(0, columns, lanes(b)):
        left = columns - j
        even = odd = broadcast(b, 0.0)  # two sums, so that one addition need not wait for the other
        if not deep:
            for k in range(0, depth - 1, 2):
                even += load_tail(b, first + k * step + j, left)
                odd += load_tail(b, first + (k + 1) * step + j, left)
            if depth % 2:
                even += load_tail(b, first + (depth - 1) * step + j, left)
        else:
            for i in range(min(left, lanes(b))):
                row = broadcast(b, 0.0)
                for k in range(0, depth, lanes(b)):
                    row += load_tail(b, first + (j + i) * step + k, depth - k)
                even = where(lane_index(b, np.int32) == i, broadcast(b, add_lanes(row)), even)
        total = even + odd
        if add:
            total += load_tail(sums.array, sums.first + j, left)
        store_tail(sums.array, sums.first + j, total, left)


@part
def _sum_columns(task, operands, passing, cut, block, source, add):
    """The column sums of a block of B (``source``); the tasks that meet these columns share them out by panels."""
    width = tile_columns(operands.c)
    down = (operands.M + cut.rows - 1) // cut.rows
    across = (operands.N + cut.columns - 1) // cut.columns
    n_panels = (block.columns + width - 1) // width
    first = n_panels * (task // across) // down
    end = n_panels * (task // across + 1) // down
    start = first * width * (source.step if source.deep else 1)
    sums = Rows(passing.sums, block.column + first * width, 0)
    columns = min(block.columns, end * width) - first * width
    _add_column_sums(operands.b, source.first + start, source.step, source.deep, source.depth, sums, columns, add)


@part
def _next_of(operands, cut, column, columns, k):
    """The ``Next`` after the block at (k, column): the one below, else that of the columns to the right, if there is one."""
    if k + cut.depth < operands.K:
        k += cut.depth
    else:
        k, column = 0, column + columns
        columns = max(0, min(columns, operands.N - column))
    depth = min(cut.depth, operands.K - k)
    if operands.b_deep:
        return Next(column * operands.K + k, operands.K, columns, depth)
    return Next(k * operands.N + column, operands.N, depth, columns)


@part
def _share_of(b, soon, number, steps):
    """What the tile of this ``number`` asks for of the next block of B: a column of cache lines, or a part of one.

    So the block comes from memory while the processor multiplies, a line in each of the ``steps`` of a tile's loop.
    """
    parts = (soon.rows + steps - 1) // steps
    line = 64 // b.itemsize * (number // max(parts, 1))
    if line >= soon.length:
        return Ahead(b, 0, 0)
    return Ahead(b, soon.first + number % parts * steps * soon.step + line, soon.step)


@part
def _multiply_block(operands, passing, memory, block, soon, tiles_before):
    """All tiles of a block of C: packed panels of A times packed panels of B.

    soon: ``Next``. tiles_before: tiles that were multiplied with this block of B already.
    """
    width, number = tile_columns(operands.c), tiles_before
    biased = block.last and passing.epilogue == BIAS
    for j in range(0, block.columns, width):
        b_panel = memory.b_first + j // width * memory.b_step
        shift = Shift(passing.bias, block.column + j, biased)
        for i in range(0, block.rows, TILE.rows):
            panels = Panels(memory.array, memory.a_first + i // TILE.rows * memory.a_step, b_panel, block.depth)
            here = (block.row + i) * operands.N + block.column + j
            piece = Piece(here, operands.N, min(TILE.rows, block.rows - i), min(width, block.columns - j))
            ahead = _share_of(operands.b, soon, number, block.depth // DEPTH_STEP)
            number += 1
            if piece.rows == TILE.rows and piece.columns == width:
                target = Target(operands.c, here, operands.N, block.add)
                if block.plain:
                    rows = Rows(operands.a, block.a_first + i * operands.K, operands.K)
                    multiply_plain_tile(rows, panels, target, shift, ahead)
                else:
                    multiply_tile(panels, target, shift, ahead)
            else:
                _multiply_edge(operands, memory, panels, piece, block.add, shift, ahead)


@part
def _multiply_edge(operands, memory, panels, piece, add, shift, ahead):
    """A tile that C does not hold whole, by way of memory."""
    target = Target(memory.tiles, memory.tile, tile_columns(operands.c), False)
    none = Shift(shift.bias, 0, False)
    if piece.rows <= SHORT_ROWS:
        multiply_short_tile(panels, target, none, ahead)
    else:
        multiply_tile(panels, target, none, ahead)
    _store_edge(memory, operands.c, piece, add, shift)


@part
def _finish_block(operands, passing, block):
    """What follows the product, where it is more than a bias, on a block of C that is complete.

    After the block and not after each tile: the rows of a tile are often a multiple of 4,096 bytes apart, and the
    first-level cache has no room for so many lines of the same set.
    """
    piece = Piece(block.row * operands.N + block.column, operands.N, block.rows, block.columns)
    if passing.epilogue == GELU_BACKWARD:
        _differentiate(operands.c, piece, passing.extra, passing.activation)
    elif passing.epilogue > BIAS:
        shift = Shift(passing.bias, block.column, True)
        _activate(operands.c, piece, shift, passing.extra, passing.epilogue == BIAS_GELU_KEEP)


@part
def _memory_of(worker, operands, cut, panels, size, tiles, tiles_size):
    """The ``Memory`` of a worker, whose part of ``panels`` is ``size`` elements and of ``tiles`` ``tiles_size``."""
    width, depth = tile_columns(operands.c), words_of(panels, cut.depth)
    a_first = worker * size + TILE.rows * width
    a_step = depth * TILE.rows + GAP
    b_first = a_first + BLOCK_TILES * a_step
    b_step = depth * width + GAP
    return Memory(panels, tiles, worker * tiles_size, a_first, a_step, b_first, b_step)


@part
def _reads_plain(operands, panels):
    """Whether whole tiles read the rows of A where they lie, which saves packing them.

    Rows a multiple of 4,096 bytes apart fall into one set of the first-level cache, which does not hold a tile's rows.
    """
    apart = operands.K * operands.a.itemsize % 4096 != 0
    whole = operands.N % tile_columns(operands.c) == 0 and operands.K % DEPTH_STEP == 0
    return apart and whole and operands.a_deep and not is_rounded(panels)


@part
def _multiply_task(worker, task, operands, passing, cut, panels, size, tiles, tiles_size):
    """One task: its rectangle of C, complete."""
    a_step = operands.K if operands.a_deep else operands.M
    b_step = operands.K if operands.b_deep else operands.N
    across = (operands.N + cut.columns - 1) // cut.columns
    row_start = task // across * cut.rows
    row_end = min(operands.M, row_start + cut.rows)
    column_start = task % across * cut.columns
    column_end = min(operands.N, column_start + cut.columns)
    memory = _memory_of(worker, operands, cut, panels, size, tiles, tiles_size)
    b_panels = Rows(panels, memory.b_first, memory.b_step)
    plain = _reads_plain(operands, panels)
    for column in range(column_start, column_end, cut.block_columns):
        columns = min(cut.block_columns, column_end - column)
        for k in range(0, operands.K, cut.depth):
            depth = min(cut.depth, operands.K - k)
            padded = words_of(panels, depth)
            add = operands.add or k > 0
            last = k + cut.depth >= operands.K
            soon = _next_of(operands, cut, column, columns, k)
            b_index = column * b_step + k if operands.b_deep else k * b_step + column
            source = Source(operands.b, b_index, b_step, operands.b_deep, columns, depth)
            pack_column_panels(source, b_panels)
            if passing.sums.size > 0:
                block = Block(0, 0, column, columns, padded, add, last, False, 0)
                _sum_columns(task, operands, passing, cut, block, source, passing.add_sums or k > 0)
            for row in range(row_start, row_end, BLOCK_ROWS):
                rows = min(BLOCK_ROWS, row_end - row)
                a_index = row * a_step + k if operands.a_deep else k * a_step + row
                packed = rows // TILE.rows * TILE.rows if plain else 0  # the first row that is packed
                if packed < rows:
                    first = a_index + packed * (a_step if operands.a_deep else 1)
                    source = Source(operands.a, first, a_step, operands.a_deep, rows - packed, depth)
                    to = memory.a_first + packed // TILE.rows * memory.a_step
                    pack_row_panels(source, Rows(panels, to, memory.a_step))
                block = Block(row, rows, column, columns, padded, add, last, plain, a_index)
                width = tile_columns(operands.c)
                tiles_before = (row - row_start) // TILE.rows * ((columns + width - 1) // width)
                _multiply_block(operands, passing, memory, block, soon, tiles_before)
                if last:
                    _finish_block(operands, passing, block)


_OPERANDS = len(Operands._fields)
_PASSING = _OPERANDS + len(Passing._fields)
_CUT = _PASSING + len(Cut._fields)


@launcher
def multiply(n_tasks, panels, size, tiles, tiles_size, *fields):
    """One product. ``fields``: those of ``Operands``, of ``Passing`` and of ``Cut``, one after the other.

    panels: a part of ``size`` elements for each worker, see ``plan.panels_size``; words (uint32) for products in bfloat16.
    tiles: likewise, room for a tile of sums; the same array, unless panels hold words. Numbers and flat arrays reach
    compiled code in a microsecond; a NamedTuple built in Python takes as long again.
    """
    operands = Operands(*fields[:_OPERANDS])
    passing = Passing(*fields[_OPERANDS:_PASSING])
    cut = Cut(*fields[_PASSING:_CUT])
    parallel_for(_multiply_task, n_tasks, (operands, passing, cut, panels, size, tiles, tiles_size))
