"""The recipes are made to be copied: each has to be complete and, shortened, to run."""

import runpy
import sys
from pathlib import Path

import pytest

from gpt_numpy.commands.train import flags_of
from gpt_numpy.training import Settings, checkpoint, config_file

SCRIPTS = Path(__file__).parents[2] / "scripts"
SHORT = "--max-steps 2 --eval-every 1 --eval-windows 2 --sample-every 2 --sample-tokens 3 --batch-size 2 --ops layers".split()


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("To be, or not to be, that is the question.\n" * 400, encoding="utf-8")
    return path


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a script shortened, with more arguments; returns the settings of its run and its newest checkpoint."""

    def run(name, *arguments):
        out = tmp_path / "run"
        monkeypatch.setattr(sys, "argv", [name, *SHORT, "--out", str(out), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        assert ended.value.code == 0
        return config_file.read(out / "config.toml"), checkpoint.load_newest(out / "checkpoints")

    return run


def test_shakespeare_char_is_nanogpts(run, text):
    settings = runpy.run_path(str(SCRIPTS / "shakespeare_char.py"))["settings"]
    assert (settings.n_layer, settings.n_head, settings.n_embd, settings.block_size) == (4, 4, 128, 64)
    assert (settings.batch_size, settings.max_steps, settings.dropout) == (12, 2000, 0.0)
    used, newest = run("shakespeare_char", "--data", text)
    assert newest.step == 2 and used["n_embd"] == 128 and used["tokenizer"] == "char"


def test_shakespeare_char_without_its_text_says_which_file(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["shakespeare_char.py"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / "shakespeare_char.py"), run_name="__main__")
    error = capsys.readouterr().err
    assert ended.value.code == 3 and "data/shakespeare/tinyshakespeare.txt: there is no such file" in error
    assert "gpt-numpy download shakespeare" in error and error.count("\n") == 1


def test_python_docs(run):
    small = "--vocab-size 300 --n-layer 1 --n-head 2 --n-embd 8 --block-size 500".split()  # a second, not a minute
    used, newest = run("python_docs", *small)
    assert newest.step == 2 and used["dropout"] == 0.2


def test_finetune(run, text, tmp_path):
    from gpt_numpy import GPT, GPTConfig, layers
    from gpt_numpy.tokenizer import Tokenizer

    GPT(GPTConfig(300, 512, 1, 2, 16), seed=1, ops=layers).save(tmp_path / "model")
    Tokenizer.train([text.read_text(encoding="utf-8") + "abcdefghijklmnopqrstuvwxyz" * 9], 300).save(tmp_path / "model")
    used, newest = run("finetune", "--data", text, "--init-from", tmp_path / "model")
    assert newest.config.block_size == 256 and used["schedule"] == "constant"


def test_the_flags_of_settings():
    assert flags_of(Settings()) == []
    settings = Settings(data=("a", "b"), recompute=True, learning_rate=1e-3)
    assert sorted(flags_of(settings)) == sorted(["--data", "a", "b", "--recompute", "--learning-rate", "0.001"])
