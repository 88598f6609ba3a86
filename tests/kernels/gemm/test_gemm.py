"""The vector GEMM against NumPy's: every transpose, epilogue and edge; the same bits at any thread count."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt_numpy.errors import ConfigError
from gpt_numpy.kernels import gemm as module
from gpt_numpy.kernels.gemm import gemm_vectors
from gpt_numpy.kernels.gemm.numpy_twin import BIAS, BIAS_GELU, BIAS_GELU_KEEP, GELU_BACKWARD, NOTHING, gemm_numpy
from gpt_numpy.kernels.gemm.tile import Tile, choose_tile
from gpt_numpy.kernels.runtime import emitting, threads
from gpt_numpy.products import PRODUCTS, round_to_bfloat16

# M, N, K: one element; less than a tile; edges on every side; several tasks and blocks of rows, columns and depth; whole
# columns, where rows of A are read where they lie.
SIZES = [(1, 1, 1), (1, 37, 20), (37, 1, 5), (7, 17, 9), (12, 32, 16), (101, 83, 67), (150, 1700, 30), (40, 90, 1601)]
SIZES += [(197, 96, 1604)]
TRANSPOSES = list(itertools.product((False, True), repeat=2))


def make(rng, dtype, M, N, K, a_transposed, b_transposed):
    a = rng.standard_normal((K, M) if a_transposed else (M, K)).astype(dtype)
    b = rng.standard_normal((N, K) if b_transposed else (K, N)).astype(dtype)
    return a, b


def assert_close(found, expected, dtype, K):
    # Sums of K products of unit scale, in another order: the error grows with the root of K.
    bound = 20 * np.finfo(dtype).eps * np.sqrt(K) * max(np.abs(expected).max(initial=0), 1)
    assert np.abs(found - expected).max(initial=0) <= bound


def run(gemm, a, b, out, options, outputs):
    """Run on copies; returns what was written."""
    out, outputs = out.copy(), {name: array.copy() for name, array in outputs.items()}
    gemm(a, b, out, **options, **outputs)
    return {"out": out, **outputs}


@pytest.mark.parametrize(
    "dtype, products", [(np.float32, "float32"), (np.float64, "float32"), (np.float32, "bfloat16")]
)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("transposes", TRANSPOSES)
def test_every_epilogue_against_numpy(rng, dtype, products, size, transposes):
    M, N, K = size
    a, b = make(rng, dtype, *size, *transposes)
    scale = dtype(1 / np.sqrt(K))  # GELU of large values would hide errors
    a *= scale
    extra, activation, out = rng.standard_normal((3, M, N)).astype(dtype)
    bias, sums = rng.standard_normal((2, N)).astype(dtype)
    for epilogue, add in [
        (NOTHING, False),
        (NOTHING, True),
        (BIAS, False),
        (BIAS_GELU, False),
        (BIAS_GELU_KEEP, False),
        (GELU_BACKWARD, False),
        (GELU_BACKWARD, True),
    ]:
        options = dict(
            a_transposed=transposes[0],
            b_transposed=transposes[1],
            epilogue=epilogue,
            add=add,
            bias=bias,
            add_sums=add,
            products=products,
        )
        outputs = dict(extra=extra, activation=activation, sums=sums)
        expected = run(gemm_numpy, a, b, out, options, outputs)
        found = run(gemm_vectors, a, b, out, options, outputs)
        for name in expected:
            assert_close(found[name], expected[name], dtype, K)


@pytest.mark.parametrize("products", PRODUCTS)
def test_thread_counts_and_neighbours_do_not_change_a_bit(rng, products):
    a, b = make(rng, np.float32, 203, 311, 1700, False, False)
    results = []
    for n_threads in (1, 2):
        before = threads.set_count(n_threads)
        out = np.empty((203, 311), np.float32)
        gemm_vectors(a, b, out, products=products)
        threads.set_count(before)
        results.append(out)
    np.testing.assert_array_equal(*results)
    part = np.empty((10, 311), np.float32)
    gemm_vectors(np.ascontiguousarray(a[50:60]), b, part, products=products)
    np.testing.assert_array_equal(part, results[0][50:60])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("K", [132, 1024, 1604])
def test_rows_where_they_lie_give_the_bits_of_packed_ones(rng, dtype, K):
    a, b = make(rng, dtype, 197, 96, K, False, False)
    plain, packed = np.empty((2, 197, 96), dtype)
    gemm_vectors(a, b, plain)
    gemm_vectors(np.ascontiguousarray(a.T), b, packed, a_transposed=True)
    np.testing.assert_array_equal(plain, packed)


@pytest.mark.parametrize("products", PRODUCTS)
def test_nothing_is_written_outside_the_result(rng, products):
    a, b = make(rng, np.float32, 13, 19, 11, False, False)
    block = np.full((17, 19), 7, np.float32)
    gemm_vectors(a, b, block[2:15], products=products)
    assert (block[:2] == 7).all() and (block[15:] == 7).all()


@pytest.mark.parametrize("size", [(0, 3, 2), (3, 0, 2), (3, 4, 0)])
def test_empty_dimensions(rng, size):
    M, N, K = size
    a, b = make(rng, np.float32, M, N, K, False, False)
    out, bias, sums = np.full((M, N), 7, np.float32), np.ones(N, np.float32), np.full(N, 7, np.float32)
    gemm_vectors(a, b, out, epilogue=BIAS, bias=bias, sums=sums)
    np.testing.assert_array_equal(out, np.ones((M, N)))
    np.testing.assert_array_equal(sums, b.sum(axis=0))


@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("transposes", TRANSPOSES)
def test_infinities_and_nan_stay_in_their_rows_and_columns(rng, products, transposes):
    a, b = make(rng, np.float32, 20, 40, 30, *transposes)
    a[(5, 3) if transposes[0] else (3, 5)] = np.array([0x7FFFFFFF], np.uint32).view(np.float32)[0]  # a NaN to round
    b[(11, 7) if transposes[1] else (7, 11)] = np.inf
    out = np.empty((20, 40), np.float32)
    gemm_vectors(a, b, out, a_transposed=transposes[0], b_transposed=transposes[1], products=products)
    spoilt = np.zeros((20, 40), bool)
    spoilt[3], spoilt[:, 11] = True, True
    np.testing.assert_array_equal(np.isfinite(out), ~spoilt)


def test_tiles_by_cpu():
    assert choose_tile(64, {"avx512f"}) == Tile(14, 2)
    assert choose_tile(32, {"avx2", "fma"}) == Tile(6, 2)
    assert choose_tile(16, {"neon"}) == Tile(8, 3)
    assert choose_tile(16, {"sse2"}) == Tile(6, 2)


def test_numpy_stands_in_where_the_cpu_is_unknown_and_on_request(monkeypatch):
    assert module.choose() is gemm_vectors
    monkeypatch.setattr(module, "cpu_features", frozenset)
    assert module.choose() is gemm_numpy
    monkeypatch.setenv("GPT_NUMPY_GEMM", "vectors")
    assert module.choose() is gemm_vectors
    monkeypatch.setenv("GPT_NUMPY_GEMM", "blas")
    with pytest.raises(ConfigError, match="vectors or numpy"):
        module.choose()


@pytest.mark.parametrize("settings", [("16", "0"), ("64", "0"), ("32", "1")], ids=" ".join)
def test_other_widths_and_a_run_with_every_access_checked(settings):
    """The other tiles, in processes of their own: the width is fixed when the kernels are imported."""
    environment = dict(
        os.environ,
        GPT_NUMPY_VECTOR_BYTES=settings[0],
        GPT_NUMPY_CHECK_BOUNDS=settings[1],
        GPT_NUMPY_BFLOAT16="widened",  # on a CPU with the instruction, the run around this one tests that
    )
    chosen = "float32 or bit or outside or nan"
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", __file__, "-k", chosen]
    run = subprocess.run(command, cwd=Path(__file__).parents[3], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


def test_operands_are_rounded_to_nearest_even_and_the_sums_of_columns_are_not(rng):
    a = np.array([[1, 0], [0, 1]], np.float32)
    b = np.array([[1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20], [-3.0078125, 1e-30, 65281]], np.float32)
    out, sums = np.empty((2, 3), np.float32), np.empty(3, np.float32)
    gemm_vectors(a, b, out, products="bfloat16", sums=sums)
    np.testing.assert_array_equal(out, [[1, 1 + 4 * 2**-8, 1 + 2**-7], [-3, round_to_bfloat16(b)[1, 1], 65280]])
    np.testing.assert_array_equal(sums, b.sum(axis=0))


def test_the_instruction_is_used_where_the_cpu_has_it(monkeypatch):
    avx512 = {"avx512f", "avx512bf16"}
    assert emitting.has_bfloat16(avx512, 64, None) and not emitting.has_bfloat16(avx512, 64, "widened")
    assert not emitting.has_bfloat16(avx512, 32, None) and not emitting.has_bfloat16({"avx512f"}, 64, "instruction")
    with pytest.raises(ConfigError, match="widened or instruction"):
        emitting.has_bfloat16(avx512, 64, "half")
