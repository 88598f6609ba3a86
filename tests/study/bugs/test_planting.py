"""Every planted bug is caught by the check that its entry names, and nothing is caught where there is no bug."""

import sys

import numpy as np
import pytest

from gpt_numpy import GPT, layers
from gpt_numpy.errors import ConfigError
from gpt_numpy.study import cases, whole_model
from gpt_numpy.study.bugs import BUGS, failed_checks, plant, reports, reports_of

QUICK = {"max_entries": 1, "n_directions": 3}  # a wrong entry shows in every direction


def test_there_are_many_and_their_names_tell_the_layer():
    assert len(BUGS) >= 50
    assert {bug.layer for bug in BUGS.values()} >= {
        "embedding",
        "layernorm",
        "linear",
        "gelu",
        "attention",
        "multi-head",
        "mlp",
        "dropout",
        "residual",
        "cross-entropy",
        "lm-head",
        "lm-head-cross-entropy",
        "model",
    }


@pytest.mark.parametrize("name", BUGS)
def test_caught_by_the_named_check(name):
    with np.errstate(all="ignore"):
        failed = failed_checks(reports_of(BUGS[name], **QUICK))
    assert BUGS[name].caught_by in failed


@pytest.mark.parametrize("name", BUGS)
def test_hint_and_answer_say_something_and_the_hint_does_not_give_it_away(name):
    bug = BUGS[name]
    assert len(bug.answer) > 40 and len(bug.hint) > 10
    assert bug.diff().count("\n@@") == 1 and bug.answer not in bug.hint


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(s, marks=pytest.mark.campaign) for s in range(3, 20))])
def test_no_false_alarm(seed):
    found = reports(layers, seed=seed, **QUICK)
    assert len(found) == len(cases.layer_cases(layers)) + len(whole_model.model_variants()) > 25
    assert failed_checks(found) == []


def test_planting_leaves_no_trace():
    before, forward = set(sys.modules), layers.attention_forward
    ops, gpt = plant(BUGS["attention-scale-forgotten"])
    assert gpt is GPT and ops.attention_forward is not forward and layers.attention_forward is forward
    assert ops.mlp_forward is not layers.mlp_forward and set(ops.__all__) == set(layers.__all__)
    _, gpt = plant(BUGS["model-residual-gradient-lost"])
    assert gpt is not GPT
    assert set(sys.modules) == before
    q = np.random.default_rng(0).normal(size=(1, 4, 1, 4))
    assert not np.allclose(ops.attention_forward(q, q, q)[0], layers.attention_forward(q, q, q)[0])


def test_a_bug_in_a_layer_reaches_the_layers_built_on_it():
    ops, _ = plant(BUGS["linear-bias-added-twice"])
    assert "mlp: differences of fc_bias" in failed_checks(reports(ops, layer="mlp"))


def test_a_bug_whose_text_is_gone_fails_loudly():
    bug = BUGS["gelu-product-rule-forgotten"]._replace(old="no such text")
    with pytest.raises(ConfigError, match="gelu-product-rule-forgotten.*no longer fits.*found 0"):
        plant(bug)
