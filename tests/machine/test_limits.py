"""What gpt_numpy says of the machine it runs on."""

import pytest

from gpt_numpy import machine
from gpt_numpy.kernels import gemm
from gpt_numpy.kernels.runtime.bfloat16 import TOGETHER
from gpt_numpy.machine import limits
from gpt_numpy.products import PRODUCTS


@pytest.fixture
def undisturbed(monkeypatch):
    for name in ("OPENBLAS_CORETYPE", "NUMBA_DISABLE_JIT"):
        monkeypatch.delenv(name, raising=False)


def test_vector_products_hold_nothing_back(undisturbed, monkeypatch):
    monkeypatch.setattr(gemm, "IMPLEMENTATION", gemm.gemm_vectors)
    assert not [line for line in machine.hindrances() if "matrix products" in line]


def test_products_by_numpy_are_named(undisturbed, monkeypatch):
    monkeypatch.setattr(gemm, "IMPLEMENTATION", gemm.gemm_numpy)
    assert [line for line in machine.hindrances() if "matrix products go to NumPy" in line]


def test_a_forced_blas_is_named(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert [line for line in machine.hindrances() if "OPENBLAS_CORETYPE=Haswell" in line]


def test_the_limits_are_speeds_of_a_machine():
    peak, bandwidth = machine.peak_flops(0.02), machine.read_bandwidth(0.02, 16 << 20)
    assert 1e8 < peak < 1e14 and 1e8 < bandwidth < 1e13


def test_products_in_bfloat16_have_a_limit_of_their_own():
    assert all(1e8 < machine.peak_flops(0.02, products) < 1e14 for products in PRODUCTS)


def test_each_limit_counts_the_operations_that_it_runs(monkeypatch):
    monkeypatch.setattr(limits, "best_seconds", lambda function, seconds: 1.0)
    assert machine.peak_flops(products="bfloat16") == TOGETHER * machine.peak_flops()
