"""How a product is cut, as arithmetic: any CPU's tile, no kernel."""

import subprocess
import sys

import pytest

from gpt_numpy.kernels.gemm.plan import BLOCK_COLUMNS, BLOCK_TILES, GAP, Tiling, panels_size, plan, rows_of_work

TILINGS = [Tiling(14, 32, 768), Tiling(14, 16, 384), Tiling(6, 16, 768), Tiling(8, 12, 768)]
SIZES = [(1, 1, 1), (7, 17, 9), (37, 1, 5), (150, 1700, 30), (4096, 3072, 768), (50257, 768, 512), (5, 50257, 3000)]


@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize("n_threads", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("curved", [False, True])
def test_a_plan_covers_every_element_once(size, n_threads, tiling, curved):
    M, N, K = size
    cut = plan(M, N, K, n_threads, tiling, curved)
    assert cut.n_tasks == -(-N // cut.columns) * -(-M // cut.rows) <= 4 * n_threads
    assert cut.rows % tiling.rows == cut.columns % tiling.columns == cut.block_columns % tiling.columns == 0
    assert cut.block_columns <= BLOCK_COLUMNS + tiling.columns and cut.depth <= tiling.most_depth


@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_what_a_task_packs_fits_its_memory(size, tiling):
    cut = plan(*size, 2, tiling)
    tile = tiling.rows * tiling.columns
    rows = BLOCK_TILES * (tiling.rows * cut.depth + GAP)
    columns = cut.block_columns // tiling.columns * (tiling.columns * cut.depth + GAP)
    assert tile + rows + columns <= panels_size(tiling, 1)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_depth_of_a_block_does_not_depend_on_the_threads(size):
    assert len({plan(*size, n_threads, TILINGS[0]).depth for n_threads in (1, 2, 3, 7, 64)}) == 1


def test_a_small_product_is_not_shared_out():
    assert plan(20, 40, 60, 8, TILINGS[0]).n_tasks == 1
    assert plan(768, 768, 768, 8, TILINGS[0]).n_tasks >= 8


def test_where_gelu_follows_threads_take_whole_rows():
    assert plan(768, 512, 128, 2, TILINGS[0], curved=True).columns == 512
    assert plan(768, 512, 128, 2, TILINGS[0]).columns == 256


def test_a_short_last_tile_counts_as_the_work_that_it_is():
    """128 rows are nine tiles and two rows: halves of the columns are more even than five tiles of rows and four."""
    assert rows_of_work(130, TILINGS[0]) == 130 and rows_of_work(131, TILINGS[0]) == 140
    cut = plan(128, 128, 768, 2, TILINGS[0])
    assert (cut.n_tasks, cut.columns) == (2, 64)


def test_planning_needs_no_compiler():
    program = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('plan', sys.argv[1])\n"
        "plan = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(plan)\n"
        "assert plan.plan(9, 9, 9, 1, plan.Tiling(6, 16, 768)).n_tasks == 1\n"
        "assert 'numba' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    file = sys.modules[plan.__module__].__file__
    subprocess.run([sys.executable, "-c", program, file], check=True)
