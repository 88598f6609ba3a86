"""Lists made through Python's C interface: what they hold, and that no reference is lost or left over."""

import gc
import sys

import numpy as np
import pytest

from gpt_numpy.kernels.runtime import listing


@pytest.fixture(scope="module")
def numbers():
    return listing.integers(70_000)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_lists_hold_the_ids(numbers, dtype):
    ids = np.random.default_rng(0).integers(0, 60_000, 5000).astype(dtype)
    found = listing.listed(ids, numbers)
    assert found == ids.tolist() and set(map(type, found)) == {int}
    assert listing.listed(ids[:0], numbers) == []
    offsets = np.array([0, 0, 3, 3, 4999, 5000, 5000])
    rows = listing.listed_rows(ids, offsets, numbers)
    assert rows == [ids[a:b].tolist() for a, b in zip(offsets, offsets[1:], strict=False)]
    assert listing.listed_rows(ids, np.zeros(1, np.int64), numbers) == []
    rows[0].append("a list like any other")
    assert rows[2] == [] and gc.is_tracked(rows)


def test_every_reference_is_counted_and_given_back(numbers):
    ids, watched = np.array([69_999, 5, 69_999], np.uint32), numbers.objects[69_999]
    before = sys.getrefcount(watched)
    first, rows = listing.listed(ids, numbers), listing.listed_rows(ids, np.array([0, 1, 3]), numbers)
    assert sys.getrefcount(watched) == before + 4
    del first, rows
    assert sys.getrefcount(watched) == before


def test_the_garbage_collector_is_left_as_it_was(numbers):
    ids, offsets = np.zeros(4, np.uint16), np.array([0, 2, 4])
    for enabled in (False, True):
        (gc.enable if enabled else gc.disable)()
        try:
            listing.listed_rows(ids, offsets, numbers)
            assert gc.isenabled() is enabled
        finally:
            gc.enable()


def test_missing_memory_is_an_error(numbers):
    """A row of more items than memory can address: Python's own function refuses it."""
    with pytest.raises(MemoryError, match="1 texts"):
        listing.listed_rows(np.zeros(0, np.uint16), np.array([0, 1 << 62]), numbers)
    assert gc.isenabled()
