"""How a prompt's matrix products are cut into tasks; that they are right is tested in tests/inference."""

import math

import pytest

from gpt_numpy.kernels.decoding.launch import CHUNK
from gpt_numpy.kernels.decoding.panel_tile import PANEL, TILE_ROWS
from gpt_numpy.kernels.decoding.prompt import DEPTH, RANGE, ROWS, plan


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("rows, columns", [(1, 50257), (1, 16), (5, 90), (49, 2304), (96, 30), (1000, 3072), (97, 1)])
def test_tasks_cover_the_product_once(rows, columns, threads):
    n_tasks, block, panels = plan(rows, columns, threads)
    assert 0 < block <= ROWS and block % TILE_ROWS == 0 and 0 < panels <= RANGE
    across = -(-math.ceil(columns / PANEL) // panels)
    assert n_tasks == -(-rows // block) * across
    assert (n_tasks // across - 1) * block < rows and (across - 1) * panels * PANEL < columns
    if rows >= 1000:
        assert n_tasks >= 2 * threads


def test_blocks_fit_what_they_are_made_of():
    assert ROWS % TILE_ROWS == 0 and DEPTH % CHUNK == 0
