"""An exercise's files, made from the package's own source: the solution, and the stubs that lack it.

``solution`` is the part of a source file that an exercise is about: the functions to write, the forwards, and
every definition that these use, with imports that work outside the package. ``stub`` is the solution without the
bodies that the reader is to write: signatures, shapes and forwards stay, bodies and derivations are removed. A stub is
made from the layer's current source and is never stored.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import pathlib
import re
import textwrap

from ...errors import ConfigError
from .. import glossary

LEVELS = ("function", "steps", "blank")
_BLANK_BODY = "raise NotImplementedError"


@functools.cache
def solution(exercise) -> str:
    """The complete source text, with all bodies; ``exercise`` is a ``catalogue.Exercise``."""
    source = _Source(exercise)
    if exercise.of_class:
        return source.class_text({})
    return source.module_text({})


@functools.cache
def stub(exercise, level: str = "function") -> str:
    """The text of the reader's file at one of ``LEVELS``."""
    if level not in LEVELS:
        raise ConfigError("no such level", field="level", found=level, expected=", ".join(LEVELS))
    if level == "blank":
        return _with_header(exercise, level, _task(exercise), "import numpy as np\n")
    if level == "steps" and exercise.steps is not None:
        return _with_header(exercise, level, _STEPS_TEXT, _steps_stub(exercise))
    source = _Source(exercise)
    text = source.class_text if exercise.of_class else source.module_text
    if level == "steps" and not exercise.of_class:
        return _with_header(exercise, level, _GAPS_TEXT, text(dict.fromkeys(exercise.written, _with_gaps)))
    blank = functools.partial(_without_body, exercise=exercise, outline=level == "steps")
    return _with_header(exercise, level, "", text(dict.fromkeys(exercise.written, blank)))


def patched(exercise, old: str, new: str) -> str | None:
    """The solution with ``old`` replaced; None where ``old`` does not occur exactly once in the solution."""
    text = solution(exercise)
    return text.replace(old, new) if text.count(old) == 1 else None


def written_lines(exercise) -> list[str]:
    """The lines of the solution that the reader is to write, whole statements of one line each."""
    tree = ast.parse(solution(exercise))
    lines = solution(exercise).splitlines()
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in exercise.written]
    return [line for node in nodes for line in lines[node.body[0].end_lineno : node.end_lineno]]


def steps_name(exercise) -> str:
    """Name of the function that the reader completes at level ``steps`` of a layer."""
    return exercise.steps[1].__name__


# ---- the parts of a source file --------------------------------------------------------------------------------------


class _Source:
    """One module's text, cut into its top-level statements."""

    def __init__(self, exercise):
        self.exercise = exercise
        self.text = pathlib.Path(exercise.home.__file__).read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.tree = ast.parse(self.text)
        self.definitions = {name: node for node in self.tree.body for name in _defined(node)}

    def segment(self, node):
        return "\n".join(self.lines[_first_line(node) - 1 : node.end_lineno])

    def module_text(self, replacements):
        exercise = self.exercise
        wanted = self._closure({*exercise.written, *exercise.forwards})
        pieces = [self._imports(wanted)]
        for node in self.tree.body:
            names = _defined(node)
            if not names & wanted or isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            function = next((replacements[n] for n in names if n in replacements), None)
            pieces.append(("\n\n" if _is_long(node) else "") + (function or _whole)(self, node))
        return "\n".join(pieces).strip("\n") + "\n"

    def class_text(self, replacements):
        """A class derived from the one in the module, with the exercise's methods and the forwards beside them."""
        exercise, home = self.exercise, self.exercise.home.__name__
        base = exercise.of_class
        methods = {n.name: n for n in self.definitions[base].body if isinstance(n, ast.FunctionDef)}
        chosen = [methods[n] for n in methods if n in {*exercise.written, *exercise.forwards}]
        used = set().union(*(_used(n) for n in chosen)) & set(self.definitions) - {base}
        constants = [n for n in self.tree.body if isinstance(n, ast.Assign) and _defined(n) & used]
        used -= set().union(*(_defined(n) for n in constants))
        given = sorted(n for n in used if not isinstance(self.definitions[n], (ast.Import, ast.ImportFrom)))
        package, _, module = home.rpartition(".")
        lines = [self._imports(used), f"from {package} import {module}"]
        lines += [f"from {home} import {', '.join(given)}"] if given else []
        lines += ["", *(self.segment(n) for n in constants), "", "", f"class {base}({module}.{base}):"]
        for node in chosen:
            lines.append((replacements.get(node.name) or _whole)(self, node) + "\n")
        return "\n".join(lines).strip("\n") + "\n"

    def _closure(self, names):
        wanted, new = set(), set(names)
        while new:
            wanted |= new
            found = set()
            for name in new:
                if name in self.exercise.given:
                    continue
                found |= _used(self.definitions[name]) & set(self.definitions)
            new = found - wanted
        return wanted - set(self.exercise.given) - {"adds_into"}

    def _imports(self, wanted):
        package = self.exercise.home.__name__.split(".")
        lines = []
        for node in self.tree.body:
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            aliases = [a for a in node.names if (a.asname or a.name).split(".")[0] in wanted or a.name == "annotations"]
            if not aliases:
                continue
            if isinstance(node, ast.Import):
                lines.append(ast.unparse(ast.Import(aliases)))
                continue
            parts = package[: len(package) - node.level] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            lines.append(ast.unparse(ast.ImportFrom(module, aliases, 0)))
        given = [n for n in self.exercise.given if n in self._used_by_all(wanted)]
        if given:
            lines.append(f"from {self.exercise.home.__name__} import {', '.join(given)}")
        return "\n".join(lines)

    def _used_by_all(self, wanted):
        return set().union(*(_used(self.definitions[n]) for n in wanted if n in self.definitions))


def _defined(node):
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(a.asname or a.name).split(".")[0] for a in node.names}
    return set()


def _used(node):
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _first_line(node):
    decorators = [d for d in getattr(node, "decorator_list", ()) if "adds_into" not in _used(d)]
    return min([node.lineno, *(d.lineno for d in decorators)])


def _is_long(node):
    return isinstance(node, (ast.FunctionDef, ast.ClassDef))


def _whole(source, node):
    return source.segment(node)


# ---- functions without their bodies ----------------------------------------------------------------------------------


def _signature(source, node):
    return "\n".join(source.lines[_first_line(node) - 1 : node.body[0].lineno - 1])


def _first_paragraph(node):
    return inspect.cleandoc(ast.get_docstring(node) or "").split("\n\n")[0]


def _docstring(text, indent):
    wrapped = textwrap.wrap(" ".join(text.split()), 112 - indent)
    body = ("\n" + " " * indent).join(wrapped)
    return " " * indent + f'"""{body}"""' if len(wrapped) == 1 else " " * indent + f'"""{body}\n' + " " * indent + '"""'


def _without_body(source, node, exercise, outline):
    indent = node.col_offset + 4
    says = exercise.says.get(node.name) or _first_paragraph(node)
    lines = [_signature(source, node), _docstring(says, indent)] if says else [_signature(source, node)]
    if outline:
        lines += [" " * indent + f"# {line}" for line in _outline(source, node.name)]
    return "\n".join([*lines, " " * indent + _BLANK_BODY])


def _outline(source, name):
    """The forward's calls in reverse, which is the order in which a backward passes through them."""
    forward = "loss" if name == "backward" else name.replace("_backward", "_forward")
    method = next(n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef) and n.name == forward)
    called = [n for n in ast.walk(method) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    calls = sorted(
        (n.lineno, ast.unparse(n.func)) for n in called if n.func.attr.endswith(("forward", ".loss", "loss"))
    )
    names = [name for name, _ in itertools.groupby(call for _, call in reversed(calls))]
    return [f"{number}. back through {name}" for number, name in enumerate(names, start=1)]


def _with_gaps(source, node):
    """The function with every value that it computes taken out: ``name = ...`` is for the reader to complete."""
    lines = [_signature(source, node), _docstring(_first_paragraph(node), node.col_offset + 4)]
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    kept = source.lines[body[0].lineno - 1 : node.end_lineno]
    first = body[0].lineno
    number = 0
    for inner in sorted(_statements(node), key=lambda n: n.lineno):
        if inner.lineno < first or isinstance(inner.value, ast.Constant):
            continue
        number += 1
        start, stop = inner.lineno - first, inner.end_lineno - first
        text = kept[start]
        sign = re.search(r"[-+*/@]?=(?!=)", text).end()
        kept[start] = f"{text[:sign]} ...  # step {number}"
        for line in range(start + 1, stop + 1):
            kept[line] = None
    if number == 0:  # the function is one expression
        start = node.body[-1].lineno - first
        kept[start:] = [re.sub(r"return .*", "return ...  # step 1", kept[start])]
    return "\n".join(lines + [line for line in kept if line is not None])


def _statements(node):
    return [n for n in ast.walk(node) if isinstance(n, (ast.Assign, ast.AugAssign))]


# ---- the two other levels --------------------------------------------------------------------------------------------

_STEPS_TEXT = (
    "The forward is taken apart: ``see`` names each value, and t[name] holds it in the backward. Write the gradient of "
    "each value, from the last to the first, and then those of the layer's inputs. The check stops at the first wrong "
    "one, so begin at the top."
)
_GAPS_TEXT = "Complete the steps, each marked ``...``. The check stops at the first wrong one."


def _steps_stub(exercise):
    forward, backward = exercise.steps
    tree = ast.parse(textwrap.dedent(inspect.getsource(backward)))
    parameters = ast.unparse(tree.body[0].args)
    names = step_names(exercise)
    lines = [*_steps_imports(exercise), "", "", inspect.getsource(forward).rstrip(), "", ""]
    lines += [f"def {backward.__name__}({parameters}):"]
    lines += ['    d = {"": dout}' if "dout" in parameters else f'    d = {{"{names[0]}": {parameters.split(",")[0]}}}']
    lines += [f'    d["{name}"] = None' for name in names if name not in ("", _given_step(exercise))]
    return "\n".join([*lines, "    return d", ""])


def _given_step(exercise):
    """The step whose gradient is the backward's own argument."""
    first = inspect.signature(exercise.steps[1]).parameters
    return "" if "dout" in first else {"dloss": "loss", "dlogits": "logits"}[next(iter(first))]


def step_names(exercise) -> list[str]:
    """Names of the gradients of level ``steps``, in backward order; the layer's inputs come last."""
    return [*exercise.step_order, *exercise.gradients]


def _steps_imports(exercise):
    module = inspect.getmodule(exercise.steps[0])
    tree = ast.parse(inspect.getsource(module))
    used = _used(ast.parse(textwrap.dedent(inspect.getsource(exercise.steps[0]))))
    lines = ["import math", "", "import numpy as np"] if "math" in used else ["import numpy as np"]
    package = module.__name__.split(".")
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            names = [a.name for a in node.names if a.name in used]
            parts = package[: len(package) - node.level]
            if names:
                lines.append(f"from {'.'.join([*parts, node.module])} import {', '.join(names)}")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in used and node.name.startswith("_"):
            lines += ["", "", "\n".join(inspect.getsource(module).splitlines()[node.lineno - 1 : node.end_lineno])]
    return lines


def _task(exercise):
    """The text of level blank, which has no code: the signatures in words."""
    source = _Source(exercise)
    parts = [f"Write {', '.join(exercise.written)}."]
    for name in exercise.written:
        node = source.definitions.get(name) or next(
            n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef) and n.name == name
        )
        arguments = ", ".join(a.arg for a in node.args.args if not a.arg.startswith("alloc"))
        parts.append(f"{name}({arguments}): {exercise.says.get(name) or _first_paragraph(node)}")
    if exercise.of_class:
        parts.append(f"They are methods of a class {exercise.of_class} derived from {exercise.home.__name__}'s.")
    if exercise.cache is not None:
        fields = inspect.getsource(exercise.cache).strip().split("\n", 1)[1]
        parts.append(f"cache is a {exercise.cache.__name__}, a named tuple of:\n\n{textwrap.dedent(fields)}")
    return "\n\n".join(part if "\n" in part else textwrap.fill(part, 112) for part in parts)


def _with_header(exercise, level, text, body):
    """The file: what is asked, the symbols of its docstrings and comments, the commands; then ``body``."""
    command = f"gpt-numpy study exercise {exercise.name}"
    lines = [f'"""Exercise {exercise.name}, level {level}: {exercise.title} (lesson {exercise.lesson}).', ""]
    if text:
        lines += [text if "\n" in text else textwrap.fill(text, 112), ""]
    explained = glossary.explained("\n".join([text, *_prose(body)]), exercise.name)
    if explained:
        lines += [textwrap.fill(f"Symbols. {explained}.", 112), ""]
    lines += [f"    {command} --check         says what is right, and where the first difference is"]
    lines += [f"    {command} --check --hint  says more about a mistake that is recognised", '"""', ""]
    return "\n".join([*lines, body])


def _prose(body):
    """The docstrings and comments of a text of code."""
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    yield from (ast.get_docstring(n) or "" for n in ast.walk(ast.parse(body)) if isinstance(n, documented))
    yield from re.findall(r"#(.*)", body)
