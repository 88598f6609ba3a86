"""Compiled code on disk: whatever happens to a file, the answers are right, and there is one warning."""

import errno
import json
import os
import random
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from gpt_numpy.files import regular
from gpt_numpy.kernels.runtime import code_files, numba_inside
from gpt_numpy.kernels.runtime.code_files import CodeFiles, Damaged
from gpt_numpy.kernels.runtime.decorators import kernel

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux: bash's ulimit")


def _double_and_one(x):
    return x + x + 1


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    code_files._writable_folder.cache_clear()
    monkeypatch.setattr(code_files, "_warned", set())
    return code_files.folders()[0]


def _forget_warnings():
    code_files._warned.clear()


def _run_anew():
    """Decorate and call the function as a new process would; returns the dispatcher and the warnings."""
    _forget_warnings()
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        compiled = kernel()(_double_and_one)
        np.testing.assert_array_equal(compiled(np.arange(3)), [1, 3, 5])
    return compiled, [str(w.message) for w in given]


def _loaded(compiled):
    return sum(compiled.stats.cache_hits.values())


def _mutants(content, rng, cuts=20, flips=50):
    yield b""
    for cut in sorted(rng.sample(range(1, len(content)), min(cuts, len(content) - 1))):
        yield content[:cut]
    for place in rng.sample(range(len(content)), min(flips, len(content))):
        yield content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def test_code_is_kept_and_loaded(folder):
    compiled, given = _run_anew()
    assert _loaded(compiled) == 0 and given == []
    assert sorted(path.suffix for path in folder.iterdir()) == [".nbc", ".nbi"]
    compiled, given = _run_anew()
    assert _loaded(compiled) == 1 and given == []


def test_a_damaged_file_is_warned_of_once_and_replaced(folder):
    _run_anew()
    rng = random.Random(0)
    for path in sorted(folder.iterdir()):
        sound = path.read_bytes()
        for mutant in _mutants(sound, rng, cuts=3, flips=4):
            path.write_bytes(mutant)
            compiled, given = _run_anew()
            assert _loaded(compiled) == 0
            assert len(given) == 1 and path.name in given[0] and str(folder) in given[0]
            compiled, given = _run_anew()
            assert _loaded(compiled) == 1 and given == [], "the damaged file was not replaced"


def test_every_cut_and_every_flipped_bit_is_noticed():
    name, payload = "a.nbc", bytes(range(40))
    content = code_files.seal(name, payload)
    assert code_files.unseal(name, content) == payload
    wrong = [content[:cut] for cut in range(len(content))]
    wrong += [content + b"\0", code_files.seal("b.nbc", payload)]
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        wrong.append(bytes(flipped))
    for mutant in wrong:
        with pytest.raises(Damaged, match="a.nbc"):
            code_files.unseal(name, mutant)


def test_what_is_no_readable_file_is_compiled_anew(folder, monkeypatch):
    _run_anew()
    for path in sorted(folder.iterdir()):
        path.unlink()
        path.mkdir()
        (path / "file").write_bytes(b"")
        compiled, given = _run_anew()
        assert _loaded(compiled) == 0 and len(given) == 1 and f"{path.name}: not a regular file" in given[0]
        compiled, given = _run_anew()
        assert _loaded(compiled) == 1 and given == [] and path.is_file(), "not replaced"
    original = regular._open

    def refuse(path, *arguments, **options):
        if os.fspath(path).endswith((".nbi", ".nbc")):
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path, *arguments, **options)

    monkeypatch.setattr(regular, "_open", refuse)
    compiled, given = _run_anew()
    assert _loaded(compiled) == 0 and len(given) == 1 and "there is no permission" in given[0]


def test_many_damaged_files_cost_one_warning(folder):
    files = [CodeFiles(f"function{i}", "v1", "stamp") for i in range(20)]
    for one in files:
        one.save("key", b"code")
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.warns(RuntimeWarning) as given:
        assert [one.load("key") for one in files] == [None] * 20
    assert len(given) == 1


def test_code_of_another_version_is_warned_of_and_removed(folder):
    CodeFiles("function", "v1", "stamp").save("key", b"old")
    with pytest.warns(RuntimeWarning, match="made by v1; this is v2"):
        assert CodeFiles("function", "v2", "stamp").load("key") is None
    CodeFiles("function", "v2", "stamp").save("key", b"new")
    assert CodeFiles("function", "v2", "stamp").load("key") == b"new"
    assert len(list(folder.glob("*.nbc"))) == 1


def test_code_of_an_edited_source_is_removed_in_silence(folder, recwarn):
    neighbour = CodeFiles("function.inner", "v", "before")
    for files in (CodeFiles("function", "v", "before"), neighbour):
        files.save("key", b"old")
        files.save("other", b"old")
    edited = CodeFiles("function", "v", "after")
    assert edited.load("key") is None
    edited.save("key", b"new")
    assert edited.load("key") == b"new" and edited.load("other") is None
    assert neighbour.load("key") == neighbour.load("other") == b"old"
    assert len(list(folder.glob("*.nbc"))) == 3 and not recwarn.list


def test_an_edited_file_outside_the_package_is_compiled_anew(folder, tmp_path):
    """numba hashes a function's instructions, which do not hold its constants."""
    source = tmp_path / "own_kernel.py"
    script = "import numpy as np\nfrom own_kernel import f\nprint(f(np.arange(2)))"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])]))
    environment["PYTHONDONTWRITEBYTECODE"] = (
        "1"  # Python's own cache misses an edit of the same size in the same second
    )
    for number in (5, 7):
        source.write_text(
            "from gpt_numpy.kernels.runtime.decorators import kernel\n\n"
            f"@kernel()\ndef f(x):\n    return x + {number}\n"
        )
        found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert found.stdout.split() == [f"[{number}", f"{number + 1}]"], found.stderr


@pytest.mark.parametrize("step", ["mkdir", "write", "rename"])
def test_a_folder_that_cannot_be_written_costs_one_warning(folder, monkeypatch, step):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    owner, name = {"mkdir": (Path, "mkdir"), "write": (Path, "write_bytes"), "rename": (os, "replace")}[step]
    monkeypatch.setattr(owner, name, refuse)
    with pytest.warns(RuntimeWarning) as given:
        for i in range(20):
            CodeFiles(f"function{i}", "v", "stamp").save("key", b"code")
    assert len(given) == 1
    message = str(given[0].message)
    assert str(folder) in message and "No space left" in message and "NUMBA_CACHE_DIR" in message
    assert not folder.exists() or list(folder.iterdir()) == [], "a half-written file is left"


def test_a_filled_folder_that_cannot_be_written_is_read_in_silence(folder, monkeypatch):
    _run_anew()
    code_files._writable_folder.cache_clear()
    monkeypatch.setattr(os, "replace", lambda *names: pytest.fail("written"))
    compiled, given = _run_anew()
    assert _loaded(compiled) == 1 and given == []


def test_the_folders_without_a_choice(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    in_package, of_user = code_files.folders()
    assert in_package.parts[-3:] == ("kernels", "__pycache__", "compiled")
    assert of_user.parent == tmp_path / ".cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert code_files.folders()[1].parent == tmp_path / "elsewhere"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # neither $HOME nor an entry in the password file
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert len(code_files.folders()) == 1


def test_threads_that_save_and_load_at_once_never_fail(folder, recwarn):
    errors = []

    def work(seed):
        rng = random.Random(seed)
        try:
            for _ in range(60):
                key = str(rng.randrange(6))
                files = CodeFiles("function", "v", "stamp")
                found = files.load(key)
                assert found in (None, key.encode() * 1000)
                files.save(key, key.encode() * 1000)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and not recwarn.list
    assert {path.suffix for path in folder.iterdir()} == {".nbi", ".nbc"}


def test_processes_that_fill_one_folder_at_once_never_fail(folder, processes=3):
    script = (
        "import numpy as np\nfrom gpt_numpy.kernels import gelu_forward\n"
        "print(gelu_forward(np.zeros(3, np.float32))[0].sum())"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    assert [process.communicate() for process in started] == [("0.0\n", "")] * processes
    held = code_files.contents()
    assert len(held) == 1 and held[0].codes == 1 and held[0].damaged == 0


@pytest.mark.campaign
def test_eight_processes_that_fill_one_folder(folder):
    test_processes_that_fill_one_folder_at_once_never_fail(folder, processes=8)


def _gradcheck(folder, tmp_path, limit=""):
    command = f"{limit} exec {sys.executable} -m gpt_numpy gradcheck gelu --ops kernels"
    environment = dict(os.environ, NUMBA_CACHE_DIR=str(folder), PYTHONPATH=str(Path(__file__).parents[3]))
    return subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, cwd=tmp_path)


@on_linux
def test_a_command_whose_disk_is_full_says_so_once(tmp_path):
    ended = _gradcheck(tmp_path / "full", tmp_path, "ulimit -f 8;")
    assert ended.returncode == 0 and "0 failed" in ended.stdout
    assert len(ended.stderr.splitlines()) == 1
    assert str(tmp_path / "full") in ended.stderr and "warning" in ended.stderr


@on_linux
def test_a_command_whose_cache_is_damaged_says_so_once(tmp_path):
    cache = tmp_path / "cache"
    assert _gradcheck(cache, tmp_path).returncode == 0
    for path in cache.rglob("*.nb?"):
        path.write_bytes(path.read_bytes()[:1000])
    ended = _gradcheck(cache, tmp_path)
    assert ended.returncode == 0 and "0 failed" in ended.stdout
    assert len(ended.stderr.splitlines()) == 1 and "warning" in ended.stderr
    assert _gradcheck(cache, tmp_path).stderr == ""


def _damage_filled_cache(folder, every):
    """The report of ``damaged_cache.py``: each ``every``-th file damaged in 71 ways, in processes that compute."""
    script = Path(__file__).with_name("damaged_cache.py")
    command = [sys.executable, str(script), str(every)]
    ended = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, GPT_NUMPY_HELPERS="0"))
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)


@pytest.mark.campaign
def test_every_file_of_a_filled_cache_emptied_cut_and_flipped(folder):
    """Emptied, cut at 20 places, 50 flipped bytes: the same numbers, one warning, exit code 0, and a new file."""
    report = _damage_filled_cache(folder, every=1)
    print(report)
    assert report["failures"] == [] and report["damaged"] == report["files"] > 50
    assert report["damages"] == 71 * report["damaged"]


def test_a_name_that_numba_lacks_is_named_with_the_versions_that_have_it():
    from gpt_numpy.errors import KernelError

    with pytest.raises(KernelError, match=f"_gone.*{numba_inside.OLDEST} to {numba_inside.NEWEST}"):
        numba_inside._taken(numba_inside.CompileResult, "_gone")


def test_underscored_names_of_numba_are_in_one_file():
    """What a version of numba may take away is looked for in one place."""
    import re

    package = Path(code_files.__file__).parents[2]
    private = re.compile(r"(numba|_pool|dispatcher|compiled|library|codegen)\._[a-z]|from numba\S* import .*\b_[a-z]")
    holding = {path.name for path in package.rglob("*.py") if private.search(path.read_text(encoding="utf-8"))} - {
        "numba_inside.py"
    }
    assert holding == set()


def test_the_index_is_readable_without_pickle(folder):
    CodeFiles("function", "v", "stamp").save("key", b"code")
    payload = code_files.unseal("function.nbi", (folder / "function.nbi").read_bytes())
    assert json.loads(payload) == {"version": "v", "stamp": "stamp", "keys": ["key"]}


_ARRAYS = """
import sys
import numba, numpy as np
from gpt_numpy.kernels.runtime.decorators import kernel

@kernel(parallel=True)
def sums_of_rows(x):
    sums = np.zeros(x.shape[0])
    for i in numba.prange(x.shape[0]):
        row = x[i].copy()
        sums[i] = np.exp(np.log(row)).sum()
    return sums

print(sums_of_rows(np.ones((5, 3))).tolist() == [3.0] * 5, "numba.cpython.printimpl" in sys.modules)
"""


def test_code_that_is_loaded_makes_arrays_without_the_functions_that_compiling_needs(tmp_path):
    (tmp_path / "rows.py").write_text(_ARRAYS)
    environment = dict(os.environ, NUMBA_CACHE_DIR=str(tmp_path / "cache"), PYTHONPATH=str(Path(__file__).parents[3]))
    found = []
    for _ in range(2):
        command = [sys.executable, str(tmp_path / "rows.py")]
        found.append(
            subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
        )
    assert found == [["True", "True"], ["True", "False"]]
