"""Vector operations against NumPy, at the width this process was started with; run by test_vectors.py at every width."""

import math

import numba
import numpy as np
import pytest

from gpt_numpy.kernels.runtime import emitting
from gpt_numpy.kernels.runtime.decorators import kernel
from gpt_numpy.kernels.runtime.vectors import (
    absolute,
    add_lanes,
    add_lanes_of_four,
    bits,
    broadcast,
    convert,
    exp,
    exp2_of_negative,
    fma,
    gelu,
    gelu_derivative,
    keep_first,
    lane_index,
    lanes,
    load,
    load_tail,
    max_lanes,
    maximum,
    min_lanes,
    minimum,
    prefetch,
    read,
    sqrt,
    store,
    store_tail,
    tanh,
    where,
    write,
)

DTYPES = [np.float32, np.float64]
LENGTHS = [0, 1, 3, 4, 5, 8, 15, 16, 17, 63]


@kernel()
def arithmetic(x, y, out, n):
    step = lanes(x)
    for i in range(0, n, step):
        a, b = load_tail(x, i, n - i), load_tail(y, i, n - i)
        plus, minus, times = a + b, a - b, a * b
        store_tail(out, i, plus, n - i)
        store_tail(out, n + i, minus, n - i)
        store_tail(out, 2 * n + i, times, n - i)
        store_tail(out, 3 * n + i, a / (b + 9), n - i)
        store_tail(out, 4 * n + i, fma(a, b, 0.5), n - i)
        store_tail(out, 5 * n + i, maximum(a, b), n - i)
        store_tail(out, 6 * n + i, minimum(a, 0.25), n - i)
        store_tail(out, 7 * n + i, sqrt(absolute(a)), n - i)
        store_tail(out, 8 * n + i, where(a < b, -a, 2.0), n - i)
        store_tail(out, 9 * n + i, where((a >= 0.0) & (b != a), a, b), n - i)
        store_tail(out, 10 * n + i, 1 - a, n - i)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", LENGTHS)
def test_arithmetic_and_tails(dtype, n):
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((2, n)).astype(dtype)
    out = np.full(11 * n + 64, 77, dtype)
    arithmetic(x, y, out, n)
    expected = [
        x + y,
        x - y,
        x * y,
        x / (y + dtype(9)),
        x * y + dtype(0.5),
        np.maximum(x, y),
        np.minimum(x, dtype(0.25)),
        np.sqrt(np.abs(x)),
        np.where(x < y, -x, dtype(2)),
        np.where((x >= 0) & (y != x), x, y),
        dtype(1) - x,
    ]
    epsilon = np.finfo(dtype).eps
    np.testing.assert_allclose(out[: 11 * n].reshape(11, n), expected, rtol=8 * epsilon, atol=epsilon)
    assert (out[11 * n :] == 77).all(), "a tail store wrote past its count"


@kernel()
def reductions(x, out, n):
    total, high, low = broadcast(x, 0.0), broadcast(x, -np.inf), broadcast(x, np.inf)
    exact = convert(total, np.float64)
    i = 0
    while i + lanes(x) <= n:
        v = load(x, i)
        total += v
        exact += convert(v, np.float64)
        high, low = maximum(v, high), minimum(v, low)
        i += lanes(x)
    v = load_tail(x, i, n - i)
    total += v
    exact += convert(v, np.float64)
    high, low = maximum(keep_first(v, n - i, -np.inf), high), minimum(keep_first(v, n - i, np.inf), low)
    out[0], out[1], out[2], out[3] = add_lanes(total), max_lanes(high), min_lanes(low), add_lanes(exact)


@kernel()
def four_sums(x, out):
    width = lanes(x)
    together = add_lanes_of_four(load(x, 0), load(x, width), load(x, 2 * width), load(x, 3 * width))
    store(out, 4, together)
    for i in range(4):
        out[i] = add_lanes(load(x, i * width))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(20))
def test_four_sums_at_once_have_the_bits_of_each(dtype, seed):
    if emitting.native(numba.from_dtype(np.dtype(dtype))).lanes < 4:
        pytest.skip("needs four lanes")
    x = (np.random.default_rng(seed).standard_normal(64) * 10.0 ** np.arange(-4, 4).repeat(8)).astype(dtype)
    out = np.empty(32, dtype)
    four_sums(x, out)
    assert np.array_equal(out[:4], out[4:8])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", LENGTHS)
def test_reductions(dtype, n):
    x = (np.random.default_rng(n).standard_normal(n) - 3).astype(dtype)
    out = np.empty(4)
    reductions(x, out, n)
    assert out[0] == pytest.approx(x.sum(), rel=1e-5)
    assert (out[1], out[2]) == (x.max(initial=-np.inf), x.min(initial=np.inf))
    assert out[3] == pytest.approx(math.fsum(x.astype(np.float64)), rel=1e-14)


@kernel()
def hash_f32(out, key, n):
    for i in range(0, n, lanes(out)):
        x = (lane_index(out, np.uint32) + i) * 0x9E3779B9 + key
        x = (x ^ (x >> 16)) * 0x7FEB352D
        x = (x ^ (x >> 15)) * 0x846CA68B
        x = x ^ (x >> 16)
        store_tail(out, i, where(x >= 0x80000000, convert(x >> 8, np.float32), -1.0), n - i)


@kernel()
def hash_f64(out, key, n):
    for i in range(0, n, lanes(out)):
        x = (lane_index(out, np.uint32) + i) * 0x9E3779B9 + key
        x = (x ^ (x >> 16)) * 0x7FEB352D
        x = (x ^ (x >> 15)) * 0x846CA68B
        x = x ^ (x >> 16)
        store_tail(out, i, where(x >= 0x80000000, convert(x >> 8, np.float64), -1.0), n - i)


@pytest.mark.parametrize("function, dtype", [(hash_f32, np.float32), (hash_f64, np.float64)])
@pytest.mark.parametrize("n", LENGTHS)
def test_unsigned_integers_wrap_and_compare_as_unsigned(function, dtype, n):
    out = np.empty(n, dtype)
    function(out, 0xFEDCBA98, n)
    x = np.arange(n, dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(0xFEDCBA98)
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    x = x ^ (x >> 16)
    np.testing.assert_array_equal(out, np.where(x >= 0x80000000, (x >> 8).astype(dtype), dtype(-1)))


@kernel()
def signed_bits(x, out):
    v = bits(load(x, 0), np.int32)
    store(out, 0, (v >> 31) - (-v & 1) + where(v < 0, convert(lane_index(x, np.int32), np.int32), 5))


def test_signed_integers_and_bits():
    x = np.random.default_rng(0).standard_normal(16).astype(np.float32)
    out = np.zeros(16, np.int32)
    signed_bits(x, out)
    n, v = emitting.VECTOR_BYTES // 4, x.view(np.int32)
    expected = (v >> 31) - (-v & 1) + np.where(v < 0, np.arange(16), 5)
    np.testing.assert_array_equal(out[:n], expected[:n])
    assert not out[n:].any()


@kernel()
def single_elements(x, out):
    for i in range(x.size):
        prefetch(x, i + 1000)
        write(out, x.size - 1 - i, read(x, i) * x.dtype.type(2))


def test_read_and_write_single_elements():
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    out = np.empty_like(x)
    single_elements(x, out)
    np.testing.assert_array_equal(out.ravel(), 2 * x.ravel()[::-1])


@kernel()
def strided_rows(x, out):
    row_step = x.strides[0] // x.itemsize
    for row in range(x.shape[0]):
        for i in range(0, x.shape[1], lanes(x)):
            store_tail(out, row * x.shape[1] + i, load_tail(x, row * row_step + i, x.shape[1] - i), x.shape[1] - i)


def test_strided_view():
    x = np.random.default_rng(0).standard_normal((6, 50))[1::2, 7:29]
    out = np.empty(x.shape)
    strided_rows(x, out)
    np.testing.assert_array_equal(out, x)


@kernel()
def functions(x, out):
    for i in range(0, x.size, lanes(x)):
        v, n = load_tail(x, i, x.size - i), x.size - i
        store_tail(out, i, exp(v), n)
        store_tail(out, x.size + i, tanh(v), n)
        store_tail(out, 2 * x.size + i, gelu(v), n)
        store_tail(out, 3 * x.size + i, gelu_derivative(v), n)


def run_functions(x):
    out = np.empty((4, x.size), x.dtype)
    functions(x, out)
    return out


def units_apart(found, exact):
    """Distance in units in the last place of ``exact`` rounded to the type of ``found``."""
    return np.abs(found - exact) / np.spacing(np.abs(exact).astype(found.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_and_tanh_are_accurate(dtype):
    limit = 87 if dtype is np.float32 else 708
    rng = np.random.default_rng(0)
    x = np.concatenate([np.linspace(-limit, limit, 20001), np.geomspace(1e-30, 1, 2000), rng.normal(size=20000)])
    x = np.concatenate([x, -x]).astype(dtype)
    found, exact = run_functions(x), x.astype(np.longdouble)
    assert units_apart(found[0], np.exp(exact)).max() <= 2
    assert units_apart(found[1], np.tanh(exact)).max() <= 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_and_its_derivative_are_accurate(dtype):
    x = np.concatenate([np.linspace(-12, 12, 30001), np.geomspace(1e-30, 1, 2000)]).astype(dtype)
    found, exact = run_functions(x), x.astype(np.longdouble)
    slope = 2 * np.sqrt(2 / np.longdouble(np.pi))
    gate = 1 / (1 + np.exp(-slope * (exact + np.longdouble(0.044715) * exact**3)))
    expected = gate + exact * gate * (1 - gate) * slope * (1 + 3 * np.longdouble(0.044715) * exact**2)
    epsilon = np.finfo(dtype).eps
    assert (np.abs(found[2] - exact * gate) / np.maximum(1, np.abs(exact))).max() <= 2 * epsilon
    assert np.abs(found[3] - expected).max() <= 8 * epsilon


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype):
    big = 1e15
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e4, -1e4, big, -big, 0, 1, -1, np.nan], dtype)
    found_exp, found_tanh, found_gelu, derivative = run_functions(x)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found_exp, np.exp(x), rtol=1e-6)
    np.testing.assert_allclose(found_tanh, np.tanh(x), rtol=1e-6)
    np.testing.assert_array_equal(found_gelu[[0, 1, 2, 5, 6, 7, 8]], np.array([0, 0, np.inf, 1e4, 0, big, 0], dtype))
    np.testing.assert_array_equal(derivative[[0, 1, 5, 6, 7, 8]], np.array([0.5, 0.5, 1, 0, 1, 0], dtype))
    assert np.isnan(found_gelu[[4, 12]]).all() and np.isnan(derivative[[4, 12]]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_overflows_to_infinity_and_underflows_through_subnormals(dtype):
    low = -95.0 if dtype is np.float32 else -720.0
    x = np.array([low, -low + (0 if dtype is np.float32 else 10), low * 2], dtype)
    with np.errstate(over="ignore"):
        found, exact = run_functions(x)[0], np.exp(x.astype(np.longdouble)).astype(dtype)
    assert found[0] > 0 and found[0] == pytest.approx(exact[0], rel=1e-2)
    assert (found[1], found[2]) == (np.inf, 0)


@kernel()
def powers_of_two(x, out, n):
    for i in range(0, n, lanes(x)):
        store_tail(out, i, exp2_of_negative(load_tail(x, i, n - i)), n - i)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp2_of_negative(dtype):
    lowest = -126 if dtype == np.float32 else -1022
    x = np.concatenate([np.linspace(lowest, 0, 10_007), np.linspace(-1, 0, 1000), [1e-6]]).astype(dtype)
    out = np.empty_like(x)
    powers_of_two(x, out, len(x))
    np.testing.assert_allclose(out, np.exp2(x.astype(np.longdouble)), rtol=3e-7 if dtype == np.float32 else 4e-15)
    special = np.array([-np.inf, lowest - 1, lowest * 2, -1e30, np.nan, -0.0], dtype)
    powers_of_two(special, out, len(special))
    np.testing.assert_allclose(out[: len(special)], [0, 0, 0, 0, np.nan, 1], rtol=2e-7)
