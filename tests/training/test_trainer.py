import math
import os

import numpy as np
import pytest

from gpt_numpy import GPT, layers
from gpt_numpy.errors import NonFinite
from gpt_numpy.training.checkpoint import list_checkpoints, load
from gpt_numpy.training.optimizer import AdamW
from gpt_numpy.training.plan.corpus import load_corpus
from gpt_numpy.training.ranks.distributed import Alone
from gpt_numpy.training.saver import Saver
from gpt_numpy.training.trainer import Trainer, TrainState
from gpt_numpy.workspace import Workspace


class Silent:
    """An observer that remembers."""

    def __init__(self):
        self.steps, self.evaluations = [], []

    def state(self):
        return {"note": "from the observer"}

    def on_step(self, trainer, result):
        self.steps.append(result)

    def on_evaluation(self, trainer, kind, result):
        self.evaluations.append((trainer.state.step, kind, result.loss))

    def on_checkpoint(self, trainer):
        pass


class Stop:
    number = 0


def make_trainer(settings, dtype=np.float64, group=None):
    corpus = load_corpus(settings)
    model = GPT(settings.model_config(corpus.tokenizer.n_vocab), settings.seed, dtype, layers)
    optimizer = AdamW(model.params, settings, layers)
    return Trainer(settings, model, optimizer, corpus, TrainState(), group or Alone(), None, Silent(), Stop())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_accumulation_is_exact(tiny, dropout, micro_batch_size):
    whole = make_trainer(tiny(dropout=dropout))
    parts = make_trainer(tiny(dropout=dropout, micro_batch_size=micro_batch_size))
    for _ in range(3):
        expected, result = whole.train_step(), parts.train_step()
        assert result["loss"] == pytest.approx(expected["loss"], rel=1e-12)
        assert result["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-11)
        np.testing.assert_allclose(parts.model.grads.flat, whole.model.grads.flat, rtol=1e-9, atol=1e-12)


def test_micro_batches_count_by_their_targets(tiny, monkeypatch):
    # Targets are ignored unevenly, so that a mean of the micro-batches' means would be another number.
    from gpt_numpy.training.plan import batches as module

    plain = module.batch

    def holed(tokens, batch_size, block_size, seed, step, rows):
        inputs, targets = plain(tokens, batch_size, block_size, seed, step, rows)
        targets = targets.copy()
        for i, row in enumerate(rows):
            targets[i, : 6 * row] = -1
        return inputs, targets

    monkeypatch.setattr(module, "batch", holed)
    whole, parts = make_trainer(tiny()), make_trainer(tiny(micro_batch_size=2))
    assert parts.train_step()["loss"] == pytest.approx(whole.train_step()["loss"], rel=1e-12)
    np.testing.assert_allclose(parts.model.grads.flat, whole.model.grads.flat, rtol=1e-9, atol=1e-12)


def test_clipping_scales_the_whole_gradient(tiny):
    free, clipped = make_trainer(tiny(clip=0.0)), make_trainer(tiny(clip=1e-3))
    norm = free.train_step()["gradient_norm"]
    assert clipped.train_step()["gradient_norm"] == pytest.approx(norm, rel=1e-12) and norm > 1e-3
    np.testing.assert_allclose(clipped.optimizer.first, free.optimizer.first * 1e-3 / norm, rtol=1e-9, atol=1e-18)


def test_loss_falls_and_evaluations_are_where_they_should_be(tiny):
    trainer = make_trainer(tiny())
    assert trainer.run() == "finished"
    seen = trainer.observer
    assert [step for step, _, _ in seen.evaluations] == [0, 5, 10, 12]
    assert len(seen.steps) == 12
    assert seen.evaluations[-1][2] < seen.evaluations[0][2] - 0.1
    assert trainer.state.best_step == 12


@pytest.mark.parametrize("poison", ["wte.weight", "h.1.mlp.c_fc.bias"])
def test_a_non_finite_gradient_touches_nothing_and_names_itself(tiny, poison):
    trainer = make_trainer(tiny())
    trainer.train_step()
    before = [a.copy() for a in (trainer.model.params.flat, trainer.optimizer.first, trainer.optimizer.second)]
    plain = trainer.model.loss_and_gradients

    def poisoned(*args, **kwargs):
        loss = plain(*args, **kwargs)
        trainer.model.grads[poison].flat[3] = math.inf
        return loss

    trainer.model.loss_and_gradients = poisoned
    with pytest.raises(NonFinite, match=f"step 1: the gradient of {poison}"):
        trainer.train_step()
    for old, new in zip(before, (trainer.model.params.flat, trainer.optimizer.first, trainer.optimizer.second)):
        assert np.array_equal(old, new)
    assert trainer.state.step == 1


def test_a_non_finite_loss_saves_what_was_good_before(tiny, tmp_path):
    trainer = make_trainer(tiny(save_every=100, eval_every=100), dtype=np.float32)
    saver = trainer.saver = Saver(tmp_path, 2, trainer.model.params)
    plain = trainer.model.loss_and_gradients
    trainer.model.loss_and_gradients = lambda *a, **k: plain(*a, **k) if trainer.state.step < 3 else math.nan
    with pytest.raises(NonFinite, match="step 3: the loss"):
        trainer.run()
    saver.finish()
    (found,) = list_checkpoints(tmp_path)
    assert found[0] == 3
    assert np.array_equal(load(found[1]).params.flat, trainer.model.params.flat)


def test_patience(tiny):
    trainer = make_trainer(tiny(max_steps=100, eval_every=2, patience=3, learning_rate=0.0))
    assert trainer.run() == "stopped: no better validation in 3 evaluations"
    assert trainer.state.step == 6 and trainer.state.best_step == 0


def test_time_budget(tiny):
    trainer = make_trainer(tiny(max_steps=10**9, max_minutes=1e-3))
    assert trainer.run().startswith("stopped after 0.001 minutes")
    assert 0 < trainer.state.step < 10**5


def test_a_signal_ends_the_run_after_its_step_and_saves(tiny, tmp_path):
    trainer = make_trainer(tiny(max_steps=100))
    saver = trainer.saver = Saver(tmp_path, 2, trainer.model.params)
    trainer.observer.on_step = lambda t, result: setattr(t.stop, "number", 2 if t.state.step == 3 else 0)
    assert trainer.run() == "stopped by a signal"
    saver.finish()
    assert list_checkpoints(tmp_path)[-1][0] == 3
    assert load(list_checkpoints(tmp_path)[-1][1]).state["note"] == "from the observer"


def test_ranks_together_make_the_gradient_of_one(tiny):
    class Rank(Alone):
        size = 3

        def __init__(self, rank):
            self.rank = rank

        def sum(self, values):
            # counts of targets first, then the loss: the counts of all ranks are known here, 5 rows of 32
            return [5 * 32] if values == [len(self.share(5)) * 32] else values

    expected = make_trainer(tiny(dropout=0.2))
    loss = expected._gradients(4, expected.micro_batches(4))
    ranks = [make_trainer(tiny(dropout=0.2), group=Rank(i)) for i in range(3)]
    assert sum(rank._gradients(4, rank.micro_batches(4)) for rank in ranks) == pytest.approx(loss, rel=1e-12)
    total = sum(rank.model.grads.flat for rank in ranks)
    np.testing.assert_allclose(total, expected.model.grads.flat, rtol=1e-9, atol=1e-12)


def test_state_survives_json():
    for state in (TrainState(), TrainState(7, 1.5, 5, 2, 30.25)):
        fields = state.to_dict()
        assert TrainState.from_dict(fields.pop("step"), fields) == state


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="only on Linux: reads /proc/self/statm")
def test_memory_does_not_grow(tiny, tmp_path):
    settings = tiny(max_steps=500, eval_every=20, save_every=20, dropout=0.1, micro_batch_size=2)
    trainer = make_trainer(settings, dtype=np.float32)
    saver = trainer.saver = Saver(tmp_path, 2, trainer.model.params)
    trainer.model.workspace = Workspace()
    resident = {}

    def on_step(trainer, result):
        with open("/proc/self/statm", encoding="ascii") as file:
            resident[trainer.state.step] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    trainer.observer.on_step = on_step
    assert trainer.run() == "finished"
    saver.finish()
    assert resident[500] - resident[100] < 2e6
