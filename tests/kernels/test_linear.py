import numpy as np
import pytest

from gpt_numpy.errors import KernelError
from gpt_numpy.kernels import linear as kernels


@pytest.mark.parametrize("shape, N", [((2, 5, 3), 4), ((1, 1, 1), 1), ((7, 65), 67), ((3, 50, 96), 131), ((0, 3), 2)])
def test_parity(rng, assert_parity, shape, N):
    x, dout = rng.normal(size=shape), rng.normal(size=(*shape[:-1], N))
    weight, bias, more = rng.normal(size=(shape[-1], N)), rng.normal(size=N), rng.normal(size=(shape[-1], N))

    def call(ops, array):
        out, cache = ops.linear_forward(array(x), array(weight), array(bias))
        gradients = ops.linear_backward(array(dout), cache)
        into = (array(more), array(bias))
        added = ops.linear_backward(array(dout), cache, into=into)
        assert added[1] is into[0] and added[2] is into[1]
        return out, gradients, added

    assert_parity(kernels, call, float32_bound=3e-6)


def test_strided_inputs_and_alloc(rng):
    wide, weight, bias = rng.normal(size=(4, 6, 10)), rng.normal(size=(7, 5)).T, rng.normal(size=14)[::2]
    taken = []

    def alloc(shape, dtype):
        taken.append(np.full(shape, np.nan, dtype))
        return taken[-1]

    out, cache = kernels.linear_forward(wide[:, -1, ::2], weight, bias, alloc)
    np.testing.assert_allclose(out, wide[:, -1, ::2] @ weight + bias, rtol=1e-13)
    dx, dweight, dbias = kernels.linear_backward(out, cache, alloc)
    assert out is taken[0] and dx is taken[1]
    np.testing.assert_allclose(dx, out @ weight.T, rtol=1e-13)
    np.testing.assert_allclose(dweight, wide[:, -1, ::2].T @ out, rtol=1e-12, atol=1e-13)


def test_arrays_that_do_not_fit():
    x, weight, bias = np.ones((2, 3)), np.ones((3, 4)), np.ones(4)
    for bad, match in [
        ((x, np.ones((4, 4)), bias), "weight"),
        ((x, weight, np.ones(3)), "bias"),
        ((x.astype(np.float32), weight, bias), "weight"),
        ((x.astype(int), weight, bias), "float"),
    ]:
        with pytest.raises(KernelError, match=match):
            kernels.linear_forward(*bad)
    out, cache = kernels.linear_forward(x, weight, bias)
    with pytest.raises(KernelError, match="dout"):
        kernels.linear_backward(out[:, :3], cache)
    with pytest.raises(KernelError, match="dweight"):
        kernels.linear_backward(out, cache, into=(np.zeros((4, 3)), np.zeros(4)))
    with pytest.raises(KernelError, match="contiguous"):
        kernels.linear_backward(out, cache, into=(np.zeros((4, 3)).T, np.zeros(4)))
    with pytest.raises(KernelError, match="into"):
        kernels.linear_backward(out, cache, into=(np.zeros((3, 4)),))
