import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gpt_numpy.errors import GPTNumpyError, LockUnsupported, RunLocked
from gpt_numpy.training import Settings, run_folder, start
from gpt_numpy.training.run_folder import RunFolder, free_name

HOLD = """
import sys, time
sys.path.insert(0, sys.argv[2])
from gpt_numpy.training.run_folder import RunFolder
with RunFolder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_kill_releases_the_lock(tmp_path):
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(run_folder.__file__))))
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), home], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RunLocked, match=f"process {process.pid} is training"), RunFolder(tmp_path):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with RunFolder(tmp_path):
        pass


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    left = tmp_path / "checkpoints" / ".step-5.0123abcd.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    with RunFolder(tmp_path):
        assert not left.exists()


def test_sessions_add_up_and_a_new_run_starts_over(tmp_path):
    run = RunFolder(tmp_path)
    for step in (0, 7, 9):
        run.begin(Settings(), step)
    sessions = json.loads((tmp_path / "environment.json").read_text())
    assert [s["from_step"] for s in sessions] == [0, 7, 9]
    assert {"python", "packages", "processor", "cores", "threads", "command"} <= set(sessions[0])
    run.begin(Settings(), 0)
    assert len(json.loads((tmp_path / "environment.json").read_text())) == 1


def test_samples_after_the_step_are_dropped(tmp_path):
    run = RunFolder(tmp_path)
    texts = {5: "five\nlines\n", 10: "ünï ---- step 99", 15: "fifteen"}
    for step, text in texts.items():
        run.append_sample(step, text)
    whole = (tmp_path / "samples.txt").read_bytes()
    run.begin(Settings(), 10)
    kept = (tmp_path / "samples.txt").read_bytes()
    assert whole.startswith(kept) and kept.endswith("ünï ---- step 99\n\n".encode())
    run.append_sample(15, texts[15])
    assert (tmp_path / "samples.txt").read_bytes() == whole


def test_names_count_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(free_name(("some/where/text.txt",))) == os.path.join("runs", "text-1")
    os.makedirs("runs/text-1")
    assert free_name(("text.txt",)).name == "text-2"


def test_listing_gives_a_checkpoint_as_one(tmp_path):
    step = tmp_path / "checkpoints" / "step-3"
    step.mkdir(parents=True)
    (step / "a").write_bytes(b"12345")
    (step / "b").write_bytes(b"678")
    (tmp_path / "samples.txt").write_bytes(b"x")
    assert RunFolder(tmp_path).listing() == [("checkpoints/step-3", 8), ("samples.txt", 1)]


def test_a_lock_is_not_inherited_by_time(tmp_path):
    (tmp_path / "lock").write_text("process 1\n")  # left by a process of long ago, which holds nothing
    os.utime(tmp_path / "lock", (time.time() - 10**6,) * 2)
    with RunFolder(tmp_path):
        assert (tmp_path / "lock").read_text() == f"process {os.getpid()}\n"


@pytest.mark.parametrize("data,name", [("-", "stdin-1"), ("notes/", "notes-1"), ("a/b.txt", "b-1"), (".", "here-1")])
def test_a_new_run_is_called_after_its_data(data, name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert free_name((data,)).name == name


def test_a_refused_start_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GPTNumpyError):
        start(Settings(data=("no-such-text.txt",)))
    assert not list(tmp_path.iterdir())
    (tmp_path / "own").mkdir()
    with pytest.raises(GPTNumpyError):
        start(Settings(data=("no-such-text.txt",)), "own/run")
    assert [path.name for path in tmp_path.iterdir()] == ["own"] and not list((tmp_path / "own").iterdir())


def test_a_file_system_without_locks_leaves_nothing_and_has_a_way_to_train(tiny, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(LockUnsupported, match="has no locks .No locks available.*GPT_NUMPY_LOCK=soft"):
        start(tiny(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("GPT_NUMPY_LOCK", "soft")
    assert start(tiny(max_steps=3), tmp_path / "run").step == 3


@pytest.mark.parametrize(
    "data,name",
    [("notes/*.txt", "notes"), ("my text; rm -rf.txt", "my-text-rm--rf"), ("-", "stdin"), ("a[1].txt", "run")],
)
def test_a_run_s_name_has_no_character_that_a_shell_reads(tmp_path, monkeypatch, data, name):
    monkeypatch.chdir(tmp_path)
    found = free_name((data,)).name
    assert not set(found) & set("*?[]$;&|<>()'\" \\") and (name == "run" or found == f"{name}-1")
