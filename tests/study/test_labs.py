"""The labs: a sweep compares what differs in one setting; every fault shows in the maps as its name says."""

import numpy as np
import pytest

from gpt_numpy.errors import ConfigError
from gpt_numpy.study import labs, trace


@pytest.fixture(scope="module")
def run():
    return labs.train(60)


def maps(model, run):
    ids = np.array([run.tokenizer.encode(labs.TEXT[:25])])
    with trace(model) as t:
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        return loss, [t[f"h.{i}.attn.weights"].value[0] for i in range(model.config.n_layer)]


def test_training_learns_and_a_sweep_finds_the_rate_that_learns(run):
    assert run.losses[-1] < 0.6 * run.losses[0] and run.held_out < 0.6 * run.losses[0]
    losses = labs.sweep("lr", (1e-5, 5e-3), n_steps=30)
    assert losses[5e-3] < losses[1e-5]
    with pytest.raises(ConfigError, match="no such setting"):
        labs.train(1, depth=3)
    with pytest.raises(ConfigError, match="too little text"):
        labs.train(1, text="short")


def test_each_case_has_a_fault_of_its_own():
    assert sorted(labs.fault_of(case) for case in (1, 2, 3, 4)) == sorted(labs.FAULTS)
    with pytest.raises(ConfigError, match="1 to 4"):
        labs.fault_of(5)


@pytest.mark.parametrize("fault", labs.FAULTS)
def test_a_fault_changes_the_maps_as_its_name_says(run, fault):
    before = run.model.params.flat.copy()
    model = labs.damaged(run, fault)
    assert np.array_equal(run.model.params.flat, before)
    (right_loss, right), (loss, found) = maps(run.model, run), maps(model, run)
    future = np.triu_indices(24, 1)
    assert (np.abs(found[0][:, future[0], future[1]]).max() > 0) == (fault == "leaking-mask")
    if fault == "untrained-head":
        assert not np.allclose(found[0][0], right[0][0], atol=1e-3) and np.allclose(found[0][1], right[0][1])
        assert np.abs(found[0][0, -1] - 1 / 24).max() < np.abs(right[0][0, -1] - 1 / 24).max()
    elif fault == "dead-layer":
        assert np.allclose(found[1][:, -1], 1 / 24) and np.allclose(found[0], right[0])
    elif fault == "positions-off-by-one":
        assert not np.allclose(found[0], right[0], atol=1e-3)
    assert loss != right_loss
