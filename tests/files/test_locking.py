import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_numpy.errors import ConfigError, LockUnsupported, RunLocked
from gpt_numpy.files.locking import Lock

fcntl = pytest.importorskip("fcntl")
HOLD = """
import sys, time
sys.path.insert(0, sys.argv[2])
from gpt_numpy.files.locking import Lock
with Lock(sys.argv[1], "holds this folder"):
    print("held", flush=True)
    time.sleep(60)
"""


def lock(folder):
    return Lock(folder / "lock", "is at work in this folder")


@pytest.mark.parametrize("kind", ["system", "soft"])
def test_a_second_holder_is_refused_and_a_kill_releases(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("GPT_NUMPY_LOCK", kind)
    home = str(Path(__file__).parents[2])
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock"), home], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        who = f"process {process.pid}" if kind == "system" else "another process"
        with pytest.raises(RunLocked, match=f"{who} is at work"), lock(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with lock(tmp_path), pytest.raises(RunLocked), lock(tmp_path):
        pass
    with lock(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_and_has_a_way_out(tmp_path, monkeypatch, code):
    def flock(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(LockUnsupported, match=f"has no locks .{os.strerror(code)}.*GPT_NUMPY_LOCK=soft"):
        lock(tmp_path).acquire()
    monkeypatch.setenv("GPT_NUMPY_LOCK", "soft")
    with lock(tmp_path), pytest.raises(RunLocked), lock(tmp_path):
        pass


def test_another_error_is_passed_on_as_it_is(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        lock(tmp_path / "file" / "folder").acquire()


def test_an_unknown_kind_of_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT_NUMPY_LOCK", "hard")
    with pytest.raises(ConfigError, match="GPT_NUMPY_LOCK.*'hard'.*system or soft"):
        lock(tmp_path).acquire()


def test_without_fcntl_there_is_still_a_lock(tmp_path):
    code = """
import sys, warnings
sys.modules["fcntl"] = None
warnings.simplefilter("error")
sys.path.insert(0, sys.argv[2])
from gpt_numpy.errors import RunLocked
from gpt_numpy.files.locking import Lock
with Lock(sys.argv[1], "works"):
    try:
        Lock(sys.argv[1], "works").acquire()
    except RunLocked:
        print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "lock"), str(Path(__file__).parents[2])],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_the_file_goes_with_the_lock_where_it_is_to(tmp_path):
    with Lock(tmp_path / "lock", "is at work", remove=True):
        assert (tmp_path / "lock").exists()
        with pytest.raises(RunLocked), lock(tmp_path):
            pass
    assert not list(tmp_path.iterdir())
