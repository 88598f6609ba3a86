import json

import pytest

from gpt_numpy.commands import main
from gpt_numpy.errors import ConfigError, NonFinite
from gpt_numpy.sweeping import Sweep, parse_axes
from gpt_numpy.training import Settings, plots, trainer


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat and looked at the dog.\n" * 60, encoding="utf-8")
    return str(path)


@pytest.fixture
def sweep(text, tmp_path):
    base = dict(tokenizer="char", preset="tiny", batch_size=2, max_steps=4, save_every=2, eval_windows=2, ops="layers")
    return Sweep(tmp_path / "sweep", Settings(data=(text,), **base), parse_axes(["lr=1e-3,1e-2", "n_embd=8,16"]))


def names(sweep):
    return [run.name for run in sweep.runs()]


def test_axes():
    assert parse_axes(["n-layer=1,2", "schedule=cosine,wsd", "recompute=true,false"]) == {
        "n_layer": [1, 2],
        "schedule": ["cosine", "wsd"],
        "recompute": [True, False],
    }
    for text, message in (
        ("n_emd=3", "did you mean 'n_embd'"),
        ("n_embd=x", "'x' is no value"),
        ("n_embd=8,8", "twice"),
        ("data=a", "a list"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_axes([text])
    with pytest.raises(ConfigError, match="combined twice"):
        parse_axes(["lr=1", "learning_rate=2"])


def test_every_combination_is_trained_and_none_twice(sweep):
    ended = [(run.name, reason, code) for run, reason, code in sweep.train(say=lambda text: None)]
    assert (
        [name for name, *_ in ended]
        == names(sweep)
        == [
            "learning_rate=0.001,n_embd=8",
            "learning_rate=0.001,n_embd=16",
            "learning_rate=0.01,n_embd=8",
            "learning_rate=0.01,n_embd=16",
        ]
    )
    assert {reason for _, reason, _ in ended} == {"finished"}
    assert [run.state() for run in sweep.runs()] == ["finished"] * 4
    config = json.loads((sweep.runs()[1].folder / "checkpoints" / "step-4" / "config.json").read_text())
    assert config["n_embd"] == 16
    assert {reason for _, reason, _ in sweep.train(say=lambda text: None)} == {"finished before"}


def test_an_interrupted_sweep_goes_on_where_it_stopped(sweep, monkeypatch):
    step, calls = trainer.Trainer.train_step, []

    def interrupted(self, parts=None):
        calls.append(self.state.step)
        if len(calls) == 7:  # in the second run, after its first checkpoint
            raise KeyboardInterrupt
        return step(self, parts)

    monkeypatch.setattr(trainer.Trainer, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(sweep.train(say=lambda text: None))
    assert [run.state() for run in sweep.runs()] == ["finished", "begun", "waiting", "waiting"]
    list(sweep.train(say=lambda text: None))
    assert [run.state() for run in sweep.runs()] == ["finished"] * 4
    assert calls[7] == 2 and len(calls) == 7 + 2 + 8  # resumed at step 2, then the two that waited


def test_a_run_that_diverges_does_not_end_the_sweep(sweep, monkeypatch):
    step = trainer.Trainer.train_step

    def diverging(self, parts=None):
        if self.settings.learning_rate == 1e-2:
            raise NonFinite("the loss is not finite", field="step 0")
        return step(self, parts)

    monkeypatch.setattr(trainer.Trainer, "train_step", diverging)
    assert [reason for _, reason, _ in sweep.train(say=lambda text: None)] == [
        *["finished"] * 2,
        *["diverged (step 0)"] * 2,
    ]


def test_another_sweep_is_not_mixed_in(sweep):
    sweep.create()
    with pytest.raises(ConfigError, match="another sweep is in this folder"):
        sweep._replace(axes={"seed": [1, 2]}).create()


def test_an_impossible_combination_is_refused_before_any_run(sweep):
    with pytest.raises(ConfigError, match="n_layer"):
        list(sweep._replace(axes={"n_layer": [1, 0]}).train())
    assert not sweep.folder.exists()


def test_the_command(text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["sweep", text, *"--set lr=1e-3,1e-2 --tokenizer char --preset tiny --max-steps 2 --ops layers".split()]
    line += "--batch-size 2 --eval-windows 2 --sample-every 0".split()
    assert main(line) == 0
    out = capsys.readouterr().out
    table = out[out.rindex("\n\n") :].split("\n")
    assert table[2].split() == ["learning_rate", "best", "final", "state"] and " *" in table[3]
    picture = (tmp_path / "sweeps" / "text-1" / "sweep.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and "drawn to sweeps/text-1/sweep.png" in out
    monkeypatch.setattr(plots, "available", lambda: False)
    assert main([*line, "--json"]) == 0  # the same sweep: nothing is trained again, and no second folder
    out = capsys.readouterr().out
    rows = json.loads(out[out.index("[\n") :])
    assert [row["learning_rate"] for row in rows] == [1e-3, 1e-2] and rows[0]["state"] == "finished before"
    assert [path.name for path in (tmp_path / "sweeps").iterdir()] == ["text-1"]
    assert main([*line, "--mpi"]) == 2 and main([*line, "--set", "nosuch=1"]) == 2
