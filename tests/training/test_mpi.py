import importlib.util
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpt_numpy.training import checkpoint, config_file, resume, start
from gpt_numpy.training.metrics import read_metrics

CASE = str(Path(__file__).with_name("mpi_case.py"))


@pytest.fixture(autouse=True)
def mpiexec():
    """Path of an mpiexec: beside this Python (the mpich wheel brings one) or on the PATH."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None or importlib.util.find_spec("mpi4py") is None:
        pytest.skip("needs mpiexec and mpi4py")
    return found


@pytest.fixture
def ranks(mpiexec, tmp_path):
    """Start ``size`` ranks of a case of mpi_case.py; returns the process."""

    def launch(size, case, settings, out):
        (tmp_path / "run.toml").write_text(config_file.format(settings), encoding="utf-8")
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        command = [mpiexec, "-n", str(size), sys.executable, CASE, case, str(tmp_path / "run.toml"), str(out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    return launch


def losses(folder):
    return np.array([r["loss"] for r in read_metrics(folder / "metrics.jsonl")])


@pytest.mark.parametrize("size,zero", [(2, False), (3, True)])
def test_the_losses_of_one_rank(tiny, tmp_path, ranks, size, zero):
    settings = tiny(dropout=0.1, max_steps=20, micro_batch_size=2)
    start(settings, tmp_path / "one")
    process = ranks(size, "train", settings.replace(zero=zero), tmp_path / "many")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert np.abs(losses(tmp_path / "many") - losses(tmp_path / "one")).max() < 1e-5
    one, many = (checkpoint.load_newest(tmp_path / name / "checkpoints") for name in ("one", "many"))
    np.testing.assert_allclose(many.first, one.first, rtol=1e-2, atol=1e-5)
    np.testing.assert_allclose(many.second, one.second, rtol=1e-2, atol=1e-7)


def test_gradients_that_travel_as_bfloat16(tiny, tmp_path, ranks):
    settings = tiny(max_steps=20)
    start(settings, tmp_path / "one")
    process = ranks(2, "train", settings.replace(gradient_sums="bfloat16"), tmp_path / "two")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    difference = np.abs(losses(tmp_path / "two") - losses(tmp_path / "one"))
    assert 0 < difference.max() < 5e-3
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "step-20")
    assert resume(tmp_path / "two", {"max_steps": 20}).step == 20  # one process needs no sums


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sums_in_bfloat16_are_near_the_exact_ones_and_alike_on_all_ranks(mpiexec, size):
    case = str(Path(__file__).with_name("rounded_sum_case.py"))
    done = subprocess.run([mpiexec, "-n", str(size), sys.executable, case], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("is done") == size


def test_resuming_at_another_world_size(tiny, tmp_path, ranks):
    settings = tiny(max_steps=20, save_every=10)
    start(settings, tmp_path / "one")
    process = ranks(3, "train", settings.replace(max_steps=20, zero=True, max_minutes=0.0), tmp_path / "many")
    assert process.communicate(timeout=120) and process.returncode == 0
    shutil.rmtree(tmp_path / "many" / "checkpoints" / "step-20")  # as if it had ended after 10 or 15 steps
    process = ranks(2, "resume", settings, tmp_path / "many")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert np.abs(losses(tmp_path / "many") - losses(tmp_path / "one")).max() < 1e-5
    shutil.rmtree(tmp_path / "many" / "checkpoints" / "step-20")
    assert resume(tmp_path / "many").step == 20
    assert np.abs(losses(tmp_path / "many") - losses(tmp_path / "one")).max() < 1e-5


FAILURES = [
    ("nan", "step 2: the gradient of h.0.mlp.c_fc.bias is not finite"),
    ("crash", "a bug in one rank"),
    ("die", ""),
    ("other-settings", "ranks disagree: found \"rank 1: 'learning_rate = 0.5' instead of 'learning_rate = 0.003'"),
    ("other-data", "data: ranks disagree"),
]


@pytest.mark.parametrize("case,message", FAILURES)
def test_one_rank_ends_all(tiny, tmp_path, ranks, case, message):
    settings = tiny(max_steps=10**6, eval_every=2, save_every=2)
    process = ranks(2, case, settings, tmp_path / "run")
    began = time.monotonic()
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert message in output
    found = checkpoint.list_checkpoints(tmp_path / "run" / "checkpoints")
    if case in ("nan", "crash", "die"):
        assert checkpoint.load_newest(tmp_path / "run" / "checkpoints").step == 2
    else:
        assert not found and "step 0" not in output
    assert time.monotonic() - began < 50  # the start of two Pythons included


def test_nothing_goes_on_after_a_failure(tiny, tmp_path, ranks):
    """``Abort`` may return; what came next in each rank ended with a traceback of its own."""
    output = ranks(2, "missing-data", tiny(), tmp_path / "run").communicate(timeout=60)[0]
    assert "missing" in output and "Traceback" not in output and "went on" not in output


def test_more_ranks_than_sequences(tiny, tmp_path, ranks):
    process = ranks(3, "train", tiny(batch_size=2), tmp_path / "run")
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0 and "every rank needs a sequence: found 2; expected at least 3" in output


def kill_ranks(tiny, tmp_path, ranks, times):
    """Kill one of two ranks at a random moment of training; returns the longest time until both were gone."""
    rng, longest = random.Random(4), 0.0
    for i in range(times):
        run = tmp_path / f"run-{i}"
        settings = tiny(max_steps=10**6, eval_every=20, save_every=20)
        process = ranks(2, "train", settings, run)
        while not checkpoint.list_checkpoints(run / "checkpoints"):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.5))
        victim = rng.choice(rank_processes(str(run)))
        os.kill(victim, 9)
        began = time.monotonic()
        process.communicate(timeout=10)
        assert process.returncode != 0
        longest = max(longest, time.monotonic() - began)
        assert not rank_processes(str(run))
        checkpoint.load_newest(run / "checkpoints")
    return longest


def rank_processes(argument):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, NotADirectoryError):
            continue
        if CASE.encode() in words and argument.encode() in words and b"mpiexec" not in words[0] and b"-n" not in words:
            found.append(int(entry.name))
    return [pid for pid in found if b"hydra" not in (Path("/proc") / str(pid) / "comm").read_bytes()]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="only on Linux: finds the ranks in /proc")
def test_a_killed_rank(tiny, tmp_path, ranks):
    assert kill_ranks(tiny, tmp_path, ranks, 2) < 10


@pytest.mark.campaign
def test_fifty_killed_ranks(tiny, tmp_path, ranks):
    assert kill_ranks(tiny, tmp_path, ranks, 50) < 10
