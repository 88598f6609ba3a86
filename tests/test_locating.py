import json
import shutil
import sys

import pytest

from gpt_numpy import GPT, layers
from gpt_numpy.commands import main
from gpt_numpy.commands.download import CATALOGUE
from gpt_numpy.errors import ModelNotFound
from gpt_numpy.locating import PUBLISHED, describe, find_model, find_tokenizer
from gpt_numpy.training import Settings, start

SETTINGS = Settings(
    tokenizer="char", preset="tiny", batch_size=2, max_steps=3, save_every=1, keep=3, eval_windows=2, ops="layers"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with three checkpoints, of which the middle one is said to be the best."""
    folder = tmp_path_factory.mktemp("located")
    text = folder / "text.txt"
    text.write_text("the cat sat on the mat and looked at the dog.\n" * 50, encoding="utf-8")
    start(SETTINGS.replace(data=(str(text),)), folder / "run")
    state = folder / "run" / "checkpoints" / "step-3" / "trainer_state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "best_step": 2}))
    return folder / "run"


def test_the_best_checkpoint_of_a_run_is_taken_and_said(run, tmp_path):
    best = run / "checkpoints" / "step-2"
    assert find_model(run) == find_tokenizer(run) == best and find_model(best) == best
    assert describe(run) == f"{run}: taking step 2, the best of its 3 checkpoints" and describe(best) is None
    other = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(other / "checkpoints" / "step-2")
    assert describe(other) == f"{other}: taking step 3, the newest of its 2 checkpoints"
    shutil.rmtree(other / "checkpoints" / "step-1")
    assert describe(other).endswith("taking step 3, its only checkpoint")


def test_a_run_is_taken_wherever_a_model_or_a_tokenizer_is(run, tmp_path, capsys, monkeypatch):
    best = run / "checkpoints" / "step-2"
    assert (GPT.load(run, ops=layers).params.flat == GPT.load(best, ops=layers).params.flat).all()
    assert main(["convert", str(best), str(tmp_path / "model.bin")]) == 0
    for line in (
        ["tokenizer", "show", "--tokenizer", str(run), "the cat"],
        ["tokenizer", "encode", "--tokenizer", str(run), "the cat"],
        ["convert", str(tmp_path / "model.bin"), str(tmp_path / "folder"), "--tokenizer", str(run)],
    ):
        assert main(line) == 0, line
    capsys.readouterr()
    settings = SETTINGS.replace(data=(str(run.parent / "text.txt"),), preset="small-cpu", init_from=str(run))
    outcome = start(settings, tmp_path / "tuned")
    assert outcome.step == 3 and capsys.readouterr().out.count("taking step 2, the best of its 3") == 1
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for line in (["score", "--model", str(run), "the cat"], ["generate", "--model", str(run), "--prompt", "the"]):
        assert main(line) == 0
        assert "taking step 2, the best of its 3 checkpoints" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2", "data/gpt2"])
def test_a_published_name_is_answered_with_the_command_that_fetches_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound, match="no such folder: expected data/gpt2, after 'gpt-numpy download gpt2'"):
        find_model(name)
    if name != "data/gpt2":
        (tmp_path / "data" / "gpt2").mkdir(parents=True)
        with pytest.raises(ModelNotFound, match="no such folder: expected data/gpt2$"):
            find_model(name)


def test_what_can_be_downloaded_is_in_the_catalogue():
    assert set(PUBLISHED.values()) <= set(CATALOGUE)


@pytest.mark.parametrize("command", ["generate --prompt a --model", "score a --model", "train --init-from"])
def test_a_folder_that_is_not_there(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "nosuch"]) == 3
    assert "nosuch: no such folder" in capsys.readouterr().err
    (tmp_path / "runs" / "nosuch").mkdir(parents=True)
    assert main([*command.split(), "nosuch"]) == 3
    assert "expected runs/nosuch" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([*command.split(), "file"]) == 3
    assert "file: not a folder" in capsys.readouterr().err


def test_a_run_that_has_saved_nothing(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ModelNotFound, match="no checkpoint yet"):
        find_model(tmp_path)


@pytest.mark.parametrize("best", [{}, [2], "2", 2.0, True, None, 9])
def test_a_state_that_names_no_best_checkpoint_means_the_newest(run, tmp_path, best):
    other = shutil.copytree(run, tmp_path / "run")
    (other / "checkpoints" / "step-3" / "trainer_state.json").write_text(json.dumps({"best_step": best}))
    assert find_model(other) == other / "checkpoints" / "step-3"
