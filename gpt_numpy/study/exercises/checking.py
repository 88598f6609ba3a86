"""Run a reader's functions and the package's own, compare every result, and describe the differences.

``check`` takes functions, in a notebook; ``check_text`` takes a file's text. Both return a ``Verdict``.
"""

from __future__ import annotations

import linecache
import traceback
import types
from typing import NamedTuple

import numpy as np

from ... import layers
from ...errors import ConfigError
from ...wording import counted
from .. import cases, glossary
from . import diagnosis, levels, problems, rivals, stubs
from .catalogue import Exercise, exercise_named, originals
from .diagnosis import Diagnosis, Wrong

NOT_WRITTEN, WRONG, RIGHT = "not written", "wrong", "right"
_SHOWN = 3  # wrong results that are described; the model has dozens
_SEEDS = (0, 1)


class Verdict(NamedTuple):
    """The result of a check. ``findings`` are lines for the reader; ``mistake`` names the recognised mistake, or is None.

    A verdict is true if everything is right, so that ``assert check(…)`` works.
    """

    exercise: str
    state: str  # NOT_WRITTEN, WRONG or RIGHT
    findings: tuple
    mistake: str | None = None
    hint: str = ""

    def __bool__(self):
        return self.state == RIGHT

    def text(self, hint=False) -> str:
        """The verdict for a terminal; ``hint`` adds the hint of the recognised mistake."""
        lines = [f"{self.exercise}: {self.state}", *(f"  {line}" for line in self.findings)]
        if hint and self.hint:
            lines.append(f"  hint: {self.hint}")
            told = [glossary.explained(self.hint, self.exercise)]
            if "numeric" in self.hint or "analytic" in self.hint:  # the words of a gradient check's table
                told.insert(0, "numeric: what is expected; analytic: what you return")
            lines += [f"  ({'; '.join(filter(None, told))})"] if any(told) else []
        return "\n".join(lines)

    def __repr__(self):
        return self.text(hint=True)


def check(name: str, *functions) -> Verdict:
    """Check functions written in a notebook: ``check("layernorm", layernorm_backward)``.

    Functions are identified by their names; a single function of another name is taken for the main one. The package's
    own functions replace those that are not given.
    """
    exercise = exercise_named(name)
    known = {*exercise.written, *exercise.forwards, exercise.of_class}
    known |= {stubs.steps_name(exercise)} if exercise.steps else set()
    given = {}
    for function in functions:
        own = getattr(function, "__name__", "")
        if own not in known and len(functions) > 1:
            raise ConfigError(
                "not a function of this exercise", found=own, expected=", ".join(sorted(filter(None, known)))
            )
        given[own if own in known else exercise.of_class or exercise.written[-1]] = function
    if not given:
        raise ConfigError("no function to check", field=name, expected=", ".join(exercise.written))
    return check_functions(exercise, given)


def check_text(exercise: Exercise, text: str, path: str = "<exercise>") -> Verdict:
    """Check a file's text; its tracebacks show ``path`` as the file's name."""
    if any(text == stubs.stub(exercise, level) for level in stubs.LEVELS):
        return Verdict(exercise.name, NOT_WRITTEN, ("the stub is as it was written",))
    lines = text.splitlines(keepends=True)
    linecache.cache[path] = (len(text), None, lines, path)
    module = types.ModuleType("exercise_" + exercise.file_name.removesuffix(".py"))
    try:
        exec(compile(text, path, "exec"), module.__dict__)
    except SyntaxError as error:
        return Verdict(exercise.name, WRONG, (f"line {error.lineno}: {error.msg}: {(error.text or '').strip()}",))
    except Exception as error:
        return Verdict(exercise.name, WRONG, (_raised(error, path),))
    names = {*exercise.written, *exercise.forwards, exercise.of_class or ""}
    names |= {stubs.steps_name(exercise)} if exercise.steps else set()
    given = {n: getattr(module, n) for n in names if callable(getattr(module, n, None))}
    return check_functions(exercise, given, path, text)


def check_functions(exercise: Exercise, given: dict, path: str = "", text: str = "") -> Verdict:
    """Check functions by name; ``given`` may leave out forwards, and helpers that the main function does without."""
    if exercise.steps and stubs.steps_name(exercise) in given:
        return _check_steps(exercise, given[stubs.steps_name(exercise)], path)
    main = exercise.of_class or exercise.written[-1]
    if main not in given:
        return Verdict(exercise.name, NOT_WRITTEN, (f"there is no {main}",))
    if exercise.name == "kernel" and not hasattr(given[main], "py_func"):
        return _not_compiled(exercise, given, main)
    gap = levels.first_gap(exercise, given, text) if text else None
    if gap is not None:
        return Verdict(exercise.name, WRONG if gap.wrong else NOT_WRITTEN, gap.findings)
    functions = types.SimpleNamespace(**{**originals(exercise), **given})
    mine = run_all(exercise, functions)
    if any(isinstance(result, NotImplementedError) for result in mine.values()):
        return Verdict(exercise.name, NOT_WRITTEN, (f"{' or '.join(exercise.written)} raises NotImplementedError",))
    expected = run_all(exercise, types.SimpleNamespace(**originals(exercise)))
    wrong = diagnosis.wrong_results(mine, expected)
    raised = {problem: result for problem, result in mine.items() if isinstance(result, Exception)}
    if not wrong and not raised:
        return Verdict(exercise.name, RIGHT, (_praise(mine),))
    return _explain(exercise, mine, expected, wrong, raised, path)


def run_all(exercise: Exercise, functions) -> dict:
    """``(seed, problem's name)`` → the named results, or the exception that was raised."""
    found = {}
    for seed in _SEEDS:
        for problem in exercise.problems(seed):
            found[seed, problem.name] = _guarded(problem.run, functions)
    return found


def _not_compiled(exercise, given, main):
    functions = types.SimpleNamespace(**{**originals(exercise), **given})
    if isinstance(_guarded(exercise.problems(0)[0].run, functions), NotImplementedError):
        return Verdict(exercise.name, NOT_WRITTEN, (f"{main} raises NotImplementedError",))
    return Verdict(exercise.name, WRONG, (f"{main} is not compiled: put @njit above it",))


def _guarded(run, functions):
    try:
        with np.errstate(all="ignore"):
            return run(functions)
    except Exception as error:
        return error


# ---- findings --------------------------------------------------------------------------------------------------------


def _explain(exercise, mine, expected, wrong, raised, path):
    known = rivals.of(exercise, run_all)
    matched = _matched(mine, expected, known)
    if not all(matched.values()):
        known = {**known, **rivals.other_axes(exercise, run_all)}
        matched = _matched(mine, expected, known)
    findings, recognised = [], []
    for key, error in list(raised.items())[:1]:
        findings.append(f"{_raised(error, path, exercise.written)} (in {key[1]})")
    findings += _right_problems(mine, wrong, raised)
    names = list(dict.fromkeys(name for _, name in wrong))
    every = [n for results in expected.values() for n in results]
    right = [_shown(exercise, n) for n in dict.fromkeys(every) if n not in names]
    if right and not raised:
        findings.append(f"right: {', '.join(right[:8])}{' …' if len(right) > 8 else ''}")
    for name in names[: 1 if raised else _SHOWN]:
        key = next(problem for problem, n in wrong if n == name)
        position = _position(exercise, name, key, mine[key].get(name), expected[key][name])
        found = _diagnose(exercise, name, matched.get(name, ()), mine, expected, wrong, known)
        if found is not None and found.text.startswith("the shape is") and expected[key][name].dtype.kind in "iu":
            found = None  # a list of ids has no shape to speak of
        if found is None or not found.text.startswith("the shape is"):  # which says it all
            findings.append(position)
        if found is None:
            findings.append(f"{_shown(exercise, name)}: no known mistake gives these numbers")
        else:
            findings.append(f"{_shown(exercise, name)}: {found.text}")
            recognised.append(found)
    if len(names) > _SHOWN and not raised:
        findings.append(f"and {len(names) - _SHOWN} more results are wrong; the first in backward order are shown")
    first = next((r for r in recognised if r.mistake), None) or next(iter(recognised), Diagnosis(""))
    return Verdict(exercise.name, WRONG, tuple(findings), first.mistake, first.hint)


def _matched(mine, expected, known):
    return diagnosis.matching(mine, expected, {name: results for name, (_, results) in known.items()})


def _diagnose(exercise, name, matched, mine, expected, wrong, known):
    slip = known[matched[0]][0] if matched else None
    found = diagnosis.of_numbers(_wrongs(exercise, name, mine, expected, wrong))
    if slip is not None and not slip.name.startswith(rivals.ANOTHER_AXIS):
        text = f"this is what one gets with the mistake {slip.name!r}"
        text += f": {found.text}" if found is not None and not found.vague else ""
        return Diagnosis(text, slip.name, slip.hint)
    if slip is not None and (found is None or found.vague):
        return Diagnosis(f"this is what one gets with {slip.name}", slip.name, slip.hint)
    return found


def _wrongs(exercise, name, mine, expected, wrong):
    by_key = {(seed, p.name): p for seed in _SEEDS for p in exercise.problems(seed)}
    found = []
    for key, other in wrong:
        array = mine[key].get(name) if other == name else None
        if array is not None and array.dtype.kind in "fiu":
            problem = by_key[key]
            terms = problem.terms(name) if problem.terms else {}
            found.append(Wrong(problem.name, name, array, expected[key][name], problem.sizes, terms))
    return found or [Wrong("", name, np.array(np.nan), np.array(0.0), {}, {})]


def _shown(exercise, name):
    return f"d{name}" if name in exercise.gradients or exercise.of_class or name == "scores" else name


def _position(exercise, name, key, mine, expected):
    shown, problem = _shown(exercise, name), key[1]
    mine = np.asarray(mine)
    if expected.dtype.kind in "iu" and expected.ndim == 1:
        return f"{shown}: yours {mine.tolist()}, expected {expected.tolist()}"
    if mine.shape != expected.shape or mine.dtype.kind not in "fiub":
        return f"{shown}: shape {mine.shape}; expected {expected.shape} (in {problem})"
    index, count = diagnosis.position_of(mine, expected)
    at = f"[{', '.join(map(str, index))}]" if index else ""
    values = f"yours {mine[index]:+.6g}, expected {expected[index]:+.6g}"
    return f"{shown}{at}: {values} ({count} of {expected.size} entries differ, in {problem})"


def _right_problems(mine, wrong, raised):
    """A line with the problems that are right, where some are: what the others have in common is the reason."""
    every = list(dict.fromkeys(key[1] for key in mine))
    bad = {key[1] for key, _ in wrong} | {key[1] for key in raised}
    found = [name for name in every if name in bad]
    if len(found) == len(every):
        return []
    shown = "; ".join(found[:3]) + (" …" if len(found) > 3 else "")
    return [f"{len(every) - len(found)} of {counted(len(every), 'problem')} are right; wrong in: {shown}"]


def _raised(error, path, names=()):
    if isinstance(error, problems.LeftAsItWas):
        return f"{error}: write into the array ({error.name}[...] = …); {error.name} = … only names another array"
    if isinstance(error, problems.WrittenTo):
        return f"{error}: a backward must leave its arguments as they are (copy, or make a new array)"
    if isinstance(error, problems.WrongCount):
        return str(error)
    if isinstance(error, problems.TooMuchAtOnce):
        return str(error)
    stack = traceback.extract_tb(error.__traceback__)
    frames = [f for f in stack if (f.filename == path if path else f.name in names and "gpt_numpy" not in f.filename)]
    where = f"line {frames[-1].lineno}: {frames[-1].line}: " if frames else ""
    advice = ""
    if isinstance(error, ValueError) and "broadcast" in str(error):
        advice = " (a sum or mean over the last axis needs keepdims=True to be combined with (..., C) again)"
    return f"{where}{type(error).__name__}: {error}{advice}"


def _praise(mine):
    arrays = [np.asarray(a) for results in mine.values() for a in results.values()]
    said = f"{sum(a.size for a in arrays)} numbers in {counted(len(mine), 'problem')} agree"
    return said + (" (in float32, to five digits)" if any(a.dtype == np.float32 for a in arrays) else "")


# ---- step by step ----------------------------------------------------------------------------------------------------


def _check_steps(exercise, function, path):
    names = stubs.step_names(exercise)
    answers = []
    for case in filter(problems.is_gpt2, cases.layer_cases(layers)):
        if case.layer == exercise.name:
            answers.append(levels.step_answers(exercise, case, function))
    done = 0
    for name in names:
        here = [(mine, right, sizes) for mine, right, sizes in answers if name in right]
        failed = next((mine for mine, _, _ in here if isinstance(mine, Exception)), None)
        if failed is not None:
            state = NOT_WRITTEN if isinstance(failed, NotImplementedError) else WRONG
            return Verdict(exercise.name, state, (_raised(failed, path),))
        if any(mine.get(name) is None for mine, _, _ in here):
            text = f"{done} of {counted(len(names), 'step')} are right; the next is d[{name!r}]"
            return Verdict(exercise.name, NOT_WRITTEN, (text,))
        wrong = [
            Wrong("", name, np.asarray(mine[name]), np.asarray(right[name]), sizes, {})
            for mine, right, sizes in here
            if not diagnosis.close(mine[name], right[name], diagnosis.RIGHT)
        ]
        if wrong:
            w = wrong[0]
            findings = [f"{done} of {counted(len(names), 'step')} are right; d[{name!r}] is the first wrong one"]
            findings.append(_position(exercise, name, (0, exercise.name), w.mine, w.expected))
            found = diagnosis.of_numbers(wrong)
            findings += [found.text] if found else []
            return Verdict(exercise.name, WRONG, tuple(findings))
        done += 1
    return Verdict(exercise.name, RIGHT, (f"all {done} steps are right",))
