"""Randomness as a function: the same counters give the same numbers, on every machine and in any order.

``counter_hash`` chains the finaliser of SplitMix64 (Steele, Lea & Flood 2014) over its arguments. It is not
for cryptography. It is written out here, and does not use ``numpy.random``, because the order of batches is promised
to stay what it is, and NumPy does not promise its streams across versions.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def counter_hash(*counters):
    """A uint64 hash of integers or integer arrays (broadcast together); negative ones count modulo 2⁶⁴."""
    state = np.uint64(0)
    with np.errstate(over="ignore"):
        for counter in counters:
            state = _mix(state ^ _mix(_as_uint64(counter) + _GOLDEN))
    return state


def _as_uint64(counter):
    if isinstance(counter, int):
        return np.uint64(counter % 2**64)
    return np.asarray(counter).astype(np.uint64)


def _mix(bits):
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))
