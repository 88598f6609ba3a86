"""Level steps: the right steps pass, and the check stops at the first wrong or missing one, in backward order."""

import re

import pytest

from gpt_numpy import layers
from gpt_numpy.study import cases
from gpt_numpy.study.exercises import EXERCISES, check_text, stubs
from gpt_numpy.wording import counted

OF_LAYERS = [name for name, exercise in EXERCISES.items() if exercise.steps]
WITH_GAPS = [name for name, exercise in EXERCISES.items() if not exercise.steps and not exercise.of_class]


def filled(name, until=None, wrong=None):
    """The stub of level steps, completed from the package's own gradients up to the step ``until``."""
    exercise = EXERCISES[name]
    names = stubs.step_names(exercise)
    known = names if until is None else names[: names.index(until)]
    module = exercise.steps[1].__module__
    function = exercise.steps[1].__name__
    pair = next((c.forward.__name__, c.backward.__name__) for c in cases.layer_cases(layers) if c.layer == name)
    text = stubs.stub(exercise, "steps").rsplit("    return d", 1)[0]
    arguments = re.search(rf"def {function}\((.*)\):", text)[1]
    plain = [a.split("=")[0].strip() for a in arguments.split(", *,")[0].split(",")]
    given = ", ".join(f"{n}={n}" for n in plain[2:])
    return (
        f"{text}    from gpt_numpy import layers\n    from {module} import {function} as right\n"
        f"    found = right({', '.join(plain)})\n"
        f"    out, cache = layers.{pair[0]}({given})\n    last = layers.{pair[1]}({plain[0]}, cache)\n"
        f"    last = last if isinstance(last, tuple) else (last,)\n"
        f"    found.update(zip({exercise.gradients!r}, last))\n"
        f"    d.update({{n: g for n, g in found.items() if n in {known!r}}})\n"
        + (f"    d[{wrong!r}] = -d[{wrong!r}]\n" if wrong else "")
        + "    return d\n"
    )


@pytest.mark.parametrize("name", OF_LAYERS)
def test_right_steps_pass(name):
    verdict = check_text(EXERCISES[name], filled(name))
    assert verdict, verdict


@pytest.mark.parametrize("name", OF_LAYERS)
def test_the_check_stops_at_the_first_missing_and_at_the_first_wrong_step(name):
    names = stubs.step_names(EXERCISES[name])
    middle = names[len(names) // 2]
    verdict = check_text(EXERCISES[name], filled(name, until=middle))
    done = len(names) // 2
    assert verdict.state == "not written"
    assert verdict.findings == (f"{done} of {counted(len(names), 'step')} are right; the next is d[{middle!r}]",)
    verdict = check_text(EXERCISES[name], filled(name, wrong=middle))
    if "dropped" not in middle:
        assert verdict.state == "wrong" and f"d[{middle!r}] is the first wrong one" in verdict.findings[0]
        assert "the sign is wrong" in verdict.text()


def test_steps_are_listed_from_the_last_to_the_first():
    assert stubs.step_names(EXERCISES["layernorm"]) == [
        *("scaled", "xhat", "rstd", "variance", "centred", "mean"),
        *("x", "weight", "bias"),
    ]


@pytest.mark.parametrize("name", WITH_GAPS)
def test_the_first_gap_is_named(name):
    text = stubs.stub(EXERCISES[name], "steps")
    assert "..." in text
    verdict = check_text(EXERCISES[name], text.replace("\n", "\n\n"))
    assert verdict.state == "not written" and ("step 1" in verdict.text() or "returned" in verdict.text())


def test_a_wrong_value_before_a_gap_is_found():
    text = stubs.stub(EXERCISES["head"], "steps")
    right = text.replace("q, k, v, weights = ...", "q, k, v, weights = cache")
    right = right.replace("scale = ...", "scale = 1 / math.sqrt(q.shape[1])")
    assert "step 3, dv in head_backward, is not written" in check_text(EXERCISES["head"], right).text()
    wrong = right.replace("dv = ...", "dv = weights @ dout")
    verdict = check_text(EXERCISES["head"], wrong)
    assert verdict.state == "wrong" and "step 3: dv in head_backward is wrong" in verdict.text()
