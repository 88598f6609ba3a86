import math

import numpy as np
import pytest

from gpt_numpy import layers

N = 70_001  # longer than one of the update's inner blocks
BOUNDARIES = np.array([0, 3, 40_000, N])
DECAYS = np.array([0.1, 0.0, 0.5])


def one_by_one(p, g, m, v, decay, step, learning_rate, beta1, beta2, epsilon, scale):
    """Algorithm 2 of the paper, a single number, in Python."""
    g = g * scale
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return p - learning_rate * (m_hat / (math.sqrt(v_hat) + epsilon) + decay * p), m, v


def test_three_steps_element_by_element(rng):
    p, m, v = rng.normal(size=N), np.zeros(N), np.zeros(N)
    settings = dict(learning_rate=0.01, beta1=0.8, beta2=0.9, epsilon=1e-3)
    watched = [0, 2, 3, 39_999, 40_000, 65_535, 65_536, N - 1]
    expected = {i: (p[i], 0.0, 0.0) for i in watched}
    for step, scale in ((1, 1.0), (2, 0.5), (3, 2.0)):
        g = rng.normal(size=N)
        before = g.copy()
        layers.adamw_update(p, g, m, v, BOUNDARIES, DECAYS, step=step, gradient_scale=scale, **settings)
        np.testing.assert_array_equal(g, before)
        for i in watched:
            decay = DECAYS[np.searchsorted(BOUNDARIES, i, side="right") - 1]
            pi, mi, vi = expected[i]
            expected[i] = one_by_one(pi, g[i], mi, vi, decay, step, scale=scale, **settings)
    for i in watched:
        np.testing.assert_allclose((p[i], m[i], v[i]), expected[i], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_first_step_moves_by_the_learning_rate_against_the_gradients_sign(rng, dtype):
    p = rng.normal(size=N).astype(dtype)
    g = rng.choice([-3.0, 1e-3], N).astype(dtype)
    before = p.copy()
    m, v = np.zeros((2, N), dtype)
    layers.adamw_update(p, g, m, v, np.array([0, N]), np.array([0.0]), 0.01, 0.9, 0.999, 1e-12, step=1)
    np.testing.assert_allclose(p - before, -0.01 * np.sign(g), rtol=1e-4, atol=1e-6)
    assert p.dtype == dtype


def test_gradient_norm(rng):
    g = rng.normal(size=200_003).astype(np.float32)
    exact = math.sqrt(math.fsum(float(x) ** 2 for x in g))
    assert math.isclose(layers.gradient_norm(g), exact, rel_tol=1e-13)
    assert layers.gradient_norm(np.zeros(0, np.float32)) == 0
    assert layers.gradient_norm(np.full(3, 1e30, np.float32)) > 1e30  # in float32 the squares would overflow
    assert math.isnan(layers.gradient_norm(np.array([1, np.nan], np.float32)))
