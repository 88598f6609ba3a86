import json
import os
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from gpt_numpy.errors import CheckpointCorrupt, CheckpointMismatch, GPTNumpyError
from gpt_numpy.training import checkpoint
from gpt_numpy.training.checkpoint import Checkpoint, list_checkpoints, load, load_newest, prune, save, verify
from tests.training.faults import EIO, ENOSPC, die, die_after, fail, fault_at, in_child


def same(a: Checkpoint, b: Checkpoint):
    arrays = [(c.params.flat, c.first, c.second) for c in (a, b)]
    return all(map(np.array_equal, *arrays)) and (a.step, a.config, a.state) == (b.step, b.config, b.state)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(tmp_path, make_checkpoint, dtype):
    live = make_checkpoint(7, dtype, best_step=5, settings={"seed": 3})
    path = save(tmp_path / "checkpoints", live)
    assert path.name == "step-7"
    loaded = load(path)
    assert same(loaded, live)
    assert loaded.params.flat.dtype == dtype
    assert loaded.tokenizer.encode("badge") == live.tokenizer.encode("badge")


def test_files_are_readable_by_others(tmp_path, make_checkpoint):
    path = save(tmp_path, make_checkpoint())
    umask = os.umask(0)
    os.umask(umask)
    assert {entry.stat().st_mode & 0o777 for entry in os.scandir(path)} == {0o666 & ~umask}


def test_order_is_by_step_not_by_time_or_name(tmp_path, make_checkpoint):
    for step in (100, 9, 20):
        save(tmp_path, make_checkpoint(step))
    for name in ("step-x", "step-", "step-7.tmp", "other", ".step-300.abc.tmp"):
        (tmp_path / name).mkdir()
    assert [step for step, _ in list_checkpoints(tmp_path)] == [9, 20, 100]
    assert load_newest(tmp_path).step == 100


def test_prune_keeps_the_newest_and_the_best(tmp_path, make_checkpoint):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, make_checkpoint(step, best_step=2), keep=2)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [2, 4, 5]
    prune(tmp_path, 1, None)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [5]


def test_a_sound_checkpoint_is_not_written_again(tmp_path, make_checkpoint):
    path = save(tmp_path, make_checkpoint())
    before = {entry.name: entry.stat().st_ino for entry in os.scandir(path)}
    save(tmp_path, make_checkpoint())
    assert {entry.name: entry.stat().st_ino for entry in os.scandir(path)} == before


def test_a_broken_one_of_the_same_step_makes_room(tmp_path, make_checkpoint):
    path = save(tmp_path, make_checkpoint())
    (path / "model.safetensors").unlink()
    save(tmp_path, make_checkpoint())
    assert same(load(path), make_checkpoint())


# ---- damage --------------------------------------------------------------------------------------------------


def contents(path):
    return {entry.name: (path / entry.name).read_bytes() for entry in os.scandir(path)}


def write_folder(path, files):
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)


def test_every_flipped_or_missing_byte_of_small_files_is_seen(tmp_path, make_checkpoint):
    path = save(tmp_path, make_checkpoint())
    for name in ("manifest.json", "trainer_state.json", "config.json", "vocab.json", "tokenizer_config.json"):
        content = (path / name).read_bytes()
        for i in range(0, len(content), 1 if name == "manifest.json" else 7):
            for damaged in (content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :], content[:i]):
                (path / name).write_bytes(damaged)
                with pytest.raises(CheckpointCorrupt):
                    verify(path)
        (path / name).write_bytes(content)
        verify(path)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "trainer_state.json", "manifest.json"])
def test_a_missing_file_is_named(tmp_path, make_checkpoint, name):
    path = save(tmp_path, make_checkpoint())
    (path / name).unlink()
    with pytest.raises(CheckpointCorrupt, match=name):
        load(path)


def test_a_folder_or_a_pipe_in_place_of_a_file(tmp_path, make_checkpoint):
    path = save(tmp_path, make_checkpoint())
    (path / "config.json").unlink()
    os.mkfifo(path / "config.json")
    with pytest.raises(CheckpointCorrupt, match="config.json"):
        load(path)


def mutate(files, rng):
    """``files`` (name → bytes) with one random kind of damage."""
    files = dict(files)
    name = rng.choice(sorted(files))
    content = files[name]
    i, j = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    kind = rng.randrange(9)
    if kind == 0:
        del files[name]
    elif kind == 1:
        files[name] = content[:i]
    elif kind == 2:
        files[name] = content[:i] + content[j:] if i < j else content + b"\0"
    elif kind == 3:
        files[name] = content[:i] + rng.randbytes(rng.randint(1, 20)) + content[i:]
    elif kind == 4:
        other = rng.choice(sorted(files))
        files[name], files[other] = files[other], files[name]
        if files[name] == content:
            del files[name]
    elif kind == 5:
        files[name] = b""
    elif kind == 6:
        files[name] = content[:i] + content[i:j] + content[i:] if i < j else content * 2
    else:
        i = min(i, len(content) - 1)
        files[name] = content[:i] + bytes([content[i] ^ 1 << rng.randrange(8)]) + content[i + 1 :]
    return files


def run_mutations(tmp_path, live, count, seed):
    rng = random.Random(seed)
    original = contents(save(tmp_path / "original", live))
    path = tmp_path / "step-7"
    loaded = 0
    for _ in range(count):
        files = mutate(original, rng)
        write_folder(path, files)
        with pytest.raises(CheckpointCorrupt):
            load(path)
        # The same damage by someone who mends the manifest: any of our errors, or a state that is sound after all.
        files.pop("manifest.json", None)
        write_folder(path, files)
        checkpoint._write_manifest(path)
        try:
            load(path)
            loaded += 1
        except GPTNumpyError:
            pass
    assert loaded < 0.8 * count


def test_mutated_folders(tmp_path, make_checkpoint):
    run_mutations(tmp_path, make_checkpoint(), 250, seed=1)


@pytest.mark.campaign
def test_ten_thousand_mutated_folders(tmp_path, make_checkpoint):
    run_mutations(tmp_path, make_checkpoint(), 10_000, seed=2)


def reseal(path, name, change):
    content = json.loads((path / name).read_bytes())
    change(content)
    (path / name).write_text(json.dumps(content))
    (path / "manifest.json").unlink()
    checkpoint._write_manifest(path)


def test_tensors_of_another_model_are_named(tmp_path, make_checkpoint):
    path = save(tmp_path, make_checkpoint())
    reseal(path, "config.json", lambda c: c.update(n_layer=3))
    with pytest.raises(CheckpointMismatch, match="missing tensors: h.2.ln_1.weight"):
        load(path)
    reseal(path, "config.json", lambda c: c.update(n_layer=1))
    with pytest.raises(CheckpointMismatch, match="unexpected tensors: h.1.attn.c_attn.bias"):
        load(path)
    reseal(path, "config.json", lambda c: c.update(n_layer=2, n_positions=9))
    with pytest.raises(CheckpointMismatch, match=r"wpe.weight is \[7, 12\] instead of \[9, 12\]"):
        load(path)


def test_moments_of_another_model_are_named(tmp_path, make_checkpoint):
    path, other = save(tmp_path, make_checkpoint()), make_checkpoint(8)
    small = other._replace(config=other.config.replace(n_layer=1))
    short = small._replace(first=small.first[:-1], second=small.second)
    from gpt_numpy.files import durable
    from gpt_numpy.parameters import count

    n = count(short.config)
    short = short._replace(first=other.first[:n], second=other.second[:n])
    (path / "optimizer.safetensors").unlink()
    durable.write_new(path / "optimizer.safetensors", checkpoint._optimizer_file(short))
    (path / "manifest.json").unlink()
    checkpoint._write_manifest(path)
    with pytest.raises(CheckpointMismatch, match="missing tensors: h.1"):
        load(path)


def test_none_whole_is_an_error(tmp_path, make_checkpoint):
    with pytest.raises(CheckpointCorrupt, match="no checkpoint to resume from"):
        load_newest(tmp_path / "nothing")
    for step in (3, 4):
        (save(tmp_path, make_checkpoint(step)) / "config.json").write_text("{}")
    with pytest.warns(UserWarning) as warned, pytest.raises(CheckpointCorrupt, match="no checkpoint to resume"):
        load_newest(tmp_path)
    assert [str(w.message).count("config.json") for w in warned] == [1, 1]


# ---- a save that fails or is killed at any operation -----------------------------------------------------------


@pytest.mark.parametrize("code", [ENOSPC, EIO])
def test_a_fault_at_any_operation_fails_loudly_and_loses_nothing(tmp_path, make_checkpoint, code):
    old, new = make_checkpoint(5), make_checkpoint(7)
    folder, number, raised = tmp_path / "c", 0, 0
    while True:
        number += 1
        shutil.rmtree(folder, ignore_errors=True)
        save(folder, old)
        try:
            with fault_at(number, fail(code)) as count:
                save(folder, new, keep=1)
        except OSError as error:
            assert error.errno == code
            raised += 1
            verify(folder / "step-5") if not (folder / "step-7").exists() else verify(folder / "step-7")
        assert same(load_newest(folder), new if (folder / "step-7").exists() else old)
        if count[0] < number:
            break
    assert number > 30 and raised >= number - 8  # cleaning up after oneself is allowed to fail quietly
    assert [step for step, _ in list_checkpoints(folder)] == [7]


@pytest.mark.parametrize("act", [die, die_after])
def test_a_kill_at_any_operation_loses_nothing(tmp_path, make_checkpoint, act):
    old, new = make_checkpoint(5), make_checkpoint(7)
    folder, number = tmp_path / "c", 0

    def child():
        with fault_at(number, act):
            save(folder, new, keep=1)

    while True:
        number += 1
        shutil.rmtree(folder, ignore_errors=True)
        save(folder, old)
        code = in_child(child)
        assert code in (0, -signal.SIGKILL)
        assert same(load_newest(folder), new if (folder / "step-7").exists() else old)
        checkpoint.remove_leftovers(folder)
        assert not list(folder.glob(".*"))
        if code == 0:
            break
    assert number > 30
    assert [step for step, _ in list_checkpoints(folder)] == [7]


SAVE = """
import sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from gpt_numpy.training.checkpoint import load_newest, save
live = load_newest(sys.argv[1])
save(sys.argv[1], live._replace(step=7, first=live.first + 1), keep=1)
"""
CALLS = "openat,write,pwrite64,fsync,rename,renameat,renameat2,mkdir,chmod,fchmod,ftruncate,unlink,unlinkat,rmdir,close"


@pytest.mark.campaign
@pytest.mark.parametrize("fault", ["signal=KILL", "error=ENOSPC", "error=EIO"])
def test_every_system_call_of_a_save(tmp_path, make_checkpoint, fault):
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    folder, old = tmp_path / "c", make_checkpoint(5)
    script = tmp_path / "save.py"
    script.write_text(SAVE)
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # Only calls on paths in the folder count: what Python itself opens while it starts is not the subject.
    strace = ["strace", "-f", "-qq", "-o", str(tmp_path / "log"), "-e", f"trace={CALLS}"]
    python = [sys.executable, str(script), str(folder), home]
    calls = [name for name in CALLS.split(",") if name not in ("openat", "close") or fault == "signal=KILL"]
    faults = 0
    for call in calls:
        for number in range(1, 2000):
            shutil.rmtree(folder, ignore_errors=True)
            save(folder, old)
            inject = ["-e", f"inject={call}:{fault}:when={number}"]
            if call in ("openat", "close"):
                inject = ["-P", str(folder), *inject]
            done = subprocess.run([*strace, *inject, *python], capture_output=True)
            newest = load_newest(folder)
            assert newest.step in (5, 7) and verify(folder / f"step-{newest.step}")
            if done.returncode == 0:
                assert newest.step == 7
                if "INJECTED" not in (tmp_path / "log").read_text() and "killed" not in (tmp_path / "log").read_text():
                    break
            else:
                faults += 1
    assert faults > 20


# ---- the same folder in transformers -----------------------------------------------------------------------------


def test_transformers_opens_it_and_we_open_what_it_saves(tmp_path, make_checkpoint):
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    from gpt_numpy import GPT, layers

    live = make_checkpoint()
    path = save(tmp_path, live)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not any(info.values()), info
    tokens = np.random.default_rng(0).integers(0, live.config.vocab_size, (2, 7))
    ours = GPT(live.config, ops=layers, params=live.params).forward(tokens)
    np.testing.assert_allclose(theirs(torch.tensor(tokens)).logits.detach().numpy(), ours, atol=1e-5)
    theirs.save_pretrained(tmp_path / "theirs")
    again = GPT.load(tmp_path / "theirs", ops=layers)
    assert np.array_equal(again.params.flat, live.params.flat)
