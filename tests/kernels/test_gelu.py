import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.errors import KernelError
from gpt_numpy.kernels import gelu as kernels


@pytest.mark.parametrize("shape", [(1,), (2, 5, 12), (3, 2731), (0, 4), (40_001,)])
def test_parity(rng, assert_parity, shape):
    x, dout = 3 * rng.normal(size=shape), rng.normal(size=shape)
    x.flat[:1] = 0.7  # alone, an x far below 0 would show the reference's own cancellation in 1 + tanh

    def call(ops, array):
        out, cache = ops.gelu_forward(array(x))
        return out, ops.gelu_backward(array(dout), cache)

    assert_parity(kernels, call, float32_bound=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(dtype):
    largest = np.finfo(dtype).max
    x = np.array([-np.inf, -largest, -1e4, -50, -0.0, 0.0, 50, 1e4, largest, np.inf, np.nan, 1.0], dtype)
    out, cache = kernels.gelu_forward(x)
    expected, expected_cache = layers.gelu_forward(x)
    np.testing.assert_allclose(out, expected, rtol=4e-7, atol=1e-30)
    dx = kernels.gelu_backward(np.ones_like(x), cache)
    np.testing.assert_allclose(dx, layers.gelu_backward(np.ones_like(x), expected_cache), rtol=4e-7, atol=1e-30)


def test_strided_input_and_memory_from_alloc(rng):
    x, memory = rng.normal(size=(6, 10))[:, ::2], np.empty((6, 5))
    out, _ = kernels.gelu_forward(x, alloc=lambda shape, dtype: memory)
    assert out is memory
    np.testing.assert_allclose(out, layers.gelu_forward(x)[0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.complex64])
def test_other_types_are_refused(dtype):
    with pytest.raises(KernelError, match="x: .*float32 or float64"):
        kernels.gelu_forward(np.ones(3, dtype))
    _, cache = kernels.gelu_forward(np.ones(3))
    with pytest.raises(KernelError, match="dout"):
        kernels.gelu_backward(np.ones(3, dtype), cache)
    with pytest.raises(KernelError, match="dout"):
        kernels.gelu_backward(np.ones(4), cache)
