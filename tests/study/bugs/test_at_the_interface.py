"""The bugs planted at the interface are caught by the checks that their twins are caught by."""

import pytest

from gpt_numpy import layers
from gpt_numpy.study.bugs import BUGS, failed_checks, reports
from gpt_numpy.study.bugs.at_the_interface import WRAPPERS, plant_in

IN_THE_MODEL = [name for name, bug in BUGS.items() if bug.file == "model.py"]


def test_most_kinds_of_bug_have_a_twin_at_the_interface():
    assert set(WRAPPERS) < set(BUGS)
    assert len(WRAPPERS) + len(IN_THE_MODEL) >= 30


@pytest.mark.parametrize("ops", [layers], ids=["layers"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_caught_by_the_check_of_its_twin(ops, name):
    bug = BUGS[name]
    assert bug.caught_by in failed_checks(reports(plant_in(ops, name), layer=bug.layer))
