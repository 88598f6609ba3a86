"""Why a gradient is wrong: the known mistake, or simple rule, that gives the same numbers as the reader's.

Every diagnosis is a statement that has been verified on the numbers, in every problem in which they are wrong: "this
is what one gets with the mistake …", "yours is the right gradient times √d". If no statement holds, none is made.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

CLOSE = 1e-9  # relative to the largest entry: agreement of two computations of the same numbers
RIGHT = 1e-8  # the same, for a reader's result to be right
IN_FLOAT32 = 2e-5  # the same, for a result that the reader's function computed in float32


class Diagnosis(NamedTuple):
    """``mistake`` names a planted bug or a slip, or is None; ``text`` is for the reader, ``hint`` says more."""

    text: str
    mistake: str | None = None
    hint: str = ""
    vague: bool = False  # true, but a symptom rather than a reason


class Wrong(NamedTuple):
    """One wrong result in one problem."""

    problem: str
    name: str
    mine: np.ndarray
    expected: np.ndarray
    sizes: dict
    terms: dict  # label → array


def close(a, b, tolerance=CLOSE) -> bool:
    """Whether two results have one shape and agree to ``tolerance`` of the largest entry; NaN and ∞ must coincide.

    A result in float32 has 7 digits, and is compared to ``IN_FLOAT32``.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype == np.float32:
        tolerance = max(tolerance, IN_FLOAT32)
    if a.shape != b.shape or a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
        return False
    finite = np.isfinite(b)
    if not np.array_equal(finite, np.isfinite(a)):
        return False
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return False
    if not finite.any():
        return True
    scale = max(float(np.abs(b[finite]).max()), 1e-300)
    return float(np.abs(a[finite] - b[finite]).max()) <= tolerance * scale


def position_of(mine, expected):
    """Index of the largest difference, and how many entries differ."""
    difference = np.abs(np.nan_to_num(mine, nan=np.inf, posinf=np.inf) - np.nan_to_num(expected))
    scale = float(np.abs(expected).max(initial=0.0)) or 1.0
    worst = np.unravel_index(int(np.argmax(difference)), difference.shape)
    return tuple(int(i) for i in worst), int((difference > RIGHT * scale).sum())


def matching(mine: dict, expected: dict, rivals: dict) -> dict:
    """The rivals that explain each wrong result: name of a result → the rivals' names, best first.

    mine, expected and each rival map problem → name → array, or problem → exception. A rival explains a result if it
    agrees with the reader's in every problem in which the reader's is wrong, and is wrong itself in one of them. Results
    without any finite number agree with nothing.
    """
    wrong = wrong_results(mine, expected)
    names = list(dict.fromkeys(name for _, name in wrong))
    explains: dict[str, list[str]] = {}
    for rival, results in rivals.items():
        for name in names:
            where = [problem for problem, n in wrong if n == name]
            if not any(np.isfinite(mine[problem][name]).any() for problem in where if _is_numbers(mine[problem], name)):
                continue  # NaN everywhere comes from too many mistakes to name one
            if all(_agrees(mine, results, problem, name) for problem in where):
                explains.setdefault(rival, []).append(name)
    order = sorted(explains, key=lambda rival: (-len(explains[rival]), -_agreement(mine, rivals[rival])))
    return {name: [rival for rival in order if name in explains[rival]] for name in names}


def wrong_results(mine, expected):
    """``(problem, name)`` of every result that is not right, in order."""
    return [
        (problem, name)
        for problem, results in expected.items()
        if isinstance(mine[problem], dict)
        for name, array in results.items()
        if not close(mine[problem].get(name), array, RIGHT)
    ]


def _is_numbers(results, name):
    return name in results and np.asarray(results[name]).dtype.kind in "fiub"


def _agrees(mine, rival, problem, name):
    if not isinstance(rival[problem], dict) or name not in rival[problem]:
        return False
    return close(mine[problem][name], rival[problem][name])


def _agreement(mine, rival):
    """Number of problems with the same outcome in both, an exception included."""
    total = 0
    for problem, results in mine.items():
        other = rival[problem]
        if isinstance(results, dict) != isinstance(other, dict):
            continue
        total += (
            type(results) is type(other)
            if not isinstance(results, dict)
            else all(close(array, other.get(name)) for name, array in results.items())
        )
    return total


def of_numbers(found: list[Wrong]) -> Diagnosis | None:
    """The kind of error of one result, if the same kind holds in all problems; None where no kind fits."""
    for kind in _KINDS:
        text = kind(found)
        if text:
            return Diagnosis(text, vague=kind in _SYMPTOMS)
    return None


# ---- the kinds, each (list of Wrong) → text or None ------------------------------------------------------------------


def _not_finite(found):
    bad = [w for w in found if not np.isfinite(w.mine).all()]
    return (
        "it holds NaN or infinity (an exp of a large number, or 0/0)"
        if bad and np.isfinite(bad[0].expected).all()
        else None
    )


def _shape(found):
    wrong = [w for w in found if w.mine.shape != w.expected.shape]
    if not wrong:
        return None
    w = wrong[0]
    text = f"the shape is {w.mine.shape}; expected {w.expected.shape}"
    if all(_some_permutation(w) for w in wrong):
        return f"{text}: yours is the right gradient transposed"
    if all(_summed(w) is not None for w in wrong):
        return f"{text}: a sum over axis {', '.join(map(str, _summed(w)))} is missing"
    return text


def _some_permutation(w):
    axes = range(w.mine.ndim)
    return any(close(w.mine.transpose(p), w.expected) for p in itertools.permutations(axes))


def _summed(w):
    extra = w.mine.ndim - w.expected.ndim
    axes = tuple(range(extra))
    return axes if extra > 0 and close(w.mine.sum(axis=axes), w.expected) else None


def _float32(found):
    if all(w.mine.shape == w.expected.shape and close(w.mine, w.expected, IN_FLOAT32) for w in found):
        return (
            "it agrees to 7 digits, not to 15: an array inside is float32 (dtype=…), or a constant has too few digits"
        )
    return None


def _zeros(found):
    return "every entry is 0" if all(not w.mine.any() for w in found) else None


def _factor(found):
    factors = [_ratio(w.mine, w.expected) for w in found]
    if any(c is None for c in factors):
        return None
    if all(abs(c + 1) < CLOSE for c in factors):
        return "the sign is wrong: yours is the right gradient times −1"
    names = set.intersection(*(set(_names_of(c, w.sizes)) for c, w in zip(factors, found)))
    if not names:
        shown = ", ".join(f"{c:.6g}" for c in dict.fromkeys(np.round(factors, 12)))
        return f"yours is the right gradient times one factor: {shown}"
    name = min(names, key=len)
    text = f"yours is the right gradient times {name}"
    if name in ("1/B", "1/T", "1/(B·T)", "1/N"):
        return f"{text}: a mean where a sum belongs"
    if name in ("B", "T", "B·T", "N", "C"):
        return f"{text}: a sum where a mean belongs"
    return text


def _ratio(a, b):
    if a.shape != b.shape or not b.any():
        return None
    c = float((a * b).sum() / (b * b).sum())
    return c if c != 0 and close(a, c * b) else None


def _names_of(factor, sizes):
    """Names of the products and roots of sizes that equal ``factor``."""
    values = {"2": 2.0, "4": 4.0, "π": math.pi}
    for n in sizes:
        values[n] = float(sizes[n])
        values[f"√{n}"] = math.sqrt(sizes[n])
    for a, b in itertools.combinations(sizes, 2):
        values[f"{a}·{b}"] = float(sizes[a] * sizes[b])
        values[f"{a}/{b}"] = sizes[a] / sizes[b]
    for name, value in values.items():
        compound = f"({name})" if "·" in name or "/" in name or " " in name else name
        for sign, prefix in ((1, ""), (-1, "−")):
            if abs(factor - sign * value) < CLOSE * value:
                yield f"{prefix}{name}"
            if abs(factor - sign / value) < CLOSE / value:
                yield f"{prefix}1/{compound}"


def _transposed(found):
    if all(w.mine.shape == w.expected.shape and w.mine.ndim >= 2 and _swapped(w) for w in found):
        return "yours is the right gradient with two axes exchanged"
    return None


def _swapped(w):
    axes = range(w.mine.ndim)
    return any(close(w.mine.transpose(p), w.expected) for p in itertools.permutations(axes) if list(p) != list(axes))


def _terms(found):
    if not all(w.terms and w.mine.shape == w.expected.shape for w in found):
        return None
    solved = [_combination(w) for w in found]
    if any(c is None for c in solved):
        return None
    said = []
    for number, label in enumerate(found[0].terms):
        factors = [c[number] for c in solved]
        if all(abs(c - 1) < 1e-7 for c in factors):
            continue
        term = label if label.startswith("the ") else f"the term {label}"
        if all(abs(c) < 1e-7 for c in factors):
            said.append(f"{term} is missing")
        elif all(abs(c + 1) < 1e-7 for c in factors):
            said.append(f"{term} has the wrong sign")
        else:
            names = set.intersection(*(set(_names_of(c, w.sizes)) for c, w in zip(factors, found)))
            factor = min(names, key=len) if names else f"{factors[0]:.6g}"
            said.append(f"{term} has the factor {factor} too many")
    return "; ".join(said) or None


def _combination(w):
    columns = np.stack([t.ravel() for t in w.terms.values()], axis=1)
    if w.mine.size < 2 * columns.shape[1]:
        return None
    factors = np.linalg.lstsq(columns, w.mine.ravel(), rcond=None)[0]
    return factors if close(columns @ factors, w.mine.ravel()) else None


def _row_sums(found):
    def sums_to_zero(array):
        return array.ndim > 1 and np.abs(array.sum(axis=-1)).max() < 1e-12 * np.abs(array).sum(axis=-1).max()

    shapes = all(w.mine.shape == w.expected.shape for w in found)
    if shapes and all(sums_to_zero(w.expected) for w in found) and not any(sums_to_zero(w.mine) for w in found):
        return "every row must sum to 0, because adding one number to all inputs of a row changes nothing; yours do not"
    return None


def _confined(found):
    """The index that all wrong entries share, if there is one, as a sentence."""
    w = found[0]
    if len(found) > 1 and any(x.mine.shape != w.mine.shape for x in found):
        return None
    if w.mine.shape != w.expected.shape:
        return None
    wrong = np.abs(w.mine - w.expected) > RIGHT * np.abs(w.expected).max(initial=1e-300)
    for axis, size in enumerate(wrong.shape):
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        where = np.flatnonzero(wrong.any(axis=others))
        if size > 2 and len(where) == 1:
            return f"only entries at index {int(where[0])} of axis {axis} are wrong"
    return None


def _rows_that_are_zero(found):
    """Whole rows that must be 0 and are not: positions that do not count, keys that are not seen."""
    for w in found:
        if w.mine.shape != w.expected.shape or w.expected.ndim < 2:
            return None
        wrong = ~w.expected.any(axis=-1) & w.mine.any(axis=-1)
        if not wrong.any():
            return None
    first = ", ".join(str(int(n)) for n in np.argwhere(wrong)[0])
    return f"rows that must be 0 are not, for example [{first}]: what is at that position, and does it count?"


_SYMPTOMS = (_row_sums, _rows_that_are_zero, _confined)
_KINDS = (_not_finite, _shape, _float32, _zeros, _factor, _transposed, _terms, *_SYMPTOMS)
