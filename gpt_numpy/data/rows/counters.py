"""Random numbers as a function of arrays of counters: ``randomness.fold`` for arrays.

The order of batches must be the same on every machine and with every version of NumPy. The numbers therefore come
from a hash (SplitMix64: Steele, Lea & Flood 2014) and not from ``numpy.random``, whose streams may change between
versions. The hash is not for cryptography.
"""

import numpy as np

from ...randomness import fold

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_FEISTEL_ROUNDS = 6


def counter_hash(*counters):
    """A uint64 hash of integers or integer arrays, broadcast together; ``fold`` for each element."""
    state = np.uint64(0)
    with np.errstate(over="ignore"):
        for counter in counters:
            state = _splitmix64(state ^ _as_uint64(counter))
    return state


def permuted(indices, size, *key):
    """Where a permutation of ``range(size)``, chosen by the integers ``key``, sends ``indices`` (int64 array).

    A Feistel network over the next even power of two, walked until it lands inside the range (Black & Rogaway 2002,
    "Ciphers with arbitrary finite domains"): a bijection whatever the round function is, computed for the
    given indices only and never stored. The walk takes fewer than four steps on average.
    """
    half = np.uint64((max(int(size) - 1, 1).bit_length() + 1) // 2)
    mask = (np.uint64(1) << half) - np.uint64(1)
    round_keys = [np.uint64(fold(*key, round_number)) for round_number in range(_FEISTEL_ROUNDS)]
    values = np.array(indices, dtype=np.uint64, ndmin=1)
    if len(values) and values.max() >= size:
        raise IndexError(f"index {int(values.max())} is outside a permutation of {size}")
    walking = np.arange(values.size)
    flat = values.reshape(-1)
    while walking.size:
        left, right = flat[walking] >> half, flat[walking] & mask
        for round_key in round_keys:
            left, right = right, left ^ (_splitmix64(right ^ round_key) & mask)
        flat[walking] = left << half | right
        walking = walking[flat[walking] >= size]
    return values.astype(np.int64).reshape(np.shape(indices))


def _as_uint64(counter):
    if isinstance(counter, int):
        return np.uint64(counter % 2**64)
    return np.asarray(counter).astype(np.uint64)


def _splitmix64(bits):
    bits = bits + _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))
