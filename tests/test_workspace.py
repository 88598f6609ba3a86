"""A workspace hands out the same memory, and the same arrays, in every pass."""

import numpy as np

from gpt_numpy.workspace import Workspace


def arrays(workspace, shapes):
    alloc = workspace.begin("region")
    return [alloc(shape, np.dtype(np.float32)) for shape in shapes]


def test_the_same_arrays_come_in_every_pass():
    workspace, shapes = Workspace(), [(2, 3), (5,), (2, 3)]
    first, second, third = (arrays(workspace, shapes) for _ in range(3))
    assert all(a is b for a, b in zip(second, third)) and second[0] is not second[2]
    assert first[0].shape == second[0].shape == (2, 3)
    others = arrays(workspace, [(3, 2), (5,)])
    assert others[0].shape == (3, 2) and np.shares_memory(others[0], second[0])
    assert all(a is b for a, b in zip(second, arrays(workspace, shapes)))


def test_arrays_of_a_pass_never_overlap_whatever_came_before():
    workspace, rng = Workspace(), np.random.default_rng(3)
    for _ in range(200):
        found = arrays(workspace, [tuple(rng.integers(0, 9, 2)) for _ in range(rng.integers(1, 6))])
        for number, array in enumerate(found):
            array[...] = number
        assert all((array == number).all() for number, array in enumerate(found))


def test_a_block_that_grew_hands_out_other_arrays():
    workspace = Workspace()
    arrays(workspace, [(2, 3)])
    small = arrays(workspace, [(2, 3)])
    arrays(workspace, [(200, 300)])
    again = arrays(workspace, [(2, 3)])
    assert not np.shares_memory(small[0], again[0])
    assert again[0].ctypes.data % 64 == 0
