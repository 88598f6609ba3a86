"""Names that scripts, tests and the README imported before modules moved still import, and mean the same thing."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_numpy.moved import MOVED

NAMES = Path(__file__).with_name("names_before_the_move.txt").read_text().splitlines()


def needs_mpi(module):
    if module.endswith(".mpi") and shutil.which("mpiexec") is None:
        pytest.skip("needs mpiexec")


@pytest.mark.parametrize("line", NAMES)
def test_a_name_from_before_the_move_still_imports(line):
    module, _, name = line.partition(" ")
    needs_mpi(module)
    exec(f"from {module} import {name}" if name else f"import {module}", {})


@pytest.mark.parametrize("old", sorted(MOVED))
def test_both_names_are_one_module(old):
    needs_mpi(old)
    new = importlib.import_module(MOVED[old])
    assert importlib.import_module(old) is new
    assert new.__spec__.name == new.__name__ == MOVED[old]


def test_the_old_name_may_come_first():
    code = "import gpt_numpy.kernels.threads as a; import gpt_numpy.kernels.runtime.threads as b; assert a is b"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("gpt_numpy.kernels.never")
