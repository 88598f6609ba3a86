"""The whole-run comparison, shortened: either side trains and says its loss over the validation text."""

import argparse
import json

import pytest

from benchmarks import recipe
from benchmarks.peers import torch_recipe


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("To be, or not to be, that is the question.\n" * 400, encoding="utf-8")
    return path


def test_our_side_reports_the_loss_over_the_validation_text(text):
    loss = recipe._ours(text, "--max-steps", "1", "--eval-windows", "2", "--ops", "layers")
    assert 2 < loss < 4


def test_pytorchs_side(text, monkeypatch, capsys):
    pytest.importorskip("torch", reason="needs torch")
    monkeypatch.setattr(torch_recipe, "STEPS", 1)
    monkeypatch.setattr(torch_recipe, "EVAL_BATCHES", 1)
    torch_recipe.main(text)
    assert 2 < json.loads(capsys.readouterr().out.splitlines()[-1])["validation_loss"] < 4


def test_a_missing_package_is_no_failure(monkeypatch):
    assert recipe._summary([(1.0, None)]) == {"missing": "torch"}


def test_every_contender_runs_and_is_reported(text, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(recipe, "_ours", lambda data, *flags: asked.append(flags) or 1.5 + ("bfloat16" in flags))
    monkeypatch.setattr(recipe, "_torch", lambda data: None)
    results = recipe.run(argparse.Namespace(data=text, rounds=2))
    assert results["gpt_numpy"]["validation_loss"] == 1.5 and results["gpt_numpy bfloat16"]["validation_loss"] == 2.5
    assert results["pytorch"] == {"missing": "torch"} and "not installed" in capsys.readouterr().out
    warm, timed = asked[:2], asked[2:]
    assert all("--max-steps" in flags for flags in warm) and not any("--max-steps" in flags for flags in timed)
