"""Processors that the tests do not run on: kernels for plain SSE run here, kernels for ARM are compiled and read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from gpt_numpy.kernels.runtime import emitting

ROOT = Path(__file__).parents[3]
SETTINGS = {"GPT_NUMPY_VECTOR_BYTES": "16", "NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}
AARCH64 = "aarch64-unknown-linux-gnu"

# Compares three kernels with the layers, then prints the LLVM code of one for all kinds of vectors of 16 bytes.
SCRIPT = """
import numpy as np
from gpt_numpy import kernels, layers
from gpt_numpy.kernels import gelu, gemm
from gpt_numpy.kernels.runtime import emitting
assert emitting.VECTOR_BYTES == 16
rng = np.random.default_rng(0)
x, weight, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 9), (9, 21), 21))
for name, arguments in {names}.items():
    found, expected = (getattr(ops, name)(*map(eval, arguments))[0] for ops in (kernels, layers))
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=3e-6)
print(next(iter({launcher}.compiled.inspect_llvm().values())))
"""


def _llvm_code(tmp_path, names, launcher):
    script = SCRIPT.format(names=names, launcher=launcher)
    environment = dict(os.environ, PYTHONPATH=str(ROOT), NUMBA_CACHE_DIR=str(tmp_path / "cache"), **SETTINGS)
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _assembly_for_arm(code):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(AARCH64)
    code = re.sub(r"^target (triple|datalayout) = .*$", "", code, flags=re.M)
    code = re.sub(r'"target-(cpu|features)"="[^"]*"', "", code)
    # numba counts references, outside of every loop, by an instruction of this processor
    code = re.sub(r"(?:tail )?call i8 @llvm\.x86\.atomic\.sub\.cc\.i64\([^)]*\)", "add i8 0, 0", code)
    assert not re.search(r"call .*@llvm\.x86\.", code), "the kernel itself uses what only this processor has"
    module = llvm.parse_assembly(f'target triple = "{AARCH64}"\n{code}')
    return target.create_target_machine(opt=3).emit_assembly(module)


def _check_neon(assembly, least):
    products = re.findall(r"\bfml[as]\s+v\d+\.4s", assembly)
    assert len(products) >= least, "multiply-adds are not on vectors of four"
    assert not re.search(r"\bbl\s+(fma|fmaf|expf?|tanhf?)\b", assembly), "a function is called for each number"


@pytest.mark.skipif(emitting.cpu_features().isdisjoint({"sse2"}), reason="only on x86")
def test_gelu_on_plain_sse_and_compiled_for_arm(tmp_path):
    code = _llvm_code(tmp_path, {"gelu_forward": ["x"]}, "gelu._forward")
    _check_neon(_assembly_for_arm(code), least=10)


@pytest.mark.campaign
@pytest.mark.skipif(emitting.cpu_features().isdisjoint({"sse2"}), reason="only on x86")
def test_products_on_plain_sse_and_compiled_for_arm(tmp_path):
    code = _llvm_code(tmp_path, {"linear_forward": ["x", "weight", "bias"]}, "gemm._multiply")
    _check_neon(_assembly_for_arm(code), least=100)


def test_a_processor_whose_features_are_unknown(monkeypatch):
    def unknown():
        raise RuntimeError("failed to get host cpu features")

    monkeypatch.setattr(llvm, "get_host_cpu_features", unknown)
    monkeypatch.delenv("GPT_NUMPY_VECTOR_BYTES", raising=False)
    assert emitting.cpu_features() == frozenset() and emitting._vector_bytes() == 16
