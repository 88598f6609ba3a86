"""The whole-run comparison, shortened: either side trains and says its loss over the validation text."""

import argparse
import json
import runpy

import numpy as np
import pytest

from benchmarks import recipe
from benchmarks.peers import torch_gpt, torch_recipe


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


def test_pytorchs_model_starts_as_ours_does():
    pytest.importorskip("torch", reason="needs torch")
    from gpt_numpy import GPT, GPTConfig, layers

    sizes = dict(vocab_size=65, n_layer=4, n_head=4, n_embd=64)
    theirs = dict(torch_gpt.model_of(sizes | dict(block_size=32), seed=1).named_parameters())
    ours = GPT(GPTConfig(block_size=32, **sizes), seed=1, ops=layers).params
    names = {"attn.c_attn": "attn", "attn.c_proj": "proj", "mlp.c_fc": "fc", "mlp.c_proj": "out"}
    pairs = {"wte.weight": "wte.weight", "wpe.weight": "wpe.weight", "ln_f.bias": "ln_f.bias"}
    for name, short in names.items():
        pairs |= {f"h.2.{name}.{kind}": f"blocks.2.{short}.{kind}" for kind in ("weight", "bias")}
    for name, short in pairs.items():
        mine, peers = ours[name], theirs[short].detach().numpy()
        assert np.std(peers) == pytest.approx(np.std(mine), rel=0.05), name
        assert abs(np.mean(peers)) <= 0.2 * np.std(mine), name


def test_both_start_as_the_script_does():
    settings = runpy.run_path(str(recipe.ROOT / "scripts" / "shakespeare_char.py"))["settings"]
    assert settings.init_std == recipe.INIT_STD


def test_one_contender_alone(text, monkeypatch):
    monkeypatch.setattr(recipe, "_ours", lambda data, *flags: 1.5)
    results = recipe.run(argparse.Namespace(data=text, rounds=1, init_std=0.02, only=["gpt_numpy bfloat16"]))
    assert list(results) == ["gpt_numpy bfloat16"]


def test_the_summary_of_several_seeds():
    found = recipe._summary([(50.0, 1.88), (52.0, 1.90)])
    assert found["validation_loss"] == pytest.approx(1.89) and found["validation_losses"] == (1.88, 1.90)
    assert "1.8900 ± 0.0141" in recipe._in_words(found)


def test_a_missing_package_is_no_failure(monkeypatch):
    assert recipe._summary([(1.0, None)]) == {"missing": "torch"}


def test_every_contender_runs_and_is_reported(text, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(recipe, "_ours", lambda data, *flags: asked.append(flags) or 1.5 + ("bfloat16" in flags))
    monkeypatch.setattr(recipe, "_torch", lambda *arguments: None)
    results = recipe.run(argparse.Namespace(data=text, rounds=2, init_std=0.03, only=None))
    assert results["gpt_numpy"]["validation_loss"] == 1.5 and results["gpt_numpy bfloat16"]["validation_loss"] == 2.5
    assert results["pytorch"] == {"missing": "torch"} and "not installed" in capsys.readouterr().out
    warm, timed = asked[:2], asked[2:]
    assert all("--max-steps" in flags for flags in warm) and not any("--max-steps" in flags for flags in timed)
    assert [flags[flags.index("--seed") + 1] for flags in timed] == [1, 1, 2, 2]
    assert all(flags[flags.index("--init-std") + 1] == 0.03 for flags in timed)
