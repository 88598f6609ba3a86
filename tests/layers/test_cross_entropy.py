import math

import numpy as np
import pytest

from gpt_numpy import layers

B, T, V = 2, 5, 11


def make(rng):
    targets = rng.integers(0, V, (B, T))
    targets[0, 2] = targets[1, 4] = -1
    return 3 * rng.normal(size=(B, T, V)), targets


def test_gradients(prove_gradients):
    prove_gradients("cross-entropy", {"": B * T * V, "another ignore_index": B * T * V})


def test_mean_over_the_counted_rows(rng):
    logits, targets = make(rng)
    loss, _ = layers.cross_entropy_forward(logits, targets)
    losses = [
        -math.log(math.exp(row[y]) / sum(map(math.exp, row)))
        for row, y in zip(logits.reshape(-1, V).tolist(), targets.ravel())
        if y != -1
    ]
    assert len(losses) == B * T - 2
    assert isinstance(loss, float) and math.isclose(loss, sum(losses) / len(losses), rel_tol=1e-13)


def test_equal_logits_cost_log_v():
    loss, _ = layers.cross_entropy_forward(np.full((B, T, V), 3.7), np.zeros((B, T), int))
    assert math.isclose(loss, math.log(V), rel_tol=1e-14)


def test_the_gradient_of_each_row_sums_to_zero_and_ignored_rows_have_none(rng):
    logits, targets = make(rng)
    _, cache = layers.cross_entropy_forward(logits, targets)
    dlogits = layers.cross_entropy_backward(0.7, cache)
    assert np.abs(dlogits.sum(axis=-1)).max() < 1e-15
    assert not dlogits[targets == -1].any()
    at_target = np.take_along_axis(dlogits, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    assert (at_target[targets != -1] < 0).all() and (np.sort(dlogits, axis=-1)[..., 1:][targets != -1] > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_do_not_overflow(dtype):
    logits = np.array([[1e4, 0, -1e4], [-100, -100, -100]], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, cache = layers.cross_entropy_forward(logits, np.array([1, 2]))
        dlogits = layers.cross_entropy_backward(1.0, cache)
    assert math.isclose(loss, (1e4 + math.log(3)) / 2, rel_tol=1e-5)
    np.testing.assert_allclose(dlogits[0], [0.5, -0.5, 0], atol=1e-7)
    assert dlogits.dtype == dtype


def test_no_digit_is_lost_where_all_logits_are_far_from_zero(rng):
    logits, targets = (rng.integers(-8, 8, (6, 7)) / 4).astype(np.float32), rng.integers(0, 7, 6)
    near = layers.cross_entropy_forward(logits, targets)
    far = layers.cross_entropy_forward(logits + np.float32(2**20), targets)  # exact: quarters below 2^21
    assert near[0] == far[0]
    gradients = [layers.cross_entropy_backward(1.0, cache) for _, cache in (near, far)]
    np.testing.assert_array_equal(*gradients)


def test_no_counted_row_at_all(rng):
    logits, targets = make(rng)
    loss, cache = layers.cross_entropy_forward(logits, np.full_like(targets, -1))
    assert loss == 0 and not layers.cross_entropy_backward(1.0, cache).any()


def test_ignore_index_may_be_a_token(rng):
    logits, targets = make(rng)
    as_token = np.where(targets == -1, 7, targets)
    count = (as_token != 7).sum()
    loss, cache = layers.cross_entropy_forward(logits, as_token, ignore_index=7)
    rows = np.flatnonzero(as_token != 7)
    alone, _ = layers.cross_entropy_forward(logits.reshape(-1, V)[rows], as_token.ravel()[rows])
    assert 0 < count < B * T and math.isclose(loss, alone, rel_tol=1e-14)
    assert not layers.cross_entropy_backward(1.0, cache)[as_token == 7].any()


def test_results_lie_where_alloc_says(rng, counting_alloc):
    logits, targets = make(rng)
    _, cache = layers.cross_entropy_forward(logits, targets, alloc=counting_alloc)
    dlogits = layers.cross_entropy_backward(1.0, cache, counting_alloc)
    assert counting_alloc.owns(dlogits) and dlogits.shape == logits.shape
