import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.errors import NonFinite
from gpt_numpy.training import Settings, advice, start, trainer
from gpt_numpy.training.evaluation import Evaluation


class Text:
    training = np.zeros(29_317, np.uint16)


@pytest.fixture(autouse=True)
def idle(monkeypatch):
    monkeypatch.setattr(advice, "others_busy", lambda: 0.0)


def test_a_run_says_what_it_will_cost():
    settings = Settings(preset="gpt2", max_steps=100)
    lines = advice.before(settings, GPTConfig.preset("gpt2"), Text, 8 * 1024, seconds=30.0)
    for part in (
        "124,439,808 parameters learn from 29,317 tokens, 0.00024 for each",
        "100 steps of 8,192 tokens read the text 28 times",
        "TFLOP",
        "GB of memory",
        "takes about 30 s here: 50 min in all",
    ):
        assert part in lines[0]
    assert len(lines) == 2 and lines[1].startswith("note: little text for so large a model: after 28 passes")


def test_what_looks_wrong_is_said(monkeypatch):
    assert list(advice.doubts(Settings(), 1000, 10_000, 5)) == []
    (line,) = advice.doubts(Settings(preset="gpt2", learning_rate=1e-2), 10, 1000, 5)
    assert line == "--learning-rate 0.01 is far from what is usual for the preset gpt2, 0.0006"
    (line,) = advice.doubts(Settings(init_from="m", learning_rate=2e-3), 10, 1000, 5)
    assert "going on from a model, 5e-05" in line
    monkeypatch.setattr(advice, "others_busy", lambda: 1.7)
    assert "1.7 processors busy" in next(advice.doubts(Settings(), 10, 1000, 5))


def test_the_end_names_the_next_command_and_what_the_figures_mean():
    final = Evaluation(3.0, 1.0, 100)
    lines = list(advice.after("runs/a-1", "finished", final, 2.5, 100, 1.2, 200))
    assert lines[0].startswith("validation was best at step 100 (2.5000) and rose after it")
    assert "training loss 1.20 is below validation 3.00" in lines[1]
    assert lines[2:] == ["to write:    gpt-numpy generate --model runs/a-1"]
    lines = list(advice.after("runs/a-1", "stopped by a signal", None, 2.5, 100, 2.5, 100))
    assert lines[0] == "the best checkpoint is step 100; commands take it"
    assert lines[1] == "to go on:    gpt-numpy train --resume runs/a-1"


def test_a_step_is_measured_and_nothing_of_the_model_is_changed(monkeypatch):
    model = GPT(GPTConfig.preset("tiny"), ops=layers)
    before = model.params.flat.copy()
    monkeypatch.setattr(advice.machine, "read_bandwidth", lambda seconds: 1e12)
    seen = []

    def rows(count):
        seen.append(count)
        return np.zeros((count, 32), int), np.zeros((count, 32), int), {}

    assert advice.measure_step(model, Settings(preset="tiny"), rows) > 0
    assert seen[:2] == [1, 1] and (model.params.flat == before).all()


def test_presets_bring_their_own_training():
    assert (Settings().learning_rate, Settings().batch_size, Settings().max_steps) == (2e-3, 12, 2000)
    gpt2 = Settings(preset="gpt2")
    assert (gpt2.learning_rate, gpt2.batch_size) == (6e-4, 8)
    assert Settings(preset="gpt2", learning_rate=1e-3).learning_rate == 1e-3
    assert Settings(init_from="m").learning_rate == 5e-5
    assert Settings.from_mapping(gpt2.to_dict()) == gpt2


def test_settings_say_what_differs():
    assert repr(Settings()) == "Settings()"
    assert repr(Settings(data=("a",), preset="gpt2", seed=3)) == "Settings(data=('a',), preset='gpt2', seed=3)"
    assert eval(repr(Settings(dropout=0.1, init_from="m"))) == Settings(dropout=0.1, init_from="m")


def test_a_run_ends_with_what_to_do_next(tmp_path, capsys, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and looked at the dog.\n" * 60, encoding="utf-8")
    settings = Settings(data=(str(text),), tokenizer="char", preset="tiny", max_steps=3, eval_windows=2, ops="layers")
    start(settings, tmp_path / "run")
    out = capsys.readouterr().out
    assert "parameters learn from" in out and out.endswith(f"to write:    gpt-numpy generate --model {tmp_path}/run\n")
    monkeypatch.setattr(trainer.Trainer, "_gradients", lambda self, *rest: float("nan"))
    with pytest.raises(NonFinite, match="a lower learning rate"):
        start(settings, tmp_path / "other")
