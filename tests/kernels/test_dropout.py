import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.errors import KernelError
from gpt_numpy.kernels import dropout as kernels
from gpt_numpy.kernels import residual
from gpt_numpy.randomness import Dropout

KEYS = [0, 0xFFFFFFFFFFFFFFFF, 0x0123456789ABCDEF]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("shape", [(2, 5, 3, 11), (1, 1), (3, 70), (17,), (0, 5)])
@pytest.mark.parametrize("probability", [0.0, 0.1, 0.999])
def test_same_bits_as_the_specification(rng, dtype, key, shape, probability):
    x = rng.normal(size=shape).astype(dtype)
    for first_sequence in (0, 7, 2**31):
        dropout = Dropout(probability, key, first_sequence)
        found, cache = kernels.dropout_forward(x, dropout)
        expected, expected_cache = layers.dropout_forward(x, dropout)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(kernels.dropout_backward(x, cache), layers.dropout_backward(x, expected_cache))


def test_nan_and_infinity_come_through_where_kept():
    x = np.full((2, 64), np.nan, np.float32)
    x[1] = np.inf
    found, _ = kernels.dropout_forward(x, Dropout(0.5, 3))
    with np.errstate(invalid="ignore"):
        expected, _ = layers.dropout_forward(x, Dropout(0.5, 3))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("probability", [-0.1, 1.0, float("nan")])
def test_probability_out_of_range(probability):
    with pytest.raises(KernelError, match="probability"):
        kernels.dropout_forward(np.ones((2, 3)), Dropout(probability, 1))


@pytest.mark.parametrize("shape", [(2, 5, 12), (3, 70), (1, 1, 1), (0, 5, 3)])
@pytest.mark.parametrize("dropout", [None, Dropout(0.3, KEYS[2], 4)])
def test_residual(rng, assert_parity, shape, dropout):
    x, branch, dout = rng.normal(size=(3, *shape))

    def call(ops, array):
        out, cache = ops.residual_forward(array(x), array(branch), dropout)
        return out, ops.residual_backward(array(dout), cache)

    assert_parity(residual, call, float32_bound=2e-7)


def test_residual_of_arrays_that_do_not_fit():
    with pytest.raises(KernelError, match=r"branch: .*\(2, 4\).*\(2, 3\)"):
        residual.residual_forward(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(KernelError, match="two types"):
        residual.residual_forward(np.ones((2, 3)), np.ones((2, 3), np.float32))
