import math

import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.errors import KernelError
from gpt_numpy.kernels import cross_entropy as kernels
from gpt_numpy.kernels.cross_entropy import replace_by_gradients


@pytest.mark.parametrize("shape", [(2, 5, 11), (1, 1, 1), (3, 4099), (2, 3, 9001), (300, 65), (0, 4)])
@pytest.mark.parametrize("ignore_index", [-1, 0, -100])
def test_parity(rng, assert_parity, shape, ignore_index):
    logits = 5 * rng.normal(size=shape)
    targets = rng.integers(0, shape[-1], shape[:-1])
    targets[rng.random(shape[:-1]) < 0.3] = ignore_index

    def call(ops, array):
        loss, cache = ops.cross_entropy_forward(array(logits), targets, ignore_index)
        return loss, ops.cross_entropy_backward(0.7, cache)

    assert_parity(kernels, call, float32_bound=2e-6)


def test_nothing_counts():
    loss, cache = kernels.cross_entropy_forward(np.ones((3, 5), np.float32), np.full(3, -1))
    assert loss == 0 and not kernels.cross_entropy_backward(1.0, cache).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_and_infinite_logits(dtype):
    logits = np.full((4, 5000), -1e4, dtype)
    logits[0, 4999] = 1e4
    logits[1, :4500] = -np.inf  # whole chunks without weight, first
    logits[2, 4500:] = -np.inf  # … and last
    logits[3] = 3e38 if dtype == np.float32 else 1e308
    targets = np.array([4999, 4999, 0, 7])
    loss, cache = kernels.cross_entropy_forward(logits, targets)
    # equal logits share the weight evenly; the reference would lose the last row's loss next to 1e308
    assert loss == pytest.approx((math.log(500) + math.log(4500) + math.log(5000)) / 4, rel=1e-6)
    dlogits = kernels.cross_entropy_backward(1.0, cache)
    _, exact_cache = layers.cross_entropy_forward(logits.astype(np.float64), targets)
    expected = layers.cross_entropy_backward(1.0, exact_cache)
    np.testing.assert_allclose(dlogits[:3], expected[:3], atol=1e-7 if dtype == np.float32 else 1e-15)


def test_nan_spoils_the_loss_and_its_own_row(rng):
    logits = rng.normal(size=(3, 20))
    logits[1, 13] = np.nan
    loss, cache = kernels.cross_entropy_forward(logits, np.array([1, 2, 3]))
    assert math.isnan(loss)
    dlogits = kernels.cross_entropy_backward(1.0, cache)
    assert np.isnan(dlogits[1]).all() and np.isfinite(dlogits[[0, 2]]).all()


@pytest.mark.parametrize("bad", [-2, 11])
def test_targets_out_of_range(bad):
    targets = np.zeros((2, 3), np.int32)
    targets[1, 1] = bad
    with pytest.raises(KernelError, match=rf"targets: .*\(1, 1\): found {bad}"):
        kernels.cross_entropy_forward(np.ones((2, 3, 11)), targets)
    with pytest.raises(KernelError, match="targets"):
        kernels.cross_entropy_forward(np.ones((2, 3, 11)), np.zeros((3, 2), int))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_replacing_logits_by_gradients_has_the_bits_of_the_two_ops(rng, dtype):
    logits = rng.standard_normal((37, 131)).astype(dtype) * 5
    logits[3] = -np.inf
    logits[3, 7] = 2
    targets = rng.integers(0, 131, 37)
    targets[3], targets[[1, 5]] = 7, -1
    expected, cache = kernels.cross_entropy_forward(logits, targets)
    dlogits = kernels.cross_entropy_backward(0.7, cache)
    losses, weight = np.full(37, np.nan), np.array([0.7 / 35], dtype)
    replace_by_gradients(logits, targets, -1, losses, weight)
    assert losses.sum() / 35 == expected
    np.testing.assert_array_equal(logits, dlogits)
