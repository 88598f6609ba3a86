"""The solution with each known mistake, run on the same problems; a reader's wrong result is compared with them."""

from __future__ import annotations

import re
import types

import numpy as np

from . import stubs
from .catalogue import Exercise, originals
from .slips import Slip

ANOTHER_AXIS = "a sum, mean or maximum over another axis"


def functions_of(exercise: Exercise, text: str):
    """The functions that a solution's text defines, as a namespace with every name of the exercise."""
    module = types.ModuleType("rival")
    if exercise.name == "kernel":
        # Compiling would take longer than these few rows take. Compiled exp(1000) is infinite, but Python's exp raises.
        text = text.replace("@njit\n", "").replace("math.exp", "np.exp")
        vars(module)["np"] = np
    exec(compile(text, "<rival>", "exec"), module.__dict__)
    names = originals(exercise)
    return types.SimpleNamespace(**{n: getattr(module, n, own) for n, own in names.items()})


def of(exercise: Exercise, run_all) -> dict:
    """Mistake's name → ``(slip, its results)``, for every known mistake of the exercise."""
    return _run(exercise, run_all, exercise.mistakes())


def other_axes(exercise: Exercise, run_all) -> dict:
    """As ``rivals``, for sums, means and maxima over another axis than the solution's."""
    return _run(exercise, run_all, _other_axes(exercise))


def _run(exercise, run_all, slips):
    found = {}
    for slip in slips:
        text = stubs.patched(exercise, slip.old, slip.new)
        if text is None or slip.name in found:
            continue
        try:
            functions = functions_of(exercise, text)
        except Exception:  # a patched text that does not even run explains nothing
            continue
        found[slip.name] = slip, run_all(exercise, functions)
    return found


def _other_axes(exercise):
    """For every line of the solution that names an axis: the solution with each other axis in that line."""
    for line in stubs.written_lines(exercise):
        for match in re.finditer(r"axis=(-?\d|rows)", line):
            for axis in ("0", "1", "-1", "-2", "None"):
                if axis != match[1]:
                    new = line[: match.start(1)] + axis + line[match.end(1) :]
                    shown = "all axes" if axis == "None" else axis
                    name = (
                        f"{ANOTHER_AXIS}: {shown} where {match[1]} belongs, in the line for {line.strip().split()[0]}"
                    )
                    hint = "A sum, mean or maximum runs over another axis than it should. Which axis is normalised?"
                    yield Slip(name, line + "\n", new + "\n", hint)
