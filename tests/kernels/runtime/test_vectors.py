"""Every vector width, on whatever machine runs this: each in a process of its own, as the width is fixed at import.

The cases themselves are in vector_cases.py. One more run has every access checked against its array.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
CASES = Path(__file__).with_name("vector_cases.py")


@pytest.mark.parametrize("settings", [("16", "0"), ("32", "0"), ("64", "0"), ("32", "1")], ids=" ".join)
def test_every_width(settings):
    environment = dict(os.environ, GPT_NUMPY_VECTOR_BYTES=settings[0], GPT_NUMPY_CHECK_BOUNDS=settings[1])
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", str(CASES)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


def test_a_checked_run_dies_at_an_access_outside_its_array():
    program = (
        "import sys, numpy as np\n"
        "from numba import njit\n"
        "from gpt_numpy.kernels.runtime.vectors import load, store\n"
        "@njit\n"
        "def copy(x, out, i): store(out, 0, load(x, i))\n"
        "x = np.zeros((4, 64), np.float32)[:, ::2]\n"  # its extent is 255 elements
        "copy(x, np.empty(64, np.float32), int(sys.argv[1]))\n"
        "print('alive')\n"
    )
    environment = dict(os.environ, GPT_NUMPY_VECTOR_BYTES="64", GPT_NUMPY_CHECK_BOUNDS="1")
    for index, survives in [("239", True), ("240", False), ("-1", False)]:
        command = [sys.executable, "-c", program, index]
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert (run.returncode == 0) == survives, run.stderr[-2000:]
        assert survives or "outside" in run.stdout + run.stderr


def test_negative_strides_are_inside_their_array():
    program = (
        "import numpy as np\n"
        "from numba import njit\n"
        "from gpt_numpy.kernels.runtime.vectors import load, store\n"
        "@njit\n"
        "def copy(x, out, i): store(out, 0, load(x, i))\n"
        "x = np.arange(64, dtype=np.float32)[::-1]\n"
        "out = np.empty(8, np.float32)\n"
        "copy(x, out, -63)\n"
        "assert out[0] == 0\n"
        "copy(x, out, -64)\n"
        "print('alive')\n"
    )
    environment = dict(os.environ, GPT_NUMPY_VECTOR_BYTES="32", GPT_NUMPY_CHECK_BOUNDS="1")
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode != 0 and "alive" not in run.stdout and "elements -64 + 8" in run.stdout


@pytest.mark.campaign
def test_all_kernels_stay_inside_their_arrays():
    """The kernels' and the model's tests once more, with every vector access checked."""
    environment = dict(os.environ, GPT_NUMPY_CHECK_BOUNDS="1")
    command = [sys.executable, "-m", "pytest", "-x", "tests/kernels", "tests/test_model.py", "-m", "not campaign"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:]


def test_width_follows_the_cpu(monkeypatch):
    from gpt_numpy.kernels.runtime import emitting

    monkeypatch.delenv("GPT_NUMPY_VECTOR_BYTES", raising=False)
    for features, width in [({"avx512f", "avx2"}, 64), ({"avx2", "fma"}, 32), ({"neon"}, 16), (set(), 16)]:
        monkeypatch.setattr(emitting, "cpu_features", lambda features=features: features)
        assert emitting._vector_bytes() == width
    monkeypatch.setenv("GPT_NUMPY_VECTOR_BYTES", "20")
    with pytest.raises(ValueError, match="expected 16, 32 or 64"):
        emitting._vector_bytes()


def test_a_vector_takes_only_arrays_of_its_type():
    from numba import njit
    from numba.core.errors import TypingError

    from gpt_numpy.kernels.runtime.vectors import load, store

    @njit
    def copy(x, out):
        store(out, 0, load(x, 0))

    with pytest.raises(TypingError):
        copy(np.zeros(64, np.float32), np.zeros(64, np.float64))
