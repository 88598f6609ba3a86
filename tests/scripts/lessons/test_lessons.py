"""Every lesson runs, becomes a notebook of the same code, and ends in an assertion that a broken layer fails."""

import ast
import functools
import importlib.util
import io
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys
import types
import xml.etree.ElementTree

import numpy as np
import pytest

import gpt_numpy
import gpt_numpy.data
from gpt_numpy import Tokenizer, kernels, layers
from gpt_numpy.inference.decoder import OpsDecoder
from gpt_numpy.study import lesson_files
from gpt_numpy.study.bugs import BUGS, plant

RUN = pathlib.Path(__file__).parents[3] / "scripts" / "lessons" / "run.py"
spec = importlib.util.spec_from_file_location("lessons_run", RUN)
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)
LESSONS = {path.stem: path for path in run.lessons()}
LABS = {path.stem: path for path in lesson_files.labs(run.FOLDER).values()}
EVERYTHING = {**LESSONS, **LABS}
NOTEBOOKS = run.FOLDER / "notebooks"


@functools.cache
def executed(name):
    return json.loads(json.dumps(run.notebook(EVERYTHING[name], executed=True)))


def code_cells(path):
    return ["".join(cell["source"]) for cell in run.notebook(path)["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", EVERYTHING)
def test_the_notebook_is_the_script(name):
    notebook = json.loads(json.dumps(run.notebook(EVERYTHING[name])))
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    code = "\n".join(code_cells(EVERYTHING[name]))
    assert ast.dump(ast.parse(code)) == ast.dump(ast.parse(EVERYTHING[name].read_text(encoding="utf-8")))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    first = notebook["cells"][0]
    number = f"# Lab {name[4]}. " if name in LABS else f"# {int(name[:2])}. "
    assert first["cell_type"] == "markdown" and "".join(first["source"]).startswith(number)
    text = "".join(line for cell in notebook["cells"] if cell["cell_type"] == "markdown" for line in cell["source"])
    of_lessons = () if name in LABS else ("by hand", "Break it")
    for part in ("**Symbols.**", "**Predict.**", "## Exercise", "Answer:", *of_lessons):
        assert part.lower() in text.lower() or (part == "Break it" and "and break" in text), part


# ---- answers, pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERYTHING)
def test_answers_are_folded_away_and_nowhere_else(name):
    """One for the prediction, one for the exercise, at least; no sentence that begins with "Answer" outside."""
    cells = run.notebook(EVERYTHING[name])["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    folded = [text for text in texts if text.startswith("<details><summary>")]
    assert len(folded) >= 2 and all(text.endswith("</details>") and "**Answer:**" in text for text in folded)
    assert not [text for text in texts if "nswer:" in text and text not in folded]
    answers = [text for kind, text in run.cells(EVERYTHING[name]) if kind == "answer"]
    assert len(answers) == len(folded)


@pytest.mark.parametrize("name", EVERYTHING)
def test_code_and_outputs_that_give_an_answer_away_are_collapsed(name):
    """Code that proves an answer follows the answer, and its source and outputs are hidden; the last cell is such code."""
    kinds = [kind for kind, _ in run.cells(EVERYTHING[name])]
    assert kinds[-1] == "proof" and all(a in ("answer", "proof") for a, b in zip(kinds, kinds[1:]) if b == "proof")
    for kind, cell in zip(kinds, executed(name)["cells"]):
        collapsed = cell["metadata"].get("jupyter", {})
        assert collapsed == ({"source_hidden": True, "outputs_hidden": True} if kind == "proof" else {})
    shown = [cell for kind, cell in zip(kinds, executed(name)["cells"]) if kind != "proof"]
    printed = "".join("".join(o.get("text", ())) for cell in shown for o in cell.get("outputs", ()))
    assert "nswer" not in printed


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_lesson_runs_top_to_bottom_and_shows_a_picture(name):
    notebook = executed(name)
    kinds = [kind for kind, _ in run.cells(EVERYTHING[name])]
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert any(
        "svg" in str(o.get("data")) for k, c in zip(kinds, notebook["cells"]) if k == "code" for o in c["outputs"]
    )
    pictures = ["".join(o["data"]["image/svg+xml"]) for o in outputs if o["output_type"] == "display_data"]
    assert pictures
    for picture in pictures:
        root = xml.etree.ElementTree.fromstring(picture)
        assert root.tag.endswith("svg") and len(root) > 3
        assert_texts_fit(root)
    printed = "".join(line for o in outputs if o["output_type"] == "stream" for line in o["text"])
    number = f"lab {name[4]}" if name in LABS else f"lesson {int(name[:2])}"
    assert printed.endswith(f"{number} holds\n")
    if importlib.util.find_spec("nbformat"):
        import nbformat

        nbformat.validate(nbformat.from_dict(notebook))


# ---- the notebooks that are shipped ----------------------------------------------------------------------------------

MEASURING = re.compile(r"milliseconds\(|perf_counter|measured\(|peak_flops|phase\.|shares|useful|peak /")
FIGURE = re.compile(r"[+-]?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")


def test_one_notebook_is_shipped_for_each_lesson_and_lab():
    assert {path.stem for path in NOTEBOOKS.iterdir()} == set(EVERYTHING)
    assert sum(path.stat().st_size for path in NOTEBOOKS.iterdir()) < 2e6


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_shipped_notebook_is_what_its_lesson_gives(name):
    """To make them anew: ``python scripts/lessons/run.py --to-notebook scripts/lessons/notebooks``."""
    shipped = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    found = executed(name)
    assert {**shipped, "cells": None} == {**found, "cells": None}
    assert len(shipped["cells"]) == len(found["cells"])
    for old, new in zip(shipped["cells"], found["cells"]):
        assert {**old, "outputs": None} == {**new, "outputs": None}
        if not MEASURING.search("".join(new["source"])):
            assert_same_outputs(old.get("outputs", []), new.get("outputs", []))


def assert_same_outputs(old, new):
    """The same words and pictures, and figures that agree to what another machine's rounding may change."""
    assert [o["output_type"] for o in old] == [o["output_type"] for o in new]
    for a, b in zip(old, new):
        slack = 1e-6 if a["output_type"] == "stream" else 4  # pixels
        if a["output_type"] == "stream":
            a, b = "".join(a["text"]), "".join(b["text"])
        else:
            a, b = (re.sub(r"#[0-9a-f]{6}", "", "".join(o["data"]["image/svg+xml"])) for o in (a, b))
        assert FIGURE.sub("#", a) == FIGURE.sub("#", b)
        for x, y in zip(FIGURE.findall(a), FIGURE.findall(b)):
            x, y = float(x.replace(",", "")), float(y.replace(",", ""))
            assert abs(x - y) <= 0.02 * max(abs(x), abs(y)) + slack, (a, b)


def test_a_shipped_notebook_that_is_out_of_date_is_noticed():
    old = [{"output_type": "stream", "name": "stdout", "text": ["loss 2.398, error 3e-11\n"]}]
    assert_same_outputs(old, [{**old[0], "text": ["loss 2.399, error 7e-10\n"]}])
    for text in ("loss 2.5, error 3e-11\n", "Loss 2.398, error 3e-11\n", "loss 2.398\n"):
        with pytest.raises(AssertionError):
            assert_same_outputs(old, [{**old[0], "text": [text]}])


def test_a_copy_of_a_shipped_notebook_is_the_readers(tmp_path):
    path = LESSONS["04_chain_rule"]
    copy, new = lesson_files.copy_notebook(path, tmp_path)
    assert new and copy.read_bytes() == (NOTEBOOKS / "04_chain_rule.ipynb").read_bytes()
    copy.write_text("worked on")
    assert lesson_files.copy_notebook(path, tmp_path) == (copy, False) and copy.read_text() == "worked on"
    assert lesson_files.copy_notebook(path, tmp_path, again=True) == (copy, True) and copy.stat().st_size > 1000


def test_jupyter_trusts_a_copy_and_so_shows_its_pictures(tmp_path, monkeypatch):
    sign = pytest.importorskip("nbformat.sign")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    copy, _ = lesson_files.copy_notebook(LESSONS["07_layernorm"], tmp_path)
    notebook = sys.modules["nbformat"].read(copy, as_version=4)
    assert sign.NotebookNotary().check_signature(notebook)
    notebook["cells"][1]["source"] += "# changed"
    assert not sign.NotebookNotary().check_signature(notebook)


def assert_texts_fit(svg):
    """Every text lies within the picture, and none of a graph's red labels on a box."""
    width, height = (float(part) for part in svg.get("viewBox").split()[2:])
    boxes = [e for e in svg.iter() if e.tag.endswith("rect") and e.get("fill") == "#f4f1ea"]
    for text in (e for e in svg.iter() if e.tag.endswith("}text")):
        x, y, long = (
            float(text.get("x")),
            float(text.get("y")),
            6.0 * len(text.text or ""),
        )  # most letters are 6 pixels wide
        left = x - long * {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")]
        assert left >= 0 and left + long <= width and 0 < y <= height, text.text
        if text.get("fill") == "#b2182b":
            for box in boxes:
                bx, by, bw, bh = (float(box.get(name)) for name in ("x", "y", "width", "height"))
                assert left > bx + bw - 2 or left + long < bx + 2 or not by < y < by + bh, text.text


WORDS = ("the way back", "undoes", "collects one term", "at the place", "each place", "places see", "gives it away")


@pytest.mark.parametrize("name", EVERYTHING)
def test_words_that_were_replaced_stay_out(name):
    text = EVERYTHING[name].read_text(encoding="utf-8").lower()
    assert not [word for word in WORDS if word in text]
    assert not re.findall(r"\bplaces?\b", text)


# ---- in a terminal ---------------------------------------------------------------------------------------------------


def test_a_terminal_shows_prose_code_and_results_and_waits_before_answers(capsys):
    waits = []
    lesson_files.read_aloud(LESSONS["04_chain_rule"], wait=lambda: waits.append(len(capsys.readouterr().out)))
    out = capsys.readouterr().out
    assert len(waits) == 2 and all(waits)
    assert out.index("Answer:") < out.index("    | def permuting") < out.index("lesson 4 holds")
    assert all(len(line) <= 130 for line in out.splitlines())


def test_a_key_is_asked_for_on_a_terminal_only(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("builtins.input", asked.append)
    lesson_files.read_aloud(LESSONS["00_chain_rule_by_hand"])
    assert not asked
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("sys.stdout", Terminal())
    lesson_files.read_aloud(LESSONS["00_chain_rule_by_hand"])
    assert len(asked) == 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_lessons_are_part_of_the_package(monkeypatch):
    """``setup.py`` installs them beside the code that runs them; in a checkout that code finds them in scripts/."""
    given = {}
    setuptools = types.ModuleType("setuptools")
    setuptools.find_packages, setuptools.setup = lambda include: ["gpt_numpy"], lambda **fields: given.update(fields)
    monkeypatch.setitem(sys.modules, "setuptools", setuptools)
    checkout = RUN.parents[2]
    runpy.run_path(str(checkout / "setup.py"))
    name = ".".join(lesson_files.INSTALLED.relative_to(checkout).parts)
    assert given["packages"] == ["gpt_numpy", name]
    assert (checkout / given["package_dir"][name]).samefile(RUN.parent)
    assert lesson_files.FOLDER.samefile(RUN.parent)


# ---- broken layers ---------------------------------------------------------------------------------------------------


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


def break_softmax(monkeypatch):
    from gpt_numpy.layers import attention

    monkeypatch.setattr(attention, "softmax_backward", lambda dweights, weights: weights * dweights)


def break_the_reference_softmax(monkeypatch):
    from gpt_numpy.layers import attention

    monkeypatch.setattr(attention, "softmax", lambda scores: np.exp(scores) / np.exp(scores).sum())


def break_addition(monkeypatch):
    monkeypatch.setattr(np, "allclose", lambda a, b, *args, **kwargs: False)


BREAKS = {
    "00_chain_rule_by_hand": break_addition,
    "01_tokenizer": break_decoding,
    "02_data_pipeline": break_document_masks,
    "03_architecture": break_layers("attention-mask-leaks-one-key"),
    "04_chain_rule": break_layers("linear-bias-gradient-averaged"),
    "05_gelu_and_mlp": break_layers("gelu-product-rule-forgotten"),
    "06_softmax_cross_entropy": break_layers("cross-entropy-target-not-subtracted"),
    "07_layernorm": break_layers("layernorm-variance-term-forgotten"),
    "08_1_softmax": break_softmax,
    "08_2_one_head": break_layers("attention-softmax-row-sum-forgotten"),
    "08_3_multi_head": break_layers("multi-head-thirds-exchanged"),
    "09_embedding_and_head": break_layers("embedding-overwrites-repeated-tokens"),
    "10_residual_and_dropout": break_layers("residual-stream-dropped"),
    "11_backward_of_the_model": break_layers("linear-last-sequence-only"),
    "12_training": break_bias_correction,
    "13_generation": break_positions_in_decoding,
    "14_kernels": break_the_tail,
    "15_write_a_kernel": break_the_reference_softmax,
    "16_beyond_gpt2": break_layers("rmsnorm-stretch-term-forgotten"),
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
    converted = call("--to-notebook", str(tmp_path), "00", "08")
    assert converted.returncode == 0 and len(list(tmp_path.glob("*.ipynb"))) == 4
    assert call("99").returncode == 1
