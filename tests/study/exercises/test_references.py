"""The small references are what the package does at full size."""

import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.inference.sampling import Sampling
from gpt_numpy.study import check_gradients
from gpt_numpy.study.exercises import references


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_one_head_is_attention(rng):
    q, k, v, dout = rng.standard_normal((4, 5, 3))
    whole = [a[None, :, None] for a in (q, k, v)]
    out, cache = layers.attention_forward(*whole)
    mine, my_cache = references.head_forward(q, k, v)
    assert np.allclose(mine, out[0, :, 0], rtol=1e-13)
    for a, b in zip(references.head_backward(dout, my_cache), layers.attention_backward(dout[None, :, None], cache)):
        assert np.allclose(a, b[0, :, 0], rtol=1e-12, atol=1e-14)
    assert check_gradients(references.head_forward, references.head_backward, dict(q=q, k=k, v=v)).passed


def test_a_cache_gives_the_rows_of_attention(rng):
    q, k, v = rng.standard_normal((3, 6, 2, 4))
    keys, values = np.full((2, 8, 2, 4), np.nan)
    out, _ = layers.attention_forward(q[None], k[None], v[None])
    for t in range(6):
        mine = references.attend_with_cache(q[t], k[t], v[t], keys, values, t)
        assert np.allclose(mine, out[0, t], rtol=1e-12)


@pytest.mark.parametrize("temperature, top_k, top_p", [(1.0, 11, 1.0), (0.7, 4, 1.0), (1.3, 11, 0.5), (0.9, 6, 0.8)])
def test_the_distribution_is_that_of_sampling(rng, temperature, top_k, top_p):
    logits = 2 * rng.standard_normal(11)
    ids, probabilities = Sampling(temperature=temperature, top_k=top_k, top_p=top_p).distribution(logits, [])
    expected = np.zeros(11)
    expected[ids] = probabilities
    assert np.allclose(references.next_token_probabilities(logits, temperature, top_k, top_p), expected, rtol=1e-12)


@pytest.mark.parametrize("tile", [1, 3, 8, 20])
def test_tiles_change_nothing(rng, tile):
    q, k, v = rng.standard_normal((3, 8, 4))
    weights = layers.attention.softmax(q @ k.T / 2)
    assert np.allclose(references.tiled_attention(q, k, v, tile), weights @ v, rtol=1e-12)


def test_the_kernel_is_softmax(rng):
    x, out = rng.standard_normal((2, 3, 7))
    references.softmax_rows(x, out)
    assert np.allclose(out, layers.attention.softmax(x), rtol=1e-13)
