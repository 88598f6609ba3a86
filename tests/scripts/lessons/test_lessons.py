"""Every lesson runs, becomes a notebook of the same code, and ends in an assertion that a broken layer fails."""

import ast
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import gpt_numpy
import gpt_numpy.data
from gpt_numpy import Tokenizer, kernels, layers
from gpt_numpy.inference.decoder import OpsDecoder
from gpt_numpy.study.bugs import BUGS, plant

RUN = pathlib.Path(__file__).parents[3] / "scripts" / "lessons" / "run.py"
spec = importlib.util.spec_from_file_location("lessons_run", RUN)
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)
LESSONS = {path.stem: path for path in run.lessons()}


@pytest.fixture(autouse=True)
def no_windows(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))


def code_cells(path):
    return ["".join(cell["source"]) for cell in run.notebook(path)["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_runs_as_a_notebook_top_to_bottom(name, capsys):
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(LESSONS[name])):
        exec(compile(cell, f"{name}, cell {number}", "exec"), namespace)
    assert capsys.readouterr().out.endswith(f"lesson {int(name[:2])} holds\n")


@pytest.mark.parametrize("name", LESSONS)
def test_the_notebook_is_the_script(name):
    notebook = json.loads(json.dumps(run.notebook(LESSONS[name])))
    code = "\n".join(code_cells(LESSONS[name]))
    assert ast.dump(ast.parse(code)) == ast.dump(ast.parse(LESSONS[name].read_text(encoding="utf-8")))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    first = notebook["cells"][0]
    assert first["cell_type"] == "markdown" and "".join(first["source"]).startswith(f"# {int(name[:2])}. ")
    text = "".join(line for cell in notebook["cells"] if cell["cell_type"] == "markdown" for line in cell["source"])
    for part in ("**Predict.**", "by hand", "## Exercise", "Answer:", "Break it"):
        assert part.lower() in text.lower() or (part == "Break it" and "and break" in text), part


def break_layers(bug):
    def apply(monkeypatch):
        monkeypatch.setattr(gpt_numpy, "layers", plant(BUGS[bug])[0])

    return apply


def break_decoding(monkeypatch):
    right = Tokenizer.decode
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids, errors="replace": right(self, list(ids)[:-1], errors))


def break_document_masks(monkeypatch):
    right = gpt_numpy.data.document_masks

    def everything_seen(inputs, targets, eot_id):
        targets, positions, first_key = right(inputs, targets, eot_id)
        return targets, positions, np.zeros_like(first_key)

    monkeypatch.setattr(gpt_numpy.data, "document_masks", everything_seen)


def break_bias_correction(monkeypatch):
    right = layers.adamw_update
    monkeypatch.setattr(layers, "adamw_update", lambda *args: right(*args[:-1], args[-1] + 1000))


def break_positions_in_decoding(monkeypatch):
    right = OpsDecoder._prepare

    def from_zero(self, tokens, cache, sequences):
        tokens, sequences, positions = right(self, tokens, cache, sequences)
        return tokens, sequences, positions - positions[:, :1]

    monkeypatch.setattr(OpsDecoder, "_prepare", from_zero)


def break_the_tail(monkeypatch):
    right = kernels.gelu_backward

    def without_tail(dout, cache):
        dx = right(dout, cache)
        dx.reshape(-1)[dx.size - dx.size % 4 :] = 0
        return dx

    monkeypatch.setattr(kernels, "gelu_backward", without_tail)


BREAKS = {
    "01_tokenizer": break_decoding,
    "02_data_pipeline": break_document_masks,
    "03_architecture": break_layers("attention-mask-leaks-one-key"),
    "04_chain_rule": break_layers("linear-bias-gradient-averaged"),
    "05_gelu_and_mlp": break_layers("gelu-product-rule-forgotten"),
    "06_softmax_cross_entropy": break_layers("cross-entropy-target-not-subtracted"),
    "07_layernorm": break_layers("layernorm-variance-term-forgotten"),
    "08_attention": break_layers("attention-softmax-row-sum-forgotten"),
    "09_embedding_and_head": break_layers("embedding-overwrites-repeated-tokens"),
    "10_residual_and_dropout": break_layers("residual-stream-dropped"),
    "11_backward_of_the_model": break_layers("linear-last-sequence-only"),
    "12_training": break_bias_correction,
    "13_generation": break_positions_in_decoding,
    "14_kernels": break_the_tail,
}


def test_every_lesson_can_be_broken():
    assert list(BREAKS) == list(LESSONS)


@pytest.mark.parametrize("name", LESSONS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_last_assertion_fails_when_the_layer_is_broken(name, monkeypatch, capsys):
    BREAKS[name](monkeypatch)
    namespace = {"__name__": "__main__"}
    *earlier, last = code_cells(LESSONS[name])
    for cell in earlier:
        try:
            exec(cell, namespace)
        except Exception:  # earlier cells compare by hand, and notice too
            pass
    with pytest.raises(AssertionError):
        exec(last, namespace)


def test_the_command_runs_and_converts(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(gpt_numpy.__file__).parents[1])}

    def call(*args):
        return subprocess.run([sys.executable, RUN, *args], capture_output=True, text=True, env=environment)

    ran = call("04")
    assert ran.returncode == 0 and "lesson 4 holds" in ran.stdout, ran.stderr
    converted = call("--to-notebook", str(tmp_path))
    assert converted.returncode == 0 and len(list(tmp_path.glob("*.ipynb"))) == len(LESSONS)
    assert call("99").returncode == 1
