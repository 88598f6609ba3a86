"""The ablations: equal budgets, one part at a time, and a run that was stopped goes on."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from gpt_numpy.machine.cost import step_flops
from gpt_numpy.parameters import count
from gpt_numpy.training import plots, trainer

PATH = Path(__file__).parents[2] / "scripts" / "ablate.py"


@pytest.fixture
def ablate(monkeypatch):
    spec = importlib.util.spec_from_file_location("ablate", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ablate", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BASE", module.BASE.replace(ops="layers"))  # nothing to compile
    return module


@pytest.fixture
def run(ablate, tmp_path, monkeypatch):
    """Run the script on a small text; returns its exit code."""
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 60, encoding="utf-8")

    def run(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["ablate.py", str(text), "--out", str(tmp_path / "out"), "--quick", *arguments]
        )
        with pytest.raises(SystemExit) as ended:
            ablate.main()
        return ended.value.code

    return run


def test_every_model_changes_one_part_at_the_base_s_cost(ablate):
    for base in (ablate.BASE, ablate.BASE.replace(**ablate.QUICK)):
        shape = base.batch_size, base.block_size
        budget = 1000 * sum(step_flops(base.model_config(65), *shape).values())
        changes = ablate.variants(base)
        differing = [frozenset(base.replace(**own).model_config(65).differing()) for own in changes.values()]
        assert len(set(differing)) == len(changes) and differing[0] == frozenset()
        for name, own in changes.items():
            config = base.replace(**own).model_config(65)
            row = ablate._row(base.replace(**own), base, 65, 1000)
            step = sum(step_flops(config, *shape).values())
            assert row["operations"] == row["steps"] * step and abs(row["operations"] - budget) <= step / 2
            extra = 65 * base.n_embd if name == "untied" else 0
            assert count(config) - extra == pytest.approx(count(base.model_config(65)), rel=0.06), name
            assert len(differing[list(changes).index(name)] - {"n_inner"}) == {"gpt2": 0, "llama": 5}.get(name, 1)


def test_a_stopped_ablation_goes_on_and_trains_nothing_twice(ablate, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plots, "available", lambda: False)
    step, steps = trainer.Trainer.train_step, []

    def killed(self, parts=None):
        steps.append(self.state.step)
        if len(steps) == 12:  # in the second of four runs
            raise KeyboardInterrupt
        return step(self, parts)

    monkeypatch.setattr(trainer.Trainer, "train_step", killed)
    assert run("--only", "rmsnorm", "--seeds", "1", "2") == 130
    first = {path: path.read_bytes() for path in (tmp_path / "out" / "gpt2-seed-1").glob("metrics.jsonl")}
    assert run("--only", "rmsnorm", "--seeds", "1", "2") == 0
    assert len(steps) == 12 + 8 + 2 * 8 and first and all(path.read_bytes() == kept for path, kept in first.items())
    table = capsys.readouterr().out
    models = json.loads((tmp_path / "out" / "ablation.json").read_text())["models"]
    assert list(models) == ["gpt2", "rmsnorm"] and all(len(row["losses"]) == 2 for row in models.values())
    mine, base = models["rmsnorm"]["losses"], models["gpt2"]["losses"]
    difference = (mine[0] - base[0] + mine[1] - base[1]) / 2
    assert models["rmsnorm"]["difference"] == pytest.approx(difference) and f"{difference:+.4f} ± " in table
    assert run("--only", "rmsnorm", "--seeds", "1", "2", "3") == 0  # a third seed, for both models
    assert len(steps) == 12 + 8 + 2 * 8 + 2 * 8
    assert run("--only", "rmsnorm", "--steps", "9") == 2
    assert "a run with other settings is in this folder" in capsys.readouterr().err


def test_the_picture(ablate, run, tmp_path):
    pytest.importorskip("matplotlib")
    assert run("--only", "window", "llama", "--seeds", "5", "6") == 0
    assert (tmp_path / "out" / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_differences_are_told_from_noise_by_student_s_t(ablate):
    def row(*differences):
        mean, deviation = ablate._mean_and_deviation(list(differences))
        return {"losses": differences, "difference": mean, "difference_deviation": deviation}

    assert ablate.is_clear(row(0.10, 0.11, 0.12)) and not ablate.is_clear(row(0.1, 0.11, 0.2))
    assert not ablate.is_clear(row(0.1)) and not ablate.is_clear(row())
