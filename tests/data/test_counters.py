"""The counter hash: fixed values, no dependence on shape, no visible pattern."""

import numpy as np

from gpt_numpy.data.counters import counter_hash


def splitmix_finaliser(bits):
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
    return bits ^ (bits >> 31)


def reference(*counters):
    state = 0
    for counter in counters:
        state = splitmix_finaliser(state ^ splitmix_finaliser((counter + 0x9E3779B97F4A7C15) % 2**64))
    return state


def test_equals_the_same_in_python_integers():
    for counters in ((0,), (0, 0), (1, 2, 3), (-1, 2**63, 2**64 - 1), (12345, 67)):
        assert int(counter_hash(*counters)) == reference(*counters)
    # the first output of SplitMix64 seeded with 0, as published with it
    assert splitmix_finaliser(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_arrays_broadcast_and_equal_scalars():
    rows = np.arange(7)
    assert counter_hash(5, 6, rows).tolist() == [reference(5, 6, row) for row in range(7)]
    assert counter_hash(5, rows[:, None], rows).shape == (7, 7)
    assert counter_hash(np.int32(5), 6, 3) == reference(5, 6, 3)


def test_is_uniform_and_each_counter_matters():
    hashes = counter_hash(np.arange(100)[:, None], np.arange(200))
    assert len(np.unique(hashes)) == hashes.size
    counts = np.bincount((hashes % np.uint64(10)).astype(int).ravel(), minlength=10)
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000 * 0.9)
    bits = np.unpackbits(hashes.view(np.uint8))
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(bits.size)
