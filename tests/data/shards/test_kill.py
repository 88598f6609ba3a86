"""A killed preparation loses nothing: what it leaves at its end is the same whenever it was killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.data.shards.content import folder_bytes


def kill_somewhere(command, out, rng, n_files):
    """Run ``command`` and kill it when some of its files are there; whether it was still running."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    target = rng.randrange(n_files)
    while process.poll() is None and (not out.exists() or len(os.listdir(out)) < target):
        time.sleep(0.0005)
    time.sleep(rng.choice([0, 0, 0.002, 0.02]))
    process.kill()
    return process.wait() == -signal.SIGKILL


def kill_at_random(corpus, tokenizer, tmp_path, times, seed):
    """Kill a preparation ``times`` times, each somewhere in it; what it leaves at its end is always the same."""
    tokenizer.save(tmp_path / "tokenizer")
    out = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "gpt_numpy",
        "data",
        "prepare",
        str(corpus),
        "--out",
        str(out),
        "--tokenizer",
        str(tmp_path / "tokenizer"),
        "--shard-tokens",
        "10000",
        "--validation-every",
        "6",
    ]
    subprocess.run(command, check=True, capture_output=True)
    expected, rng, killed = folder_bytes(out), random.Random(seed), 0
    shutil.rmtree(out)
    while killed < times:
        killed += kill_somewhere(command, out, rng, len(expected))
        if rng.random() < 0.5 or killed == times:
            subprocess.run(command, check=True, capture_output=True)
            assert folder_bytes(out) == expected
            shutil.rmtree(out)


@pytest.fixture
def longer_corpus(corpus):
    text = (corpus / "00.md").read_text() + " ".join(path.read_text() for path in sorted((corpus / "more").iterdir()))
    for number in range(12):
        (corpus / f"long{number}.txt").write_text(text * 6)
    return corpus


def test_kill_9_loses_nothing(longer_corpus, tokenizer, tmp_path):
    kill_at_random(longer_corpus, tokenizer, tmp_path, times=3, seed=0)


@pytest.mark.campaign
def test_kill_9_fifty_times(longer_corpus, tokenizer, tmp_path):
    kill_at_random(longer_corpus, tokenizer, tmp_path, times=50, seed=1)
