"""No change of a right solution at one point passes, unless it changes no number: each such kind has its reason here.

A mutant exchanges an operator, drops a term or a factor, changes a sign, a constant, an axis, a keyword, a comparison or the
order of two values. Right solutions are the package's own, of every exercise, and those of ``right_solutions``.
"""

import ast
import copy
import importlib.util
import pathlib
import re
import signal
import types

import numpy as np
import pytest

from gpt_numpy.study.exercises import EXERCISES, checking, diagnosis, rivals, stubs
from gpt_numpy.study.exercises.catalogue import originals

spec = importlib.util.spec_from_file_location("right_solutions", pathlib.Path(__file__).with_name("right_solutions.py"))
right_solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(right_solutions)
IMPORTS = "import math\nimport numpy as np\nfrom gpt_numpy import layers\n"
QUICK = ("softmax", "head", "shared-heads", "qk-norm", "residual", "dropout", "embedding", "kernel")
SECONDS = 10  # a mutant of a loop may never end

# What the line of a mutant that passes may look like, and why it computes the same numbers.
EQUIVALENT = {
    r"alloc.*→(?!.*=.?alloc\(x)|→.*-alloc|stream|_BLOCK": "where results are stored, and in which portions, changes no number",
    r"-np\.(zeros|empty)|= -0(\.0)?$": "0 has no sign here, and the values of an empty array are overwritten",
    r"reshape\((-2|2)|reshape\([^)]*-2": "a negative size means what is left, whichever it is",
    r"\+[12]\b": "the last axis of an array of two axes is axis 1, and the third of four is axis 2",
    r"\(1, 0\)|\[:, \.\.\., None\]": "the order of summed axes; the second of three axes, counted from either end",
    r"clip\(": "tanh is 1 far before the bounds of the clip",
    r"h = ": "the complex step is exact for any small h",
    r"where\(counted, targets, |max\(len\(index\), 0\)|\.sum\(\), 0\)": "rows that do not count are multiplied by 0",
    r"exp\(|maximum = |= -np\.where": "the terms are divided by their sum, so a shift or a sign of all of them cancels",
    r"argsort\(|<= top_p": "two logits are never equal, nor a sum of probabilities equal to p",
    r"groups == 0": "repeating each head once changes nothing",
    r"table\[:, \.\.\.|half = -": "of tables (T, pairs) or (B, T, pairs) the last axis but one; a half counted from the end",
    r"tensordot": "the other way of naming the same axes",
}
NOT_ASKED = "return (dwte, None)"  # GPT-2's positions are always learned: the exercise never comes to this line


_SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.MatMult: ast.Mult}
_OPPOSITES = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}


def changes(node):
    """The changes of one node, each a function of the node."""
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _SWAPS:
        yield lambda n: setattr(n, "op", _SWAPS[type(n.op)]())
    if isinstance(node, ast.BinOp):
        yield lambda n: n.__dict__.update(op=ast.Mult(), right=ast.Constant(1))
        yield lambda n: n.__dict__.update(op=ast.Mult(), left=ast.Constant(1))
    if isinstance(node, ast.AugAssign):
        yield lambda n: n.__dict__.update(op=ast.Add(), value=ast.Constant(0))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda n: setattr(n, "op", ast.UAdd())
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield from (lambda n, add=add: setattr(n, "value", n.value + add) for add in (1, -1))
        yield lambda n: setattr(n, "value", n.value * 2)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _OPPOSITES:
        yield lambda n: n.ops.__setitem__(0, _OPPOSITES[type(n.ops[0])]())
    if isinstance(node, ast.Call):
        yield from (lambda n, k=k: n.keywords.pop(k) for k in range(len(node.keywords)))
    if isinstance(node, ast.keyword) and node.arg == "axis":
        yield lambda n: setattr(n, "value", ast.Constant(0))
    if isinstance(node, ast.Tuple) and len(node.elts) > 1 and isinstance(node.ctx, ast.Load):
        yield lambda n: n.elts.__setitem__(slice(0, 2), n.elts[1::-1])
    if isinstance(node, (ast.Assign, ast.Return)) and node.value is not None:
        yield lambda n: setattr(n, "value", ast.UnaryOp(ast.USub(), n.value))


def points(tree, written):
    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in written):
        for statement in function.body[ast.get_docstring(function) is not None :]:
            yield from ast.walk(statement)


def mutants(text, written):
    """Texts of all mutants, each with the line that it changes, before and after."""
    tree = ast.parse(text)
    before = ast.unparse(tree).splitlines()
    for number, node in enumerate(points(tree, written)):
        for change in changes(node):
            mutant = copy.deepcopy(tree)
            change(list(points(mutant, written))[number])
            after = ast.unparse(ast.fix_missing_locations(mutant)).splitlines()
            line = next((f"{a.strip()}  →  {b.strip()}" for a, b in zip(before, after) if a != b), None)
            if line is not None:
                yield "\n".join(after), line


def passes(exercise, text, expected):
    def too_long(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        functions = rivals.functions_of(exercise, text)
        for (seed, name), right in expected.items():
            problem = next(p for p in exercise.problems(seed) if p.name == name)
            with np.errstate(all="ignore"):
                mine = problem.run(functions)
            if not all(diagnosis.close(mine.get(n), a, diagnosis.RIGHT) for n, a in right.items()):
                return False
        return True
    except Exception:
        return False
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def texts():
    for name in EXERCISES:
        yield pytest.param(name, None, marks=[] if name in QUICK else [pytest.mark.campaign], id=name)
    for name, found in right_solutions.SOLUTIONS.items():
        for number in range(len(found)):
            marks = [] if name != "attention" and number == 0 else [pytest.mark.campaign]
            yield pytest.param(name, number, marks=marks, id=f"{name}-{number}")


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs an alarm")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, number", list(texts()))
def test_no_mutant_of_a_right_solution_passes(name, number):
    exercise = EXERCISES[name]
    text = stubs.solution(exercise) if number is None else IMPORTS + right_solutions.SOLUTIONS[name][number]
    expected = checking.run_all(exercise, types.SimpleNamespace(**originals(exercise)))
    assert passes(exercise, text, expected)
    found = [mutant for mutant in mutants(text, exercise.written) if not mutant[1].startswith(NOT_ASKED)]
    assert len(found) >= 3
    survivors = [line for mutant, line in found if passes(exercise, mutant, expected)]
    unexplained = [line for line in survivors if not any(re.search(kind, line) for kind in EQUIVALENT)]
    assert not unexplained, "\n".join(unexplained)
    assert len(survivors) <= max(2, 0.25 * len(found))
