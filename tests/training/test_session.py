import json
import math
import signal
import threading

import numpy as np
import pytest

from gpt_numpy.errors import CheckpointCorrupt, CheckpointMismatch, ConfigError, DataError, RunLocked
from gpt_numpy.inference.loading import find_model
from gpt_numpy.training import Settings, checkpoint, config_file, resume, start
from gpt_numpy.training.metrics import read_metrics
from gpt_numpy.training.run_folder import RunFolder

TIMING = ("tokens_per_second", "seconds")


def everything(folder):
    """What has to be equal, bit for bit, in two runs: the newest checkpoint and all that was measured."""
    saved = checkpoint.load_newest(folder / "checkpoints")
    records = [{k: v for k, v in r.items() if k not in TIMING} for r in read_metrics(folder / "metrics.jsonl")]
    state = {k: v for k, v in saved.state.items() if k != "seconds"}
    return saved.step, saved.params.flat.tobytes(), saved.first.tobytes(), saved.second.tobytes(), state, records


@pytest.fixture
def finished(tiny, tmp_path):
    outcome = start(tiny(), tmp_path / "run")
    return tmp_path / "run", outcome


def test_a_run_leaves_a_folder_that_explains_itself(tiny, tmp_path, monkeypatch):
    monkeypatch.undo()  # with pictures
    folder = tmp_path / "run"
    outcome = start(tiny(), folder)
    assert outcome.exit_code == 0 and outcome.step == 12 and outcome.reason == "finished"
    assert outcome.validation_loss < outcome.unigram_loss
    names = {path.name for path in folder.iterdir()}
    files = {"config.toml", "plan.json", "reading.json", "environment.json", "metrics.jsonl", "loss.png", "lock"}
    assert names == files | {"checkpoints"}
    assert Settings.from_mapping(config_file.read(folder / "config.toml")) == tiny()
    assert json.loads((folder / "environment.json").read_text())[0]["packages"]["numpy"] == np.__version__
    records = read_metrics(folder / "metrics.jsonl")
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 13))
    assert records[-1]["kind"] == "final" and records[-1]["loss"] == outcome.validation_loss
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_settings_give_the_same_bits(finished, tiny, tmp_path):
    start(tiny(), tmp_path / "again")
    assert everything(finished[0]) == everything(tmp_path / "again")


@pytest.mark.parametrize("ops", ["layers", "kernels"])
def test_products_in_bfloat16_are_kept_by_a_resumed_run(tiny, tmp_path, monkeypatch, ops):
    exact, whole, cut = tmp_path / "exact", tmp_path / "whole", tmp_path / "cut"
    start(tiny(ops=ops), exact)
    start(tiny(ops=ops, products="bfloat16"), whole)
    interrupt_at(monkeypatch, 5)
    start(tiny(ops=ops, products="bfloat16"), cut)
    monkeypatch.undo()
    resume(cut)
    assert everything(cut) == everything(whole)
    assert everything(whole)[1] != everything(exact)[1]
    with pytest.raises(ConfigError, match="products"):
        resume(cut, {"products": "float32"})


@pytest.mark.parametrize(
    "parts",
    [
        dict(norm="rmsnorm", positions="rotary", mlp="swiglu", n_inner=20, n_kv_head=1, bias="none", qk_norm=True),
        dict(norm="rmsnorm", mlp="geglu", tied=False, sliding_window=9, window_from=1, bias="mlp", head_dim=6),
    ],
    ids=["Llama's", "nobody's"],
)
def test_the_parts_of_a_model_are_kept_by_a_resumed_run(finished, tiny, tmp_path, monkeypatch, parts):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start(tiny(**parts), whole)
    interrupt_at(monkeypatch, 5)
    start(tiny(**parts), cut)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="norm: cannot change|, norm: "):
        resume(cut, {"norm": "layernorm"})
    resume(cut)
    assert everything(cut) == everything(whole)
    saved, kept = checkpoint.load_newest(whole / "checkpoints").config, tiny(**parts).model_config(19)
    assert saved.differing() == kept.differing() != {}
    assert json.loads((whole / "plan.json").read_text())["model"]["parts"] == kept.differing()
    assert Settings.from_mapping(config_file.read(whole / "config.toml")) == tiny(**parts)


@pytest.mark.parametrize("stop_after", [1, 5, 8])
def test_interrupted_equals_uninterrupted(finished, tiny, tmp_path, stop_after, monkeypatch):
    folder = tmp_path / "interrupted"
    interrupt_at(monkeypatch, stop_after)
    outcome = start(tiny(dropout=0.0), folder)
    assert outcome.exit_code == 130 and outcome.step == stop_after and math.isnan(outcome.validation_loss)
    monkeypatch.undo()
    assert resume(folder).step == 12
    assert everything(folder) == everything(finished[0])


def test_interrupted_equals_uninterrupted_with_kernels(tiny, tmp_path, monkeypatch):
    settings = tiny(ops="kernels", dropout=0.1)
    whole = start(settings, tmp_path / "whole")
    interrupt_at(monkeypatch, 7)
    start(settings, tmp_path / "interrupted")
    monkeypatch.undo()
    resume(tmp_path / "interrupted")
    assert everything(tmp_path / "interrupted") == everything(tmp_path / "whole")
    plain = start(settings.replace(ops="layers"), tmp_path / "layers")
    assert abs(plain.validation_loss - whole.validation_loss) < 1e-4


def interrupt_at(monkeypatch, step):
    from gpt_numpy.training.watcher import Watcher

    plain = Watcher.on_step

    def on_step(self, trainer, result):
        plain(self, trainer, result)
        if trainer.state.step == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Watcher, "on_step", on_step)


def test_resuming_at_the_end_changes_nothing_and_may_go_on(finished):
    folder, _ = finished
    before = everything(folder)
    assert resume(folder).reason == "finished"
    after = everything(folder)
    assert after[:5] == before[:5]
    assert resume(folder, {"max_steps": 15}).step == 15


def test_what_cannot_change_cannot(finished):
    with pytest.raises(ConfigError, match="cannot change.*0.5"):
        resume(finished[0], {"learning_rate": 0.5})


def test_changed_data_is_refused(tiny, tmp_path, text_file):
    text = tmp_path / "text.txt"
    text.write_text(text_file.read_text(encoding="utf-8"), encoding="utf-8")
    start(tiny(data=(str(text),)), tmp_path / "run")
    text.write_text(text.read_text(encoding="utf-8").replace("cat", "dog"), encoding="utf-8")
    with pytest.raises(DataError, match="not the data"):
        resume(tmp_path / "run")


def test_the_newest_whole_checkpoint_counts(finished):
    folder, _ = finished
    newest = checkpoint.list_checkpoints(folder / "checkpoints")[-1][1]
    flip(newest / "model.safetensors")
    with pytest.warns(UserWarning, match="trying the checkpoint before"):
        assert resume(folder).step == 12
    checkpoint.verify(newest)  # written anew, the broken one out of the way


def flip(path, where=-1):
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)


def test_without_a_whole_checkpoint_there_is_no_fresh_start(finished):
    folder, _ = finished
    for _, path in checkpoint.list_checkpoints(folder / "checkpoints"):
        flip(path / "optimizer.safetensors")
    with pytest.warns(UserWarning), pytest.raises(CheckpointCorrupt, match="no checkpoint to resume from"):
        resume(folder)
    with pytest.raises(ConfigError, match="no such run"):
        resume(folder / "nothing")


def test_a_folder_has_one_run(finished, tiny):
    with pytest.raises(ConfigError, match="there is a run"):
        start(tiny(), finished[0])


def test_two_processes_cannot_train_in_one_folder(finished):
    with RunFolder(finished[0]):
        with pytest.raises(RunLocked, match="process"):
            resume(finished[0])
    assert resume(finished[0]).reason == "finished"


def test_the_model_to_use_is_the_best(tiny, tmp_path):
    # The learning rate rises until it destroys what was learned, so that the newest is not the best.
    start(tiny(learning_rate=0.6, warmup_steps=60, max_steps=20, keep=1, clip=0.0), tmp_path / "run")
    state = checkpoint.load_newest(tmp_path / "run" / "checkpoints").state
    steps = [step for step, _ in checkpoint.list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert steps == [state["best_step"], 20] and 0 < state["best_step"] < 20
    assert find_model(tmp_path / "run").name == f"step-{state['best_step']}"


def test_samples_are_kept(tiny, tmp_path):
    start(tiny(sample_every=5, sample_tokens=9, prompt="the cat"), tmp_path / "run")
    text = (tmp_path / "run" / "samples.txt").read_text(encoding="utf-8")
    assert text.count("---- step") == 2
    assert "---- step 10\nthe cat" in text


# ---- starting from another model -----------------------------------------------------------------------------


@pytest.mark.parametrize("how,block_size", [("crop", 20), ("extend", 40)])
def test_fine_tuning_with_other_positions(finished, tiny, tmp_path, how, block_size):
    source = checkpoint.load_newest(finished[0] / "checkpoints")
    s = tiny(
        preset="small-cpu",
        init_from=str(find_model(finished[0])),
        block_size=block_size,
        positions=how,
        max_steps=1,
        learning_rate=0.0,
    )
    start(s, tmp_path / "tuned")
    tuned = checkpoint.load_newest(tmp_path / "tuned" / "checkpoints")
    assert tuned.config == source.config.replace(block_size=block_size)
    kept = min(20 if how == "crop" else 32, block_size)
    for name, view in tuned.params.items():
        if name == "wpe.weight":
            assert np.array_equal(view[:kept], source.params[name][:kept]) and view[kept:].all()
        else:
            assert np.array_equal(view, source.params[name]), name


@pytest.mark.parametrize("block_size", [20, 40])
def test_fine_tuning_rotary_positions_with_another_block_size(tiny, tmp_path, block_size):
    start(tiny(positions="rotary", max_steps=1), tmp_path / "first")
    changes = dict(
        init_from=str(tmp_path / "first"), block_size=block_size, max_steps=1, learning_rate=0.0, preset="small-cpu"
    )
    with pytest.raises(ConfigError, match="32 rotary positions and .*expected keep"):
        start(tiny(**changes, positions="crop" if block_size < 32 else "extend"), tmp_path / "refused")
    start(tiny(**changes), tmp_path / "tuned")
    source, tuned = (checkpoint.load_newest(tmp_path / name / "checkpoints") for name in ("first", "tuned"))
    assert tuned.config == source.config.replace(block_size=block_size)
    assert (tuned.params.flat == source.params.flat).all()


def test_fine_tuning_takes_no_position_away_unasked(finished, tiny, tmp_path):
    with pytest.raises(ConfigError, match="expected crop"):
        start(tiny(init_from=str(find_model(finished[0])), block_size=20), tmp_path / "tuned")


def test_fine_tuning_a_model_of_fewer_tokens(finished, tiny, tmp_path, make_checkpoint):
    small = make_checkpoint()
    path = checkpoint.save(tmp_path / "small", small)
    (finished_tokenizer := checkpoint.load_newest(finished[0] / "checkpoints").tokenizer).save(tmp_path / "other")
    assert finished_tokenizer.n_vocab > small.config.vocab_size
    with pytest.raises(CheckpointMismatch, match="more tokens than the model"):
        start(tiny(init_from=str(path), tokenizer=str(tmp_path / "other")), tmp_path / "tuned")


# ---- faults --------------------------------------------------------------------------------------------------


def test_an_output_that_cannot_be_written_is_found_first(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        start(tiny(), tmp_path / "file" / "run")


def test_too_little_memory_is_said_in_bytes(tiny, tmp_path, monkeypatch):
    from gpt_numpy.machine import memory

    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    with pytest.raises(ConfigError, match="'10,000 bytes free'.*at least [0-9,]+ bytes"):
        start(tiny(), tmp_path / "run")


def test_a_full_disk_for_the_log_does_not_end_the_run(tiny, tmp_path, monkeypatch, capsys):
    from gpt_numpy.files import durable

    def full(path, content, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "append", full)
    assert start(tiny(), tmp_path / "run").step == 12
    assert capsys.readouterr().err.count("the disk is full") == 1
    assert checkpoint.load_newest(tmp_path / "run" / "checkpoints").step == 12


def test_a_full_disk_for_a_checkpoint_ends_the_run_and_keeps_the_old_one(tiny, tmp_path, monkeypatch):
    plain, calls = checkpoint._write_files, []

    def full(folder, live):
        calls.append(live.step)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        plain(folder, live)

    monkeypatch.setattr(checkpoint, "_write_files", full)
    with pytest.raises(OSError, match="No space left"):
        start(tiny(), tmp_path / "run")
    assert checkpoint.load_newest(tmp_path / "run" / "checkpoints").step == calls[0]
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    assert not [t for t in threading.enumerate() if t.name == "checkpoint"]


def test_a_signal_in_the_last_validation_ends_it_and_keeps_the_steps(tiny, tmp_path, monkeypatch):
    from gpt_numpy.training import trainer as module

    plain, calls = module.evaluate, []

    def slow(model, corpus, rows, limit, *rest):
        if limit == 0:
            calls.append(limit)
            signal.raise_signal(signal.SIGTERM)
        return plain(model, corpus, rows, limit, *rest)

    monkeypatch.setattr(module, "evaluate", slow)
    outcome = start(tiny(), tmp_path / "run")
    assert calls and outcome.exit_code == 143 and outcome.step == 12 and math.isnan(outcome.validation_loss)
    monkeypatch.undo()
    assert resume(tmp_path / "run").validation_loss > 0
