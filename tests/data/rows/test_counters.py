"""The counter hash and the permutation made of it."""

import numpy as np
import pytest

from gpt_numpy.data.rows.counters import counter_hash, permuted
from gpt_numpy.randomness import fold, splitmix64


def test_equals_the_hash_of_integers():
    # the first output of SplitMix64 seeded with 0, as published with it
    assert splitmix64(0) == int(counter_hash(0)) == 0xE220A8397B1DCDAF
    for counters in ((0, 0), (1, 2, 3), (-1, 2**63, 2**64 - 1), (12345, 67)):
        assert int(counter_hash(*counters)) == fold(*counters)


def test_arrays_broadcast_and_equal_scalars():
    rows = np.arange(7)
    assert counter_hash(5, 6, rows).tolist() == [fold(5, 6, row) for row in range(7)]
    assert counter_hash(5, rows[:, None], rows).shape == (7, 7)
    assert counter_hash(np.int32(-5), 6, 3) == fold(-5, 6, 3)


def test_is_uniform_and_each_counter_matters():
    hashes = counter_hash(np.arange(100)[:, None], np.arange(200))
    assert len(np.unique(hashes)) == hashes.size
    counts = np.bincount((hashes % np.uint64(10)).astype(int).ravel(), minlength=10)
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000 * 0.9)
    bits = np.unpackbits(hashes.view(np.uint8))
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(bits.size)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 255, 257, 1000, 4097, 65537])
def test_a_permutation_is_one(size):
    for key in ((0, 0), (0, 1), (7, 2**63)):
        image = permuted(np.arange(size), size, *key)
        assert image.dtype == np.int64
        assert np.array_equal(np.sort(image), np.arange(size))


def test_a_permutation_does_not_depend_on_which_indices_are_asked_for():
    whole = permuted(np.arange(1001), 1001, 3)
    for index in (0, 5, 1000):
        assert permuted(index, 1001, 3) == whole[index]
    assert np.array_equal(permuted(np.arange(1001).reshape(7, 143), 1001, 3), whole.reshape(7, 143))
    huge = permuted(np.arange(1000), 2**40 + 1, 3)
    assert len(np.unique(huge)) == 1000
    assert huge.max() > 2**39


def test_permutations_look_random_and_differ_by_key():
    size, keys = 12, 6000
    images = np.array([permuted(np.arange(size), size, key) for key in range(keys)])
    # every element goes everywhere equally often, and neighbours are no likelier to stay neighbours
    counts = np.array([np.bincount(images[:, place], minlength=size) for place in range(size)])
    assert abs(counts - keys / size).max() < 5 * np.sqrt(keys / size)
    neighbours = (np.diff(images, axis=1) == 1).sum()
    expected = keys * (size - 1) / size
    assert abs(neighbours - expected) < 6 * np.sqrt(expected)


def test_an_index_outside_the_permutation_is_refused():
    with pytest.raises(IndexError, match="10 is outside a permutation of 10"):
        permuted(np.arange(11), 10, 0)
