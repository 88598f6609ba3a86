"""What is only to be looked at ends no run: an output that is gone, a broken matplotlib, samples, pictures, any observer."""

import importlib
import sys
import threading

import pytest

from gpt_numpy.training import checkpoint, plots, session, start, watcher
from gpt_numpy.training.checkpoint import list_checkpoints
from gpt_numpy.training.watcher import Voice, Watcher


def steps(folder):
    return [step for step, _ in list_checkpoints(folder / "checkpoints")]


def test_samples_have_an_interval_of_their_own(tiny, tmp_path):
    start(tiny(eval_every=7, sample_every=3, sample_tokens=4), tmp_path / "run")
    text = (tmp_path / "run" / "samples.txt").read_text(encoding="utf-8")
    assert [line.split()[2] for line in text.splitlines() if line.startswith("---- step")] == ["3", "6", "9", "12"]


@pytest.mark.parametrize("method", ["on_step", "on_evaluation", "on_checkpoint", "_sample", "_draw"])
def test_an_observer_that_fails_is_one_warning(tiny, tmp_path, monkeypatch, capsys, method):
    def broken(self, *details):
        raise RuntimeError("the observer is broken")

    monkeypatch.setattr(Watcher, method, broken)
    monkeypatch.setattr(watcher, "PICTURE_SECONDS", -1)
    if method == "_draw":  # at the end it is called by itself
        monkeypatch.setattr(Watcher, "conclude", lambda *_: None)
    assert start(tiny(sample_every=5), tmp_path / "run").step == 12
    assert steps(tmp_path / "run")[-1] == 12
    warnings = capsys.readouterr().err.count("the observer is broken")
    assert warnings == 1 or (method == "_sample" and warnings <= 2)  # from on_step and from on_evaluation


def test_a_matplotlib_that_cannot_be_imported(tiny, tmp_path, monkeypatch, capsys):
    saved = []
    plain = checkpoint.save

    def save(*args):
        saved.append(args[1].step)
        return plain(*args)

    def draw(*_):
        assert saved  # a checkpoint is on its way before anything is drawn
        raise ValueError("'nonsense' is not a valid value for backend")

    monkeypatch.setattr(checkpoint, "save", save)
    monkeypatch.setattr(plots, "available", lambda: True)
    monkeypatch.setattr(plots, "draw", draw)
    monkeypatch.setattr(watcher, "PICTURE_SECONDS", 0)
    assert start(tiny(), tmp_path / "run").exit_code == 0
    assert steps(tmp_path / "run")[-1] == 12
    assert capsys.readouterr().err.count("not a valid value for backend") == 1


def test_an_output_that_is_gone(tiny, tmp_path, monkeypatch, capsys):
    class Gone:
        encoding = "utf-8"
        lines = 0

        def write(self, text):
            self.lines += text.count("\n")
            if self.lines > 9:
                raise BrokenPipeError(32, "Broken pipe")

        def flush(self):
            pass

    expected = start(tiny(), tmp_path / "whole")
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdout", Gone())
    outcome = start(tiny(), tmp_path / "run")
    assert outcome.step == 12 and outcome.validation_loss == expected.validation_loss
    assert capsys.readouterr().err.count("goes on in silence") == 1


def test_a_terminal_in_another_encoding(monkeypatch):
    class Ascii:
        encoding = "ascii"
        text = ""

        def write(self, text):
            self.text += text.encode("ascii").decode()

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stdout", Ascii())
    Voice()("wörd")
    assert sys.stdout.text == "w\\xf6rd\n"


def test_outside_the_main_thread(tiny, tmp_path):
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(start(tiny(max_steps=5), tmp_path / "run")))
    thread.start()
    thread.join()
    assert [outcome.step for outcome in outcomes] == [5]


def test_parameters_that_are_not_finite_are_not_saved(tiny, tmp_path, monkeypatch):
    from gpt_numpy.errors import NonFinite
    from gpt_numpy.training.optimizer import AdamW

    plain, calls = AdamW.update, []

    def update(self, params, *rest):
        plain(self, params, *rest)
        calls.append(1)
        if len(calls) == 8:
            params["h.0.ln_1.bias"][3] = float("nan")

    monkeypatch.setattr(AdamW, "update", update)
    with pytest.raises(NonFinite):
        start(tiny(eval_every=100), tmp_path / "run")
    assert steps(tmp_path / "run") == [4]


def test_old_names_are_the_same_objects():
    assert importlib.import_module("gpt_numpy.training.signals").StopSignal is session.StopSignal
    assert importlib.import_module("gpt_numpy.training.sampling").sample is watcher.sample
