"""Every symbol is defined where it is used: in the lessons, the labs, and whatever the study tools say in formulas."""

import ast
import re

import pytest

from gpt_numpy.study import glossary, lesson_files
from gpt_numpy.study.bugs import BUGS
from gpt_numpy.study.exercises import EXERCISES, stubs
from gpt_numpy.study.exercises.slips import SLIPS
from gpt_numpy.study.microscope.boxes import BOXES

TEXTS = {path.stem: path for path in [*lesson_files.lessons(), *lesson_files.labs().values()]}
LETTER = r"[A-Za-zΑ-Ωα-ω∂∘]"
SYMBOL = re.compile(rf"(?<![\w'’.`\\])(?<!B/)(?<!P/)d?({LETTER})(?:[₀-₉̂̃]|_[a-z0-9]+|_\{{[^}}]*\}}|['²³ᵗᵀ½])*(?![\w'’])")
NO_SYMBOLS = set("aAIi") | set("eπ")  # words, the imaginary unit where it is defined, and the two constants
NAME = re.compile(r"[A-Za-zΑ-Ωα-ω][A-Za-zΑ-Ωα-ω0-9]+")
FUNCTIONS = {
    "log",
    "exp",
    "max",
    "min",
    "mean",
    "tanh",
    "softmax",
    "sum",
    "sigmoid",
    "cos",
    "sin",
    "Im",
    "attention",
    "head",
}
# Words of the remarks beside formulas, each next to a sign.
REMARKS = {"and", "sums", "backward", "now", "column", "has", "the", "alone", "second"}


def without_code(text):
    """A cell's text without `code`, and without the lines of lesson 1 that show a regular expression."""
    text = re.sub(r"`[^`]*`", "", text)
    return "\n".join(line for line in text.split("\n") if "\\" not in line)


def symbols_of(text):
    """Single letters, Latin or Greek, with d for a gradient taken off: in formulas and in prose."""
    found = [m for m in SYMBOL.finditer(without_code(text)) if m[0] not in ("do", "as")]
    return {m[1] for m in found} - NO_SYMBOLS


def names_of(text):
    """Names of several letters that stand beside a sign in the indented lines of a text."""
    found = set()
    for line in without_code(text).split("\n"):
        for match in NAME.finditer(line) if line.startswith("    ") else ():
            before, after = line[: match.start()].rstrip()[-1:], line[match.end() :].lstrip()[:1]
            if (before and before in "=·∘+−/√Σ∂(") or (after and after in "=·∘+−/_("):
                found.add(match[0])
    return found - FUNCTIONS - REMARKS


def defined_in(text):
    """What a text introduces: ``**Symbols.** x: …; y, z: …``, ``(Σ_j: …)``, and the left side of an indented formula."""
    found = set()
    for part in re.findall(r"\*\*Symbols\.\*\*(.*?)(?:\n\n|$)", text, re.DOTALL):
        for item in part.split(";"):
            head = item.split(":")[0]
            found |= set(re.findall(rf"{LETTER}|Σ|δ", head)) | set(NAME.findall(head))
    for part in re.findall(r"\(([^():]*:\s[^()]*)\)", text):
        for item in part.split(";"):
            head = item.split(":")[0]
            if len(head) <= 8:
                found |= set(re.findall(rf"{LETTER}|Σ", head)) | set(NAME.findall(head))
    found |= {m[1] for m in re.finditer(r"^    +([A-Za-z]\w*?)(?:_\w+)?(?:\([^)]*\))? +=", text, re.MULTILINE)}
    return found


def is_defined(name, defined):
    """A name itself, the gradient of one (dxhat), or letters side by side, a product or an index (ih, rk)."""
    letters = set(name) <= defined | NO_SYMBOLS and len(name) <= 2
    return name in defined or letters or (name[0] == "d" and is_defined(name[1:], defined))


@pytest.mark.parametrize("name", TEXTS)
def test_every_symbol_of_a_lesson_is_defined_by_its_first_use(name):
    defined = set()
    for kind, cell in lesson_files.cells(TEXTS[name]):
        if kind in lesson_files.CODE:
            continue
        defined |= defined_in(cell)
        assert symbols_of(cell) <= defined, (sorted(symbols_of(cell) - defined), cell)
        unknown = {n for n in names_of(cell) if not is_defined(n, defined)}
        assert not unknown, (unknown, cell)


@pytest.mark.parametrize("name", TEXTS)
def test_formulas_fit_on_a_line_of_a_notebook(name):
    lines = [
        line
        for kind, cell in lesson_files.cells(TEXTS[name])
        if kind not in lesson_files.CODE
        for line in cell.split("\n")
    ]
    assert not [line for line in lines if line.startswith("    ") and len(line) > 92]


def test_the_symbols_test_can_fail():
    assert symbols_of("text\n\n    dx = r · q_k") == {"x", "r", "q"}
    assert symbols_of("The width is D, and dW is a gradient. Do I see a `k`?") == {"D", "W"}
    assert names_of("    dxhat = dout ∘ weight    of each row") == {"dxhat", "dout", "weight"}
    defined = defined_in("**Symbols.** x: the input; r, q: numbers; xhat: x · r")
    assert defined >= {"x", "r", "q", "xhat"} and "z" not in defined
    assert is_defined("dxhat", defined) and is_defined("rq", defined) and not is_defined("dyhat", defined)
    assert defined_in("words (W₁, W₂: weights; u: a number)\n\n    loss = x") >= {"W", "u", "loss"}


def statements():
    """``(where, text, layer)`` of everything the study tools say with formulas."""
    for bug in BUGS.values():
        yield bug.name, f"{bug.hint}  {bug.answer}", bug.layer
    for exercise, slips in SLIPS.items():
        yield from ((slip.name, slip.hint, exercise) for slip in slips)
    for name, box in BOXES.items():
        yield f"box {name}", f"{box.formula}  {box.gradient}", name.partition(".")[0]
    for name, exercise in EXERCISES.items():
        for level in stubs.LEVELS:
            nodes = ast.walk(ast.parse(stubs.stub(exercise, level)))
            documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
            texts = [ast.get_docstring(n) or "" for n in nodes if isinstance(n, documented)]
            yield f"{name}, level {level}", "\n".join(texts), name


def test_every_symbol_that_the_study_tools_use_has_a_meaning():
    unknown = {w: [s for s in glossary.symbols_in(t) if not glossary.meaning(s, layer)] for w, t, layer in statements()}
    assert {where: symbols for where, symbols in unknown.items() if symbols} == {}


def test_symbols_are_explained_beside_a_text():
    explained = glossary.explained("dx = r · (dxhat − mean(dxhat))", "layernorm")
    assert explained.startswith("x: a row of the input; r: 1/√(v + ε); xhat: c · r; ")
    assert "v: the variance" in explained and "m: the row's mean" in explained and "dx and the like" in explained
    assert glossary.symbols_in("Do as I say, a `k`, d(x²)/dx; tanh's argument") == ["x"]
    assert glossary.explained("no formula here", "gelu") == ""
