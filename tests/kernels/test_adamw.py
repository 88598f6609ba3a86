import math

import numpy as np
import pytest

from gpt_numpy.errors import KernelError
from gpt_numpy.kernels import adamw as kernels

SEGMENTS = [
    (11, [0, 11], [0.1]),
    (1, [0, 0, 1, 1], [0.3, 0.1, 0.2]),
    (40_000, [0, 17, 17, 16_384, 33_001, 40_000], [0.1, 0.2, 0.0, 0.4, 0.3]),
    (0, [0], []),
]


@pytest.mark.parametrize(("N", "boundaries", "decays"), SEGMENTS)
def test_parity_over_three_steps(rng, assert_parity, N, boundaries, decays):
    start, gradients = rng.normal(size=N), rng.normal(size=(3, N))

    def call(ops, array):
        params, m, v = array(start), array(np.zeros(N)), array(np.zeros(N))
        for step, grads in enumerate(gradients, 1):
            ops.adamw_update(params, array(grads), m, v, boundaries, decays, 1e-2, 0.9, 0.95, 1e-8, step, 0.7)
        return params, m, v

    assert_parity(kernels, call, float32_bound=3e-6)


@pytest.mark.parametrize("N", [0, 1, 7, 16_384, 50_001])
def test_norm(rng, assert_parity, N):
    grads = rng.normal(size=N)
    assert_parity(kernels, lambda ops, array: ops.gradient_norm(array(grads)), float32_bound=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("start", [0, 1, 5])
@pytest.mark.parametrize("N", [0, 1, 3, 50_001, 5_000_000])
def test_clearing_reaches_every_element_and_no_other(rng, dtype, start, N):
    around = np.ones(N + 40, dtype)
    kernels.clear_gradients(around[start : start + N])
    assert not around[start : start + N].any() and around.sum() == 40


def test_norm_does_not_overflow_and_reports_nan():
    assert kernels.gradient_norm(np.full(100, 3e38, np.float32)) == pytest.approx(3e39)
    grads = np.ones(20_000, np.float32)
    grads[17_000] = np.nan
    assert math.isnan(kernels.gradient_norm(grads))
    grads[17_000] = -np.inf
    assert kernels.gradient_norm(grads) == math.inf


@pytest.mark.parametrize("boundaries", [[0, 9], [1, 10], [0, 11], [0, 7, 5, 10], [0]])
def test_segments_that_do_not_tile(boundaries):
    arrays = np.ones((4, 10))
    with pytest.raises(KernelError, match="boundaries"):
        kernels.adamw_update(*arrays, boundaries, np.zeros(max(len(boundaries) - 1, 1)), 1e-2, 0.9, 0.95, 1e-8, 1)


def test_arrays_that_cannot_be_updated():
    rest = ([0, 5], [0.1], 1e-2, 0.9, 0.95, 1e-8, 1)
    arrays = list(np.ones((4, 5)))
    with pytest.raises(KernelError, match="second_moments"):
        kernels.adamw_update(*arrays[:3], np.ones(6), *rest)
    with pytest.raises(KernelError, match="params"):
        kernels.adamw_update(np.ones(10)[::2], *arrays[1:], *rest)
    arrays[2].flags.writeable = False
    with pytest.raises(KernelError, match="first_moments: .*writeable"):
        kernels.adamw_update(*arrays, *rest)
