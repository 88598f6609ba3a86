"""A child of a process whose numba threads are running gets an error, whoever had started them."""

import os
import subprocess
import sys

import pytest

fork_only = pytest.mark.skipif(not hasattr(os, "fork"), reason="only on systems that fork")

_FOREIGN = """
import os, sys
import numba
import numpy as np

@numba.njit(parallel=True)
def double(x):
    for i in numba.prange(len(x)):
        x[i] *= 2

def kernel():
    from gpt_numpy import kernels
    from gpt_numpy.errors import KernelError
    try:
        kernels.gelu_forward(np.ones(100_000))
        return 10
    except KernelError as error:
        return 20 if "forked" in str(error) and "spawn" in str(error) else 30

if {imported}:
    import gpt_numpy
if {imported_kernels}:
    import gpt_numpy.kernels
if {parallel_first}:
    double(np.ones(1000))
child = os.fork()
if child == 0:
    if {grandchild} and (child := os.fork()):
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(kernel())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), kernel())
"""


def _run(layer, **choices):
    names = ("imported", "imported_kernels", "parallel_first", "grandchild")
    code = _FOREIGN.format(**{name: choices.get(name, False) for name in names})
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120, env=environment
    )
    if "No threading layer" in done.stderr:
        pytest.skip(f"needs a machine with numba's {layer} layer")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@fork_only
@pytest.mark.parametrize("layer", ["workqueue", "omp"])
@pytest.mark.parametrize("imported", ["imported", "imported_kernels"])
def test_a_fork_after_another_parallel_function(layer, imported):
    assert _run(layer, parallel_first=True, **{imported: True}) == "20 10"


@fork_only
def test_a_grandchild_and_a_fork_before_the_pool():
    assert _run("omp", parallel_first=True, grandchild=True, imported=True) == "20 10"
    assert _run("omp", imported=True) == "10 10"


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux, which keeps a record of forks")
def test_the_package_is_first_imported_in_the_child():
    assert _run("omp", parallel_first=True) == "20 10"
    assert _run("omp") == "10 10"
