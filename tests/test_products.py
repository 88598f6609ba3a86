"""Rounding to bfloat16: the nearest number, ties to even, in either type."""

import numpy as np
import pytest

from gpt_numpy.products import round_to_bfloat16


def neighbours(x):
    """The bfloat16 on either side of the float32 x, as float64."""
    bits = np.array([x], np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(np.float64), (bits + np.uint32(0x10000)).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_nearest_of_the_two_neighbours(dtype):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(2000) * 10.0 ** rng.integers(-37, 38, 2000)).astype(np.float32)
    found = round_to_bfloat16(x.astype(dtype))
    assert found.dtype == dtype
    for value, rounded in zip(x, found):
        low, high = neighbours(value)
        assert abs(rounded - np.float64(value)) == min(abs(low - value), abs(high - value))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_denormals_and_special_values(dtype):
    x = np.array([1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 2.0**-133], dtype)
    expected = [1, 1 + 4 * 2**-8, -1, 0, -0.0, np.inf, -np.inf, np.nan, np.inf, 2.0**-133]
    found = round_to_bfloat16(x)
    np.testing.assert_array_equal(found, np.array(expected, dtype))
    assert np.signbit(found[4])


def test_both_types_agree_and_float64_is_rounded_once():
    rng = np.random.default_rng(1)
    x = (rng.standard_normal(1000) * 10.0 ** rng.integers(-44, 38, 1000)).astype(np.float32)
    np.testing.assert_array_equal(round_to_bfloat16(x), round_to_bfloat16(x.astype(np.float64)))
    assert round_to_bfloat16(np.float64([1 + 2**-8 + 2**-40]))[0] == 1 + 2**-7  # by way of float32: a tie, and 1
