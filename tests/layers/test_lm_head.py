import math

import numpy as np

from gpt_numpy import layers

B, T, C, V = 2, 5, 3, 11


def make(rng):
    targets = rng.integers(0, V, (B, T))
    targets[1, 0] = -1
    return rng.normal(size=(B, T, C)), rng.normal(size=(V, C)), targets


def test_gradients(prove_gradients):
    prove_gradients("lm-head", {"": 2 * 5 * 12 + 11 * 12})


def test_gradients_with_the_loss(prove_gradients):
    entries = 2 * 5 * 12 + 11 * 12
    prove_gradients("lm-head-cross-entropy", {"": entries, "gradients at once": entries})


def test_a_logit_is_the_product_with_the_tokens_own_embedding(rng):
    x, wte, _ = make(rng)
    logits, _ = layers.lm_head_forward(x, wte)
    for b, t, v in np.ndindex(B, T, V):
        np.testing.assert_allclose(
            logits[b, t, v], sum(x[b, t, c] * wte[v, c] for c in range(C)), rtol=1e-12, atol=1e-15
        )


def test_with_the_loss_is_the_composition(rng):
    x, wte, targets = make(rng)
    logits, _ = layers.lm_head_forward(x, wte)
    expected, _ = layers.cross_entropy_forward(logits, targets)
    loss, cache = layers.lm_head_cross_entropy_forward(x, wte, targets)
    assert isinstance(loss, float) and math.isclose(loss, expected, rel_tol=1e-14)
    at_once = layers.lm_head_cross_entropy_gradients(x, wte, targets, 0.3)
    assert at_once[0] == loss
    for a, b in zip(at_once[1:], layers.lm_head_cross_entropy_backward(0.3, cache)):
        np.testing.assert_array_equal(a, b)


def test_at_once_adds_into_and_returns_the_loss_first(rng):
    x, wte, targets = make(rng)
    _, dx, dwte = layers.lm_head_cross_entropy_gradients(x, wte, targets, 0.3)
    into = np.full((V, C), 5.0)
    loss, dx_again, returned = layers.lm_head_cross_entropy_gradients(x, wte, targets, 0.3, into=(into,))
    assert returned is into
    np.testing.assert_array_equal(dx_again, dx)
    np.testing.assert_allclose(into, 5 + dwte, rtol=1e-14)


def test_a_scaled_loss_scales_the_gradients(rng):
    x, wte, targets = make(rng)
    _, cache = layers.lm_head_cross_entropy_forward(x, wte, targets)
    for once, twice in zip(
        layers.lm_head_cross_entropy_backward(1.0, cache), layers.lm_head_cross_entropy_backward(2.0, cache)
    ):
        np.testing.assert_allclose(twice, 2 * once, rtol=1e-14)
