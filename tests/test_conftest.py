"""pytest stops where it would test another copy of the package than the one that is being edited."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpt_numpy

PACKAGE = Path(gpt_numpy.__file__).parent
TESTS = Path(__file__).parent


@pytest.fixture
def stale_copy(tmp_path):
    """A folder whose gpt_numpy comes before this one's on the path, as an old installation does."""
    shutil.copytree(PACKAGE, tmp_path / "gpt_numpy", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(stale_copy, *options):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    command += [str(TESTS / "layers" / "test_gelu.py"), "-k", "test_layers_and_kernels_are_not_imported"]
    environment = dict(os.environ, PYTHONPATH=str(stale_copy))
    return subprocess.run(command, cwd=stale_copy, env=environment, capture_output=True, text=True)


def test_a_stale_copy_is_named_with_the_command_that_mends_it(stale_copy):
    done = run(stale_copy)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "these tests belong to" in line]
    assert done.returncode == 4 and len(said) == 1
    assert str(stale_copy) in said[0] and 'pip install -e ".[test]"' in said[0]


def test_the_installed_copy_is_tested_where_that_is_asked_for(stale_copy):
    assert run(stale_copy, "--installed").returncode == 5  # nothing selected, nothing refused
