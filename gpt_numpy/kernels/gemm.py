"""Matrix multiplication on numba's thread pool: C (+)= A·B, A·Bᵀ, Aᵀ·B, with what follows the product done in passing.

Why not ``np.matmul``: BLAS brings a second thread pool, which spins against the first; its speed depends on its guess
about the CPU; and it cannot add a bias or apply GELU before the result has left the cache. Its twin ``gemm_numpy`` does
the same with ``np.matmul``: the oracle of the tests, and what runs on a CPU that LLVM does not know.

Three nested blockings (Goto and van de Geijn, 2008). C is cut into tasks. A task takes B in blocks of ``depth`` × a few
hundred columns, packed into panels that stay in the outer caches; against each it takes A in blocks of ``_BLOCK_ROWS``
rows, packed to stay in the second-level cache; and multiplies panel by panel (``gemm_tile``).

An element of C is the sum over blocks of depth, in order, of sums over k, in order. Depth is cut by K alone, so the bits
do not depend on the number of threads, nor on where the element lies.
"""

import functools
import os

import numba
import numpy as np

from ..errors import ConfigError
from . import threads
from .gemm_numpy import BIAS, BIAS_GELU, BIAS_GELU_KEEP, GELU_BACKWARD, NOTHING, gemm_numpy
from .gemm_tile import TILE, UNROLL, multiply_tile, pack_columns_panel, pack_rows_panel, tile_columns
from .jit import kernel
from .lanes import VECTOR_BYTES, cpu_features
from .simd import gelu, gelu_derivative, lanes, load, load_tail, store_tail
from .threads import launcher, parallel_for

_ROWS = TILE.rows
_DEPTH = 768  # k per block: a panel of A this deep fits the first-level cache
_BLOCK_ROWS = 12 * TILE.rows  # rows of A packed at a time: with that depth, half of a second-level cache
_BLOCK_COLUMNS = 768  # columns of B packed at a time: a few megabytes of the last-level cache


@kernel()
def _finish_tile(panels, tile, c, index, rows, columns, add, epilogue, bias, column, extra, activation):
    """Store ``rows`` × ``columns`` of a tile of sums at c[index …], with the epilogue applied."""
    for i in range(rows):
        for j in range(0, columns, lanes(c)):
            left, here = columns - j, index + i * c.shape[1] + j
            value = load(panels, tile + i * tile_columns(c) + j)
            if add:
                value += load_tail(c, here, left)
            if epilogue == GELU_BACKWARD:
                hidden = load_tail(extra, here, left)
                store_tail(activation, here, gelu(hidden), left)
                value *= gelu_derivative(hidden)
            elif epilogue != NOTHING:
                value += load_tail(bias, column + j, left)
                if epilogue == BIAS_GELU_KEEP:
                    store_tail(extra, here, value, left)
                if epilogue != BIAS:
                    value = gelu(value)
            store_tail(c, here, value, left)


@kernel()
def _pack_columns(b, turned, k, depth, column, columns, panels, at, panel_size, sums, add):
    """Pack rows k … k + depth of ``columns`` columns of B. Where ``sums`` is not empty, (+)= their column sums."""
    width, step = tile_columns(b), b.shape[1]
    for j in range(0, columns, width):
        source = (column + j) * step + k if turned else k * step + column + j
        panel = at + j // width * panel_size
        pack_columns_panel(b, source, step, turned, columns - j, depth, panels, panel)
        for v in range(j, min(columns, j + width) if sums.size > 0 else j, lanes(b)):
            total = load(panels, panel + v - j)
            for row in range(1, depth):
                total += load(panels, panel + row * width + v - j)
            if add:
                total += load_tail(sums, column + v, columns - v)
            store_tail(sums, column + v, total, columns - v)


@kernel()
def _multiply_task(
    worker, task, a, b, c, panels, a_turned, b_turned, K, add, epilogue, bias, extra, activation, sums, add_sums,
    task_rows, task_columns, depth, block_columns,
):  # fmt: skip
    """One task: its rectangle of C, complete."""
    (M, N), width, a_step = c.shape, tile_columns(c), a.shape[1]
    across = (N + task_columns - 1) // task_columns
    row_start, column_start = task // across * task_rows, task % across * task_columns
    row_end, column_end = min(M, row_start + task_rows), min(N, column_start + task_columns)
    tile = worker * panels.shape[1]
    a_panels = tile + _ROWS * width
    b_panels = a_panels + (_BLOCK_ROWS + _ROWS) * depth
    for column in range(column_start, column_end, block_columns):
        columns = min(block_columns, column_end - column)
        for k in range(0, K, depth):
            deep, first, last = min(depth, K - k), k == 0, k + depth >= K
            padded = (deep + UNROLL - 1) // UNROLL * UNROLL
            own_sums = sums if row_start == 0 else sums[:0]
            _pack_columns(b, b_turned, k, deep, column, columns, panels, b_panels, depth * width, own_sums,
                          add_sums or not first)  # fmt: skip
            for row in range(row_start, row_end, _BLOCK_ROWS):
                rows = min(_BLOCK_ROWS, row_end - row)
                for i in range(0, rows, _ROWS):
                    source = (row + i) * a_step + k if a_turned else k * a_step + row + i
                    pack_rows_panel(a, source, a_step, a_turned, rows - i, deep, panels, a_panels + i * depth)
                for j in range(0, columns, width):
                    for i in range(0, rows, _ROWS):
                        here, a_panel, b_panel = (row + i) * N + column + j, a_panels + i * depth, b_panels + j * depth
                        whole = i + _ROWS <= rows and j + width <= columns
                        if whole and not (last and epilogue != NOTHING):
                            multiply_tile(panels, a_panel, b_panel, padded, c, here, N, add or not first)
                        else:
                            multiply_tile(panels, a_panel, b_panel, padded, panels, tile, width, False)
                            _finish_tile(panels, tile, c, here, min(_ROWS, rows - i), min(width, columns - j),
                                         add or not first, epilogue if last else NOTHING, bias, column + j, extra,
                                         activation)  # fmt: skip


@launcher
def _multiply(
    n_tasks, a, b, c, panels, a_turned, b_turned, K, add, epilogue, bias, extra, activation, sums, add_sums,
    task_rows, task_columns, depth, block_columns,
):  # fmt: skip
    parallel_for(_multiply_task, n_tasks, (
        a, b, c, panels, a_turned, b_turned, K, add, epilogue, bias, extra, activation, sums, add_sums,
        task_rows, task_columns, depth, block_columns,
    ))  # fmt: skip


def _round_up(number, multiple):
    return -(-number // multiple) * multiple


def _even(total, at_most, multiple):
    """The size of the fewest equal pieces of ``total`` that are no larger than ``at_most``, in whole ``multiple``s."""
    return _round_up(-(-total // -(-total // at_most)), multiple)


_PACKING_COST = 10  # multiply-adds per element of a panel that take as long as packing that element
_ALONE = 1 << 18  # multiply-adds below which waking a second thread costs more than it saves


@functools.lru_cache(maxsize=4096)
def _plan(M, N, K, n_threads, width):
    """How C is cut: (number of tasks, rows and columns of a task, depth and columns of a block).

    One task a thread, in the grid that costs least: each task packs all the A and B it needs by itself.
    """
    depth = _even(K, _DEPTH, 16)
    if M * N * K < _ALONE:
        n_threads = 1
    best = None
    for down in range(1, n_threads + 1):
        if n_threads % down:
            continue
        rows = _round_up(-(-M // down), _ROWS)
        columns = _round_up(-(-N // (n_threads // down)), width)
        cost = rows * columns + _PACKING_COST * (rows + columns)
        if best is None or cost < best[0]:
            best = cost, rows, columns
    _, rows, columns = best
    n_tasks = -(-M // rows) * -(-N // columns)
    return n_tasks, rows, columns, depth, _even(columns, _BLOCK_COLUMNS, width)


@functools.cache
def _panels(dtype):
    """Scratch for the packed panels: a row for each worker. Launches take turns, so one is enough."""
    width = TILE.vectors * VECTOR_BYTES // dtype.itemsize
    size = _round_up(_ROWS * width + (_BLOCK_ROWS + _ROWS + _round_up(_BLOCK_COLUMNS, width) + width) * _DEPTH, 64)
    raw = np.empty(numba.config.NUMBA_NUM_THREADS * size + 64, dtype)
    start = -raw.ctypes.data % 64 // dtype.itemsize  # on a cache line
    return raw[start : start + numba.config.NUMBA_NUM_THREADS * size].reshape(-1, size)


@functools.cache
def _absent(dtype):
    """Stand-ins for arguments that an epilogue does not use."""
    return np.empty(0, dtype), np.empty((0, 0), dtype)


def gemm_vectors(
    a, b, out, *, a_transposed=False, b_transposed=False, add=False, epilogue=NOTHING, bias=None, extra=None,
    activation=None, sums=None, add_sums=False,
):  # fmt: skip
    """`gemm`, by the kernels above."""
    M, N = out.shape
    K = a.shape[0] if a_transposed else a.shape[1]
    if M == 0 or N == 0 or K == 0:
        gemm_numpy(a, b, out, a_transposed=a_transposed, b_transposed=b_transposed, add=add, epilogue=epilogue,
                   bias=bias, extra=extra, activation=activation, sums=sums, add_sums=add_sums)  # fmt: skip
        return
    vector, matrix = _absent(out.dtype)
    n_tasks, *cut = _plan(M, N, K, threads.count(), TILE.vectors * VECTOR_BYTES // out.itemsize)
    _multiply(
        n_tasks, a, b, out, _panels(out.dtype), not a_transposed, b_transposed, K, add, epilogue,
        vector if bias is None else bias, matrix if extra is None else extra,
        matrix if activation is None else activation, vector if sums is None else sums, add_sums, *cut,
    )  # fmt: skip


def _choose():
    """The vector kernels where LLVM knows the CPU, NumPy elsewhere; GPT_NUMPY_GEMM (vectors or numpy) decides otherwise."""
    choices = {"vectors": gemm_vectors, "numpy": gemm_numpy}
    name = os.environ.get("GPT_NUMPY_GEMM", "vectors" if cpu_features() else "numpy")
    if name not in choices:
        raise ConfigError("no such matrix multiplication", field="GPT_NUMPY_GEMM", found=name, expected="vectors or numpy")
    return choices[name]


gemm = _choose()
