"""The comparisons of the level ``steps``: a layer's named steps, or the named values inside a function with gaps."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
import types
from typing import NamedTuple

import numpy as np

from . import diagnosis, problems
from .catalogue import Exercise, originals


def step_answers(exercise: Exercise, case, function):
    """``(the reader's gradients or exception, the right ones, sizes)`` for one case; gradients are name → array."""
    values = {}

    def see(name, value):
        values[name] = np.array(value)
        return value

    assert exercise.steps is not None
    steps, gradients = exercise.steps
    steps(see, **case.inputs)
    out, cache = case.forward(**case.inputs)
    dout = np.random.default_rng(5).standard_normal(np.shape(out))
    dout = dout if np.ndim(out) else float(dout)
    right = {n: g for n, g in gradients(dout, values, **case.inputs).items() if n in exercise.step_order}
    found = case.backward(dout, cache)
    right.update(zip(exercise.gradients, found if isinstance(found, tuple) else (found,)))
    try:
        with np.errstate(all="ignore"):
            mine = function(dout, {n: v.copy() for n, v in values.items()}, **case.inputs)
    except Exception as error:
        mine = error
    return mine, right, problems.sizes_of(case)


class Gap(NamedTuple):
    wrong: bool
    findings: tuple


def first_gap(exercise: Exercise, given: dict, text: str) -> Gap | None:
    """The first ``...`` of a file of level steps, or the first wrong value before it; None where there is no gap."""
    gaps = _gaps(exercise, text)
    if re.search(r"^\s*return \.\.\.", text, re.MULTILINE):
        return Gap(False, ("the value that is returned is not written",))
    if not gaps:
        return None
    mine, right = _locals_of(exercise, given), _locals_of(exercise, originals(exercise))
    for number, (function, name) in enumerate(_assigned(exercise), start=1):
        if (function, number) in gaps:
            return Gap(False, (f"step {number}, {name} in {function}, is not written; the steps before it are right",))
        value, expected = mine.get(function, {}).get(name), right.get(function, {}).get(name)
        if value is None or not isinstance(expected, (int, float, np.ndarray)):
            continue
        if isinstance(value, (int, float, np.ndarray)) and diagnosis.close(value, expected, diagnosis.RIGHT):
            continue
        if _is_assigned_again(exercise, function, name):
            continue  # its last value may come from a later step
        return Gap(True, (f"step {number}: {name} in {function} is wrong; yours {value!r}, expected {expected!r}",))
    return Gap(False, ("a step marked ... is not written",))


def _gaps(exercise, text):
    """``(function, step's number)`` of every assignment of ``...`` that is left."""
    found, number = set(), 0
    tree = ast.parse(text)
    for name in exercise.written:
        node = next((n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name), None)
        for statement in _statements(node) if node else ():
            number += 1
            if isinstance(statement.value, ast.Constant) and statement.value.value is Ellipsis:
                found.add((name, number))
    return found


def _statements(node):
    statements = [n for n in ast.walk(node) if isinstance(n, (ast.Assign, ast.AugAssign))]
    kept = [n for n in statements if not isinstance(n.value, ast.Constant) or n.value.value is Ellipsis]
    return sorted(kept, key=lambda n: n.lineno)


def _assigned(exercise):
    """``(function, name)`` of every step of the solution, in order."""
    for name in exercise.written:
        function = originals(exercise)[name]
        tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(function, "py_func", function))))
        for statement in _statements(tree.body[0]):
            target = statement.target if isinstance(statement, ast.AugAssign) else statement.targets[0]
            yield name, ast.unparse(target)


def _is_assigned_again(exercise, function, name):
    return list(_assigned(exercise)).count((function, name)) > 1


def _locals_of(exercise, functions):
    """Function's name → the values of its names when it last returned, over the first problem."""
    plain = {n: getattr(f, "py_func", f) for n, f in {**originals(exercise), **functions}.items()}
    codes = {getattr(f, "__code__", None): n for n, f in plain.items() if n in exercise.written}
    found = {}

    def watch(frame, event, argument):
        if event == "return" and frame.f_code in codes:
            kept = {n: np.copy(v) if isinstance(v, np.ndarray) else v for n, v in frame.f_locals.items()}
            found[codes[frame.f_code]] = kept

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        with np.errstate(all="ignore"):
            exercise.problems(0)[0].run(types.SimpleNamespace(**plain))
    except Exception:  # a gap stops the function; the values computed before the gap are compared
        pass
    finally:
        sys.setprofile(before)
    return found
