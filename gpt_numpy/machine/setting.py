"""The facts of this machine that belong beside a measured figure, and the settings that slow this machine down."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

# Variables that change the speed of a BLAS or of a thread pool without any message.
SPEED_VARIABLES = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMBA_THREADING_LAYER",
    "NUMBA_DISABLE_JIT",
    "GPT_NUMPY_GEMM",
)


def environment() -> dict[str, Any]:
    """The facts of this machine that belong beside a measured figure."""
    import numba

    from ..kernels.runtime import threads

    return {
        "cpu": _cpu_name(),
        "processors": threads.available(),
        "threads": threads.count(),
        "threading_layer": threads.layer(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "variables": {name: os.environ[name] for name in SPEED_VARIABLES if name in os.environ},
    }


def hindrances() -> list[str]:
    """The settings that make this machine slower than it could be: a list of sentences, one for each setting."""
    from ..kernels import gemm
    from ..kernels.runtime import threads

    found = []
    if "OPENBLAS_CORETYPE" in os.environ:
        found.append(
            f"OPENBLAS_CORETYPE={os.environ['OPENBLAS_CORETYPE']} forces NumPy's BLAS to one CPU's kernels "
            "(ours do not use it; the NumPy layers and NumPy's figures in the benchmarks do): unset it"
        )
    if threads.count() < threads.available():
        chosen = "NUMBA_NUM_THREADS" in os.environ
        why = "unset NUMBA_NUM_THREADS" if chosen else "a container's quota of processor time feeds no more"
        found.append(f"{threads.count()} of {threads.available()} processors are used: {why}")
    if threads.layer() == "workqueue":
        found.append(
            "numba's threads run on its workqueue layer, the slowest to start: install libgomp (Debian: libgomp1)"
        )
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        found.append("NUMBA_DISABLE_JIT turns every kernel into a Python loop: unset it")
    if gemm.IMPLEMENTATION is gemm.gemm_numpy:
        found.append(
            "matrix products go to NumPy (an unknown CPU, or GPT_NUMPY_GEMM=numpy): the epilogues are not fused"
        )
    return found


def _cpu_name():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
