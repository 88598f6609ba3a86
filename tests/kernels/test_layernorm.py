import numpy as np
import pytest

from gpt_numpy import kernels as all_kernels
from gpt_numpy.errors import KernelError
from gpt_numpy.kernels import layernorm as kernels


@pytest.mark.parametrize("shape", [(2, 5, 12), (1, 1, 1), (3, 67), (700, 16), (2, 3, 768), (0, 4)])
def test_parity(rng, assert_parity, shape):
    x, dout, weight, bias = 3 * rng.normal(size=shape) + 1, rng.normal(size=shape), *rng.normal(size=(2, shape[-1]))

    def call(ops, array):
        out, cache = ops.layernorm_forward(array(x), array(weight), array(bias), epsilon=1e-3)
        gradients = ops.layernorm_backward(array(dout), cache)
        into = (array(weight), array(bias))
        added = ops.layernorm_backward(array(dout), cache, into=into)
        assert added[1] is into[0] and added[2] is into[1]
        return out, gradients, added

    assert_parity(kernels, call, float32_bound=2e-6)


def test_a_mean_far_from_zero_keeps_its_variance(rng, assert_parity):
    x, dout, weight, bias = 1000 + rng.normal(size=(3, 64)), rng.normal(size=(3, 64)), *rng.normal(size=(2, 64))

    def call(ops, array):
        out, cache = ops.layernorm_forward(array(x), array(weight), array(bias))
        return out, ops.layernorm_backward(array(dout), cache)

    # rounding x itself to float32 moves it by up to 3e-5 of its standard deviation
    assert_parity(kernels, call, float32_bound=2e-4, float64_bound=1e-11)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_element_spoils_its_row_and_no_other(rng, bad):
    x = rng.normal(size=(4, 20))
    x[2, 3] = bad
    out, cache = kernels.layernorm_forward(x, np.ones(20), np.zeros(20))
    assert np.isnan(out[2]).any() and np.isfinite(out[[0, 1, 3]]).all()
    dx, dweight, _ = kernels.layernorm_backward(np.ones((4, 20)), cache)
    assert np.isnan(dx[2]).any() and np.isfinite(dx[[0, 1, 3]]).all() and np.isnan(dweight).any()


def test_arrays_that_do_not_fit():
    x = np.ones((2, 6))
    with pytest.raises(KernelError, match="weight"):
        kernels.layernorm_forward(x, np.ones(5), np.ones(6))
    with pytest.raises(KernelError, match="bias"):
        kernels.layernorm_forward(x, np.ones(6), np.ones(7))
    _, cache = kernels.layernorm_forward(x, np.ones(6), np.ones(6))
    with pytest.raises(KernelError, match="dout"):
        kernels.layernorm_backward(np.ones((6, 2)), cache)
    with pytest.raises(KernelError, match="dbias"):
        kernels.layernorm_backward(x, cache, into=(np.zeros(6), np.zeros(6, np.float32)))
    with pytest.raises(KernelError, match="contiguous"):
        kernels.layernorm_backward(x, cache, into=(np.zeros(12)[::2], np.zeros(6)))


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("shape", [(2, 5, 12), (3, 67), (300, 16)])
def test_the_gradient_that_passed_the_branch_is_added_to_dx(rng, assert_parity, shape, norm):
    x, dout, dstream, weight = *rng.normal(size=(3, *shape)), rng.normal(size=shape[-1])

    def call(ops, array):
        weights = (array(weight), None) if norm == "layernorm" else (array(weight),)
        _, cache = getattr(ops, f"{norm}_forward")(array(x), *weights)
        backward, stream = getattr(ops, f"{norm}_backward"), array(dstream)
        dx, *dweights = backward(array(dout), cache, dstream=stream)
        alone, *same = backward(array(dout), cache)
        np.testing.assert_array_equal(dx, alone + stream)
        np.testing.assert_array_equal(stream, array(dstream))
        np.testing.assert_array_equal(dweights[0], same[0])
        with pytest.raises(KernelError, match="dstream"):
            backward(array(dout), cache, dstream=stream[:1])
        return dx, dweights[0]

    assert_parity(all_kernels, call, float32_bound=2e-6)
