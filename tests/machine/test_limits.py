"""What gpt_numpy says of the machine it runs on."""

import pytest

from gpt_numpy import machine
from gpt_numpy.kernels import gemm


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


def test_the_two_limits_are_speeds_of_a_machine():
    peak, bandwidth = machine.peak_flops(0.02), machine.read_bandwidth(0.02, 16 << 20)
    assert 1e8 < peak < 1e14 and 1e8 < bandwidth < 1e13
