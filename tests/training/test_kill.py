"""kill −9 at a random moment, then go on: nothing may tell the run from one that nobody disturbed."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from gpt_numpy.errors import CheckpointCorrupt
from gpt_numpy.training import checkpoint, config_file, resume, start
from gpt_numpy.training.metrics import read_metrics

TIMING = ("tokens_per_second", "seconds")


def everything(folder):
    """What has to be equal, bit for bit: the newest checkpoint, all that was measured, all samples."""
    saved = checkpoint.load_newest(folder / "checkpoints")
    records = [{k: v for k, v in r.items() if k not in TIMING} for r in read_metrics(folder / "metrics.jsonl")]
    state = {k: v for k, v in saved.state.items() if k != "seconds"}
    arrays = [array.tobytes() for array in (saved.params.flat, saved.first, saved.second)]
    return saved.step, state, arrays, records, (folder / "samples.txt").read_bytes()


def go_on(settings, folder):
    """What a person does after a crash: resume, or start again where nothing was saved yet."""
    if checkpoint.list_checkpoints(folder / "checkpoints"):
        return resume(folder)
    return start(settings, folder)


def in_fork(function):
    """Start ``function`` in a forked process, silently; returns the process's number."""
    child = os.fork()
    if child == 0:
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            os.dup2(devnull, 2)
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


def killed_after(seconds, function):
    """Run ``function`` in a forked process, killed after ``seconds``; whether it was still running then."""
    child = in_fork(function)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def undisturbed(function):
    """Run ``function`` in a forked process to its end; returns seconds."""
    began = time.monotonic()
    assert os.waitpid(in_fork(function), 0)[1] == 0
    return time.monotonic() - began


def kill_and_compare(settings, folder, wanted, seed):
    """Runs with one to three kills each, until ``wanted`` kills have hit a process at work."""
    rng = random.Random(seed)
    start(settings, folder / "first")  # imports what a fork then has
    # Timed in a fork, as fast or slow as those that are killed: other tests' threads stay behind in this process.
    duration = undisturbed(lambda: start(settings, folder / "undisturbed"))
    expected = everything(folder / "undisturbed")
    assert expected[0] == 40 and len(expected[3]) > 45
    kills = runs = 0
    while kills < wanted:
        runs += 1
        assert runs <= 4 * wanted
        run = folder / f"run-{runs}"
        for _ in range(rng.randint(1, 3)):
            kills += killed_after(rng.uniform(0, duration), lambda: go_on(settings, run))
        undisturbed(lambda: go_on(settings, run))
        assert everything(run) == expected


def short(tiny, **changes):
    return tiny(
        max_steps=40,
        eval_every=8,
        save_every=5,
        dropout=0.1,
        keep=3,
        sample_every=16,
        sample_tokens=5,
        preset="tiny",
        batch_size=3,
        **changes,
    )


def test_twenty_kills(tiny, tmp_path):
    kill_and_compare(short(tiny), tmp_path, 20, seed=1)


@pytest.mark.campaign
def test_two_hundred_kills(tiny, tmp_path):
    kill_and_compare(short(tiny), tmp_path, 200, seed=2)


@pytest.mark.campaign
def test_kills_of_the_command_with_kernels(tiny, tmp_path):
    """The same from outside, with the kernels' thread pool running and a process of its own each time."""
    settings = short(tiny, ops="kernels")
    (tmp_path / "run.toml").write_text(config_file.format(settings), encoding="utf-8")
    rng = random.Random(3)

    def command(run):
        resuming = (run / "checkpoints").is_dir() and checkpoint.list_checkpoints(run / "checkpoints")
        what = ["--resume", str(run)] if resuming else ["--config", str(tmp_path / "run.toml"), "--out", str(run)]
        return subprocess.Popen([sys.executable, "-m", "gpt_numpy", "train", *what], stdout=subprocess.DEVNULL)

    for _ in range(2):  # the second with a warm JIT cache, to know how long it takes
        began = time.monotonic()
        undisturbed = tmp_path / f"undisturbed-{began}"
        assert command(undisturbed).wait() == 0
        duration = time.monotonic() - began
    expected = everything(undisturbed)
    for i in range(10):
        run = tmp_path / f"run-{i}"
        process = command(run)
        time.sleep(rng.uniform(duration / 3, duration))
        process.kill()
        process.wait()
        assert command(run).wait() == 0
        assert everything(run) == expected


def test_before_the_first_checkpoint_there_is_nothing_to_resume(tiny, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointCorrupt, match="no checkpoint to resume"):
        resume(tmp_path / "run")
    assert start(tiny(), tmp_path / "run").step == 12
