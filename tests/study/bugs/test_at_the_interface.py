"""Bugs planted at the interface are caught, in layers and in kernels, by the checks that catch their twins."""

import pytest

from gpt_numpy import kernels, layers
from gpt_numpy.study import cases, whole_model
from gpt_numpy.study.bugs import BUGS, failed_checks, plant, reports
from gpt_numpy.study.bugs.at_the_interface import WRAPPERS, plant_in
from gpt_numpy.study.bugs.planting import MODEL_FILES

QUICK = {"max_entries": 1, "n_directions": 3}  # a wrong entry shows in every direction
IN_THE_MODEL = [name for name, bug in BUGS.items() if bug.file in MODEL_FILES]


def test_most_kinds_of_bug_have_a_twin_at_the_interface():
    assert set(WRAPPERS) < set(BUGS)
    assert len(WRAPPERS) + len(IN_THE_MODEL) >= 30


@pytest.mark.parametrize("ops", [layers, kernels], ids=["layers", "kernels"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_caught_by_the_check_of_its_twin(ops, name):
    bug = BUGS[name]
    assert bug.caught_by in failed_checks(reports(plant_in(ops, name), layer=bug.layer, **QUICK))


@pytest.mark.parametrize("name", IN_THE_MODEL)
def test_a_broken_model_is_caught_on_kernels_too(name):
    _, gpt = plant(BUGS[name])
    assert BUGS[name].caught_by in failed_checks(reports(kernels, gpt, "model", **QUICK))


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(s, marks=pytest.mark.campaign) for s in range(3, 20))])
def test_no_false_alarm_on_kernels(seed):
    found = reports(kernels, seed=seed, **QUICK)
    assert len(found) == len(cases.layer_cases(kernels)) + len(whole_model.model_variants()) > 25
    assert failed_checks(found) == []


@pytest.mark.campaign
@pytest.mark.parametrize("ops", [layers, kernels], ids=["layers", "kernels"])
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(s, marks=pytest.mark.campaign) for s in range(3, 20))])
def test_no_false_alarm_entry_by_entry(ops, seed):
    assert failed_checks(reports(ops, seed=seed)) == []
