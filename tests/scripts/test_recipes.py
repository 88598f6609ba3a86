"""The recipes are made to be copied: each has to be complete and, shortened, to run."""

import importlib.util
import sys
from pathlib import Path

import pytest

from gpt_numpy.training import checkpoint, start

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def recipe(monkeypatch):
    """Load a script as a module, with the arguments that its first lines show."""

    def load(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("To be, or not to be, that is the question.\n" * 400, encoding="utf-8")
    return path


SHORT = dict(max_steps=2, eval_every=1, eval_windows=2, sample_every=2, sample_tokens=3, batch_size=2, ops="layers")


def test_shakespeare_char_is_nanogpts(recipe, text, tmp_path):
    settings = recipe("shakespeare_char", text).settings
    assert (settings.n_layer, settings.n_head, settings.n_embd, settings.block_size) == (4, 4, 128, 64)
    assert (settings.batch_size, settings.max_steps, settings.dropout) == (12, 2000, 0.0)
    assert start(settings.replace(**SHORT), tmp_path / "run").step == 2


def test_python_docs(recipe, tmp_path):
    settings = recipe("python_docs").settings
    small = dict(vocab_size=300, n_layer=1, n_head=2, n_embd=8, block_size=500)  # a second instead of a minute
    assert start(settings.replace(**SHORT, **small), tmp_path / "run").step == 2


def test_finetune(recipe, text, tmp_path):
    from gpt_numpy import GPT, GPTConfig, layers
    from gpt_numpy.tokenizer import Tokenizer

    GPT(GPTConfig(300, 512, 1, 2, 16), seed=1, ops=layers).save(tmp_path / "model")
    Tokenizer.train([text.read_text(encoding="utf-8") + "abcdefghijklmnopqrstuvwxyz" * 9], 300).save(tmp_path / "model")
    settings = recipe("finetune", tmp_path / "model", text).settings(str(tmp_path / "model"), str(text))
    assert start(settings.replace(**SHORT, micro_batch_size=1), tmp_path / "run").step == 2
    assert checkpoint.load_newest(tmp_path / "run" / "checkpoints").config.block_size == 256
