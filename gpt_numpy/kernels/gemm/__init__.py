"""Matrix multiplication on numba's thread pool: C (+)= A·B, A·Bᵀ, Aᵀ·B, with what follows the product done in passing.

Why not ``np.matmul``: BLAS brings a second thread pool, which spins against the first; its speed depends on its guess
about the CPU; and it cannot add a bias or apply GELU before the result has left the cache. Its twin ``gemm_numpy`` does
the same with ``np.matmul``: the oracle of the tests, and what runs on a CPU that LLVM does not know.

Three nested blockings (Goto and van de Geijn, 2008). C is cut into tasks. A task takes B in blocks of ``depth`` × a
few hundred columns, packed into panels that stay in the outer caches; against each it takes A in blocks of
``_BLOCK_ROWS`` rows, packed to stay in the second-level cache; and multiplies panel by panel (``gemm_tile``).

An element of C is the sum over blocks of depth, in order, of sums over k, in order. Depth is cut by K alone, so the
bits do not depend on the number of threads, nor on where the element lies.
"""

import functools
import math
import os

import numpy as np

from ...errors import ConfigError
from ..runtime import threads
from ..runtime.decorators import part
from ..runtime.emitting import VECTOR_BYTES, cpu_features
from ..runtime.threads import launcher, parallel_for
from ..runtime.vectors import broadcast, gelu, gelu_and_derivative, lanes, load, load_tail, store, store_tail
from .numpy_twin import BIAS, BIAS_GELU_KEEP, GELU_BACKWARD, NOTHING, gemm_numpy
from .tile import TILE, UNROLL, multiply_tile, pack_column_panels, pack_row_panels, tile_columns

_ROWS = TILE.rows
_PANEL_BYTES = 3072  # depth of a block: a panel of A this deep fits the first-level cache
_BLOCK_ROWS = 12 * TILE.rows  # rows of A packed at a time: with that depth, half of a second-level cache
_BLOCK_COLUMNS = 768  # columns of B packed at a time: a few megabytes of the last-level cache
_GAP = 16  # elements between panels: at least a vector, and a cache line so that panels do not share cache sets


@part
def _store_edge(panels, tile, c, index, step, rows, columns, add, biased, bias, column):
    """Store the ``rows`` × ``columns`` of a tile of sums that lie in C, at c[index …]."""
    for i in range(rows):
        for j in range(0, columns, lanes(c)):
            left, here = columns - j, index + i * step + j
            value = load(panels, tile + i * tile_columns(c) + j)
            if add:
                value += load_tail(c, here, left)
            if biased:
                value += load_tail(bias, column + j, left)
            store_tail(c, here, value, left)


@part
def _activate(c, index, step, rows, columns, bias, column, extra, keep):
    """gelu(C + bias) where C is complete, while it is still in cache; ``keep``: extra = what GELU is applied to."""
    for here in range(index, index + rows * step, step):
        j = 0
        while j + lanes(c) <= columns:
            value = load(c, here + j) + load(bias, column + j)
            if keep:
                store(extra, here + j, value)
            store(c, here + j, gelu(value))
            j += lanes(c)
        n = columns - j
        value = load_tail(c, here + j, n) + load_tail(bias, column + j, n)
        if keep:
            store_tail(extra, here + j, value, n)
        store_tail(c, here + j, gelu(value), n)


@part
def _differentiate(c, index, step, rows, columns, extra, activation):
    """C · gelu'(extra), and activation = gelu(extra)."""
    for here in range(index, index + rows * step, step):
        j = 0
        while j + lanes(c) <= columns:
            activated, slope = gelu_and_derivative(load(extra, here + j))
            store(activation, here + j, activated)
            store(c, here + j, load(c, here + j) * slope)
            j += lanes(c)
        n = columns - j
        activated, slope = gelu_and_derivative(load_tail(extra, here + j, n))
        store_tail(activation, here + j, activated, n)
        store_tail(c, here + j, load_tail(c, here + j, n) * slope, n)


@part
def _add_column_sums(panels, panel, depth, panel_step, sums, column, columns, add):
    """sums[column …] (+)= the sums over k of the packed panels of B, whose depth is padded to a multiple of UNROLL."""
    width = tile_columns(sums)
    for j in range(0, columns, lanes(sums)):
        here = panel + j // width * panel_step + j % width
        even = odd = broadcast(sums, 0.0)  # two sums, so that one addition need not wait for the other
        for k in range(0, depth, 2):
            even += load(panels, here + k * width)
            odd += load(panels, here + (k + 1) * width)
        total = even + odd
        if add:
            total += load_tail(sums, column + j, columns - j)
        store_tail(sums, column + j, total, columns - j)


@part
def _multiply_task(
    worker,
    task,
    a,
    b,
    c,
    panels,
    panels_size,
    M,
    N,
    K,
    a_turned,
    b_turned,
    add,
    epilogue,
    bias,
    extra,
    activation,
    sums,
    add_sums,
    task_rows,
    task_columns,
    depth,
    block_columns,
):
    """One task: its rectangle of C, complete. All arrays are flat."""
    width, a_step, b_step = tile_columns(c), K if a_turned else M, K if b_turned else N
    across = (N + task_columns - 1) // task_columns
    row_start, column_start = task // across * task_rows, task % across * task_columns
    row_end, column_end = min(M, row_start + task_rows), min(N, column_start + task_columns)
    tile = worker * panels_size
    a_panels, a_panel_step = tile + _ROWS * width, depth * _ROWS + _GAP
    b_panels, b_panel_step = a_panels + _BLOCK_ROWS // _ROWS * a_panel_step, depth * width + _GAP
    for column in range(column_start, column_end, block_columns):
        columns = min(block_columns, column_end - column)
        for k in range(0, K, depth):
            deep, adding, last = min(depth, K - k), add or k > 0, k + depth >= K
            biased = last and epilogue == BIAS
            padded = (deep + UNROLL - 1) // UNROLL * UNROLL
            source = column * b_step + k if b_turned else k * b_step + column
            pack_column_panels(b, source, b_step, b_turned, columns, deep, panels, b_panels, b_panel_step)
            if sums.size > 0:  # the tasks that meet these columns share them out by panels
                n_panels, down = (columns + width - 1) // width, (M + task_rows - 1) // task_rows
                first, end = n_panels * (task // across) // down, n_panels * (task // across + 1) // down
                _add_column_sums(
                    panels,
                    b_panels + first * b_panel_step,
                    padded,
                    b_panel_step,
                    sums,
                    column + first * width,
                    min(columns, end * width) - first * width,
                    add_sums or k > 0,
                )
            for row in range(row_start, row_end, _BLOCK_ROWS):
                rows = min(_BLOCK_ROWS, row_end - row)
                source = row * a_step + k if a_turned else k * a_step + row
                pack_row_panels(a, source, a_step, a_turned, rows, deep, panels, a_panels, a_panel_step)
                for j in range(0, columns, width):
                    b_panel = b_panels + j // width * b_panel_step
                    for i in range(0, rows, _ROWS):
                        a_panel, here = a_panels + i // _ROWS * a_panel_step, (row + i) * N + column + j
                        if i + _ROWS <= rows and j + width <= columns:
                            multiply_tile(
                                panels, a_panel, b_panel, padded, c, here, N, adding, bias, column + j, biased
                            )
                            continue
                        multiply_tile(panels, a_panel, b_panel, padded, panels, tile, width, False, bias, 0, False)
                        _store_edge(
                            panels,
                            tile,
                            c,
                            here,
                            N,
                            min(_ROWS, rows - i),
                            min(width, columns - j),
                            adding,
                            biased,
                            bias,
                            column + j,
                        )
                if last and epilogue == GELU_BACKWARD:
                    _differentiate(c, row * N + column, N, rows, columns, extra, activation)
                elif last and epilogue > BIAS:
                    _activate(c, row * N + column, N, rows, columns, bias, column, extra, epilogue == BIAS_GELU_KEEP)


@launcher
def _multiply(
    n_tasks,
    a,
    b,
    c,
    panels,
    panels_size,
    M,
    N,
    K,
    a_turned,
    b_turned,
    add,
    epilogue,
    bias,
    extra,
    activation,
    sums,
    add_sums,
    task_rows,
    task_columns,
    depth,
    block_columns,
):
    parallel_for(
        _multiply_task,
        n_tasks,
        (
            a,
            b,
            c,
            panels,
            panels_size,
            M,
            N,
            K,
            a_turned,
            b_turned,
            add,
            epilogue,
            bias,
            extra,
            activation,
            sums,
            add_sums,
            task_rows,
            task_columns,
            depth,
            block_columns,
        ),
    )


def _round_up(number, multiple):
    return -(-number // multiple) * multiple


def _even(total, at_most, multiple):
    """The size of the fewest equal pieces of ``total`` that are no larger than ``at_most``, in whole ``multiple``s."""
    return _round_up(-(-total // -(-total // at_most)), multiple)


_PACKING_COST = 16  # multiply-adds per element of a panel that take as long as packing that element
_ALONE = 1 << 18  # multiply-adds below which waking a second thread costs more than it saves
_TASKS_PER_THREAD = 4  # at most; several, so that a thread which is held up leaves its share to the others
_WAIT = 1 / 16  # of a task: what the thread that ends first waits for the last


@functools.lru_cache(maxsize=4096)
def _plan(M, N, K, n_threads, dtype):
    """How C is cut: (number of tasks, rows and columns of a task, depth and columns of a block).

    The grid of tasks is the one that costs least, as each task packs all the A and B it needs by itself.
    """
    width, depth = _width(dtype), _even(K, _PANEL_BYTES // dtype.itemsize, 16)
    if M * N * K < _ALONE:
        n_threads = 1
    best = None
    for wanted in range(n_threads, n_threads * _TASKS_PER_THREAD + 1, n_threads) if n_threads > 1 else (1,):
        for down in range(1, wanted + 1):
            if wanted % down == 0:
                rows = _round_up(-(-M // down), _ROWS)
                columns = _round_up(-(-N // (wanted // down)), width)
                n_tasks = -(-M // rows) * -(-N // columns)
                packed = rows * -(-columns // _BLOCK_COLUMNS) + columns
                cost = (-(-n_tasks // n_threads) + _WAIT) * (rows * columns + _PACKING_COST * packed)
                best = min(best or (math.inf,), (cost, n_tasks, rows, columns))
    _, n_tasks, rows, columns = best
    return n_tasks, rows, columns, depth, _even(columns, _BLOCK_COLUMNS, width)


def _width(dtype):
    """Columns of a tile."""
    return TILE.vectors * VECTOR_BYTES // dtype.itemsize


def _panels(dtype):
    """Each worker's memory for a tile, the packed panels of A and those of B."""
    width, depth = _width(dtype), _PANEL_BYTES // dtype.itemsize
    row_panels, column_panels = _BLOCK_ROWS // _ROWS, _BLOCK_COLUMNS // width + 1
    size = _ROWS * width + row_panels * (_ROWS * depth + _GAP) + column_panels * (width * depth + _GAP)
    return threads.scratch(dtype, size)


_ABSENT = {dtype: np.empty(0, dtype) for dtype in map(np.dtype, (np.float32, np.float64))}  # for unused arguments


def gemm_vectors(
    a,
    b,
    out,
    *,
    a_transposed=False,
    b_transposed=False,
    add=False,
    epilogue=NOTHING,
    bias=None,
    extra=None,
    activation=None,
    sums=None,
    add_sums=False,
):
    """`gemm`, by the kernels above."""
    M, N = out.shape
    K = a.shape[0] if a_transposed else a.shape[1]
    if M == 0 or N == 0 or K == 0:
        gemm_numpy(
            a,
            b,
            out,
            a_transposed=a_transposed,
            b_transposed=b_transposed,
            add=add,
            epilogue=epilogue,
            bias=bias,
            extra=extra,
            activation=activation,
            sums=sums,
            add_sums=add_sums,
        )
        return
    absent, panels = _ABSENT[out.dtype], _panels(out.dtype)
    n_tasks, *cut = _plan(M, N, K, threads.count(), out.dtype)
    _multiply(
        n_tasks,
        a.reshape(-1),
        b.reshape(-1),
        out.reshape(-1),
        panels.reshape(-1),
        panels.shape[1],
        M,
        N,
        K,
        not a_transposed,
        b_transposed,
        add,
        epilogue,
        absent if bias is None else bias,
        absent if extra is None else extra.reshape(-1),
        absent if activation is None else activation.reshape(-1),
        absent if sums is None else sums,
        add_sums,
        *cut,
    )


def _choose():
    """The vector kernels where LLVM knows the CPU, NumPy elsewhere; GPT_NUMPY_GEMM (vectors or numpy) overrides."""
    choices = {"vectors": gemm_vectors, "numpy": gemm_numpy}
    name = os.environ.get("GPT_NUMPY_GEMM", "vectors" if cpu_features() else "numpy")
    if name not in choices:
        raise ConfigError("no such matrix product", field="GPT_NUMPY_GEMM", found=name, expected="vectors or numpy")
    return choices[name]


IMPLEMENTATION = _choose()


def gemm(a, b, out, **options):
    """out (M, N) = A · B for contiguous float32 or float64 arrays a (M, K) and b (K, N); no argument is checked here.

    a_transposed, b_transposed    a is (K, M), b is (N, K)
    add                           out += A · B
    epilogue                      one of the constants above, with the arrays it names: bias (N,), extra and activation
                                  like out
    sums, add_sums                sums (N,) = (+=) the column sums of B: a bias's gradient, where B is dout
    """
    IMPLEMENTATION(a, b, out, **options)
