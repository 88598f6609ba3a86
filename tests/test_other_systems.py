"""Windows, macOS, bare containers: commands run in a process from which what those systems lack was taken away."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Runs before anything of gpt_numpy is imported.
TAKE_AWAY = """
import os, signal, sys
MISSING_MODULES = ("fcntl", "resource", "termios", "pwd", "grp")
MISSING_NAMES = ("fork", "forkpty", "register_at_fork", "sched_getaffinity", "sysconf", "sysconf_names", "mkfifo", "geteuid")
for name in MISSING_MODULES:
    sys.modules[name] = None
import shutil, subprocess, tempfile, threading  # while the names are there that these look up when imported
shutil._use_fd_functions = False
for name in MISSING_NAMES:
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGPIPE", "SIGUSR1", "SIGKILL"):
    if hasattr(signal, name):
        delattr(signal, name)
plain_open, plain_signal = os.open, signal.signal
def open_no_folder(path, flags, *args, **kwargs):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", os.fspath(path))
    return plain_open(path, flags, *args, **kwargs)
os.open = open_no_folder
plain_replace, refused = os.replace, set()
def replace_at_the_second_attempt(source, target, **kwargs):
    if os.fspath(target) not in refused:
        refused.add(os.fspath(target))
        raise PermissionError(13, "another process has the file open", os.fspath(target))
    return plain_replace(source, target, **kwargs)
from gpt_numpy.files import durable
durable.RENAME_WAITS = (0.001, 0.001)
os.replace = replace_at_the_second_attempt
"""
RUN = """
from gpt_numpy.commands import main
for command in {commands!r}:
    code = main(command.split())
    print("EXIT", code, command, flush=True)
"""
MODEL = "--n-layer 1 --n-head 1 --n-embd 8 --block-size 8 --batch-size 2 --ops layers --save-every 5 --max-steps 10"
COMMANDS = (
    "tokenizer train text.txt --vocab-size 262 --out words",
    "data prepare texts --tokenizer words --out shards --validation-every 3",
    "data verify shards",
    f"train --data text.txt --tokenizer char {MODEL} --out run",
    f"train --data shards {MODEL} --out of-shards",
    "train --resume run --max-steps 12",
    "convert run copied",
    "runs .",
    "gradcheck gelu",
    "info --preset tiny --no-measure",
)


def _run(folder, script, **variables):
    environment = dict(os.environ, PYTHONPATH=str(ROOT), MPLBACKEND="agg") | variables
    return subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True)


@pytest.fixture
def folder(tmp_path):
    """A folder whose name has a blank and letters that are not ASCII, with a text in it."""
    folder = tmp_path / "Übung mit Wörtern 文"
    folder.mkdir()
    (folder / "text.txt").write_text("a text of words; é, ü and 文\n\n" * 60, encoding="utf-8")
    (folder / "texts").mkdir()
    for number in range(6):
        (folder / "texts" / f"{number}.txt").write_text(f"text {number} of words; é\n" * 20, encoding="utf-8")
    return folder


def test_without_what_windows_lacks(folder):
    ended = _run(folder, TAKE_AWAY + RUN.format(commands=COMMANDS), NUMBA_DISABLE_JIT="1")
    output = ended.stdout.decode("utf-8")
    failed = re.findall(r"^EXIT [^0].*", output, re.M)
    assert output.count("EXIT 0") == len(COMMANDS), (failed, ended.stderr.decode("utf-8", "replace")[-3000:])
    assert b"another process has the file open" not in ended.stderr
    assert (folder / "run" / "checkpoints" / "step-12").is_dir() and (folder / "copied" / "config.json").is_file()


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C", "LANG": "C"},
        {"PYTHONIOENCODING": "cp1252"},
    ],
    ids=["C without UTF-8", "C", "cp1252"],
)
def test_with_another_locale(folder, variables):
    commands = COMMANDS[3:4] + ("runs .",)
    ended = _run(folder, RUN.format(commands=commands), NUMBA_DISABLE_JIT="1", **variables)
    assert ended.stdout.count(b"EXIT 0") == 2, ended.stderr
    assert (folder / "run" / "checkpoints" / "step-10").is_dir()


def test_in_an_empty_environment_and_without_a_home(folder):
    """As ``env -i`` starts it; and with a home that is nowhere, and a relative XDG_CACHE_HOME."""
    command = [sys.executable, "-m", "gpt_numpy", *COMMANDS[3].split()]
    needed = {"PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": "1"}
    for number, more in enumerate(({}, {"HOME": "/nonexistent/home", "XDG_CACHE_HOME": "relative"})):
        command[-1] = f"run-{number}"
        ended = subprocess.run(command, cwd=folder, env=needed | more, capture_output=True)
        assert ended.returncode == 0, ended.stderr
    assert not (folder / "~").exists()


def test_with_a_clock_that_runs_backwards(folder):
    backwards = "import time\nnow = [2e9]\ndef earlier():\n    now[0] -= 3600\n    return now[0]\ntime.time = earlier\n"
    commands = COMMANDS[3:4] + ("train --resume run --max-steps 12", "runs .")
    ended = _run(folder, backwards + RUN.format(commands=commands), NUMBA_DISABLE_JIT="1")
    assert ended.stdout.count(b"EXIT 0") == 3, ended.stderr
    assert (folder / "run" / "checkpoints" / "step-12").is_dir()


def test_windows_can_check_out_every_file():
    """No symbolic link (a checkout on Windows holds a text file in its place), no name twice but for its case."""
    paths = [path for folder in ("gpt_numpy", "scripts", "tests", "benchmarks") for path in (ROOT / folder).rglob("*")]
    assert [path for path in paths if path.is_symlink()] == []
    names = [str(path.relative_to(ROOT)) for path in paths]
    assert [name for name, count in Counter(map(str.lower, names)).items() if count > 1] == []
    assert [name for name in names if re.search(r'[<>:"|?*\\]|[. ]$', name)] == []


def test_ci_names_only_paths_that_exist():
    for script in ("run", "leg"):
        text = (ROOT / ".ci" / script).read_text(encoding="utf-8")
        for path in re.findall(r"(?<![\w/])(?:tests|\.ci)/[\w./]+", text):
            assert (ROOT / path).exists(), f".ci/{script} names {path}"


def test_the_bounds_of_numba_are_those_that_were_tested():
    from gpt_numpy.kernels.runtime import numba_inside

    stated = re.search(r"numba>=(\S+),<(\S+)", (ROOT / "setup.cfg").read_text(encoding="utf-8"))
    pinned = (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8")
    newest = tuple(map(int, numba_inside.NEWEST.split(".")))
    assert stated[1] == numba_inside.OLDEST and tuple(map(int, stated[2].split("."))) == (newest[0], newest[1] + 1)
    assert f"numba=={numba_inside.OLDEST}.0" in pinned
