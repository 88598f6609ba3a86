"""Attention of one query a head over cached keys: heads that share keys are taken together, with the bits of each alone."""

import numpy as np
import pytest

from gpt_numpy import GPTConfig
from gpt_numpy.inference import KVCache
from gpt_numpy.kernels.decoding.cached_attention import KEYS, attend, scratch_size
from gpt_numpy.kernels.runtime.decorators import kernel
from gpt_numpy.kernels.runtime.emitting import Rows

GUARD = 64  # numbers behind the memory that `attend` may use


@kernel()
def run_attend(q, heads, keys, values, start, count, scale, out, memory, size):
    attend(
        Rows(q, 0, size),
        heads,
        Rows(keys, start, size),
        Rows(values, start, size),
        count,
        scale,
        Rows(out, 0, size),
        memory,
    )


def attended(q, keys, values, first=0):
    """The kernel's output (heads, size) for queries (heads, size) that see keys[first:], in scratch of the least size."""
    (heads, size), count = q.shape, len(keys) - first
    used = scratch_size(heads, size, count)
    memory, out = np.full(used + GUARD, np.float32(7)), np.full_like(q, np.nan)
    arrays = q.reshape(-1), heads, keys.reshape(-1), values.reshape(-1)
    run_attend(*arrays, first * size, count, np.float32(0.3), out.reshape(-1), memory, size)
    assert (memory[used:] == 7).all()
    return out


@pytest.mark.parametrize("size", [3, 10, 16, 64, 80, 131])
@pytest.mark.parametrize("heads", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 5, KEYS - 1, KEYS, KEYS + 1, 3 * KEYS, 3 * KEYS + 7])
def test_heads_together_are_as_each_alone(size, heads, count):
    rng = np.random.default_rng(size * count + heads)
    q = rng.standard_normal((heads, size), dtype=np.float32)
    keys, values = rng.standard_normal((2, count + 2, size), dtype=np.float32)
    found = attended(q, keys, values, first=2)
    for head in range(heads):
        assert np.array_equal(attended(q[head : head + 1], keys, values, first=2)[0], found[head])
    scores = 0.3 * (q.astype(np.float64) @ keys[2:].T.astype(np.float64))
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = weights / weights.sum(axis=1, keepdims=True) @ values[2:].astype(np.float64)
    assert np.abs(found - expected).max() < 2e-5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keys_and_values_begin_on_cache_lines(dtype):
    for batch in (1, 3):
        cache = KVCache(GPTConfig(11, block_size=50, n_layer=2, n_head=4, n_embd=8), batch, 37, dtype)
        cache.lengths[:] = 5
        for made in (cache, cache.__copy__()):
            assert made.keys.ctypes.data % 64 == made.values.ctypes.data % 64 == 0
