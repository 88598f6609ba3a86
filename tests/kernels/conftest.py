"""Fixtures of the kernels' tests: what a kernel is held to, and how close."""

import os

# Two threads even where there is one processor: races and thread counts are tested on any machine.
os.environ["NUMBA_NUM_THREADS"] = str(max(2, int(os.environ.get("NUMBA_NUM_THREADS") or os.cpu_count() or 1)))

import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.kernels.bpe import BPEEncoder
from gpt_numpy.kernels.runtime import threads


def _arrays(result):
    """The arrays and numbers in a result, caches left out."""
    if isinstance(result, (np.ndarray, float)):
        return [np.asarray(result)]
    if isinstance(result, tuple) and not hasattr(result, "_fields"):
        return [array for part in result for array in _arrays(part)]
    return []


@pytest.fixture
def rng():
    return np.random.default_rng(20170612)


@pytest.fixture
def assert_parity():
    """Hold an op of kernels to its twin in layers.

    ``call(ops, array)`` runs the op, forward and backward, with ``array`` turning float64 arrays into the type under
    test. float64 must agree within 1e-12 of the largest element of each result; float32 is compared with the
    float64 reference and must agree within ``float32_bound``. One thread and two must give the same bits.
    """

    def check(kernels, call, float32_bound, float64_bound=1e-12):
        expected = _arrays(call(layers, lambda x: np.array(x, np.float64)))
        for dtype, bound in ((np.float64, float64_bound), (np.float32, float32_bound)):
            before = threads.set_count(1)
            try:
                found = _arrays(call(kernels, lambda x: np.array(x, dtype)))
                threads.set_count(2)
                again = _arrays(call(kernels, lambda x: np.array(x, dtype)))
            finally:
                threads.set_count(before)
            assert len(found) == len(expected) > 0
            for a, b, e in zip(found, again, expected):
                assert a.shape == e.shape and (a.ndim == 0 or a.dtype == dtype)
                np.testing.assert_array_equal(a, b, err_msg="one thread and two differ")
                error = np.abs(a - e).max(initial=0) / max(np.abs(e).max(initial=0), np.finfo(np.float32).tiny)
                assert error <= bound, f"{dtype.__name__} {e.shape}: error {error:.2e}, bound {bound:.0e}"

    return check


@pytest.fixture(scope="session")
def encoder(gpt2):
    vocabulary = gpt2.vocabulary
    return BPEEncoder(vocabulary.byte_ids, vocabulary.merges, vocabulary.merged_ids)
