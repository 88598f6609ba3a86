"""What docstrings and READMEs name exists: paths, modules and their attributes, commands and their flags."""

import ast
import contextlib
import importlib
import io
import re
from functools import cache
from pathlib import Path

import pytest

from gpt_numpy import GPT, GPTConfig, Tokenizer, layers
from gpt_numpy.commands import SUBCOMMANDS, main
from gpt_numpy.inference.language_model import LanguageModel

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for top in ("gpt_numpy", "benchmarks", "scripts") for path in (ROOT / top).rglob("*.py"))
READMES = sorted([ROOT / "README.md", *(ROOT / "gpt_numpy").rglob("README.md")])
READMES += sorted([*(ROOT / "benchmarks").rglob("README.md"), *(ROOT / "scripts").rglob("README.md")])
# What examples call an object of these classes.
VARIABLES = {
    "model": (GPT(GPTConfig.preset("tiny"), ops=layers), LanguageModel),
    "tokenizer": (Tokenizer,),
    "config": (GPTConfig,),
}
ROOMS = {path.parent.name for path in (ROOT / "gpt_numpy").glob("*/__init__.py")} | {"model", "config", "parameters"}

# Paths that a user has, or that a program writes: not this repository's.
ELSEWHERE = re.compile(
    r"(^|/)(runs|folder|notes|more|corpus|tokens|hosts|exercises|checkpoints|RUN|DIR|FOLDER|FILE|h0|h|model|config|src|out|~)(/|$)"
    r"|[A-Z]{3,}|NN|[*<>{}$|…=]|^/|https?:|^\.|/s$|tokens/s|and/or|GB/s|FLOP/s"
)


def docstrings(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            yield ast.get_docstring(node)


def documents():
    for path in SOURCES:
        text = "\n".join(docstrings(path))
        if text:
            yield pytest.param(path, text, id=path.relative_to(ROOT).as_posix())
    for path in READMES:
        yield pytest.param(path, path.read_text(encoding="utf-8"), id=path.relative_to(ROOT).as_posix())


def quoted(text):
    """What stands between marks of code in prose, and the targets of Markdown links."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    yield from re.findall(r"``?([^`\n]+)``?", prose)
    yield from (target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in target)


def exists(name, near):
    """Whether a path is one of this repository's: as it is, within the package, or beside the file that names it."""
    starts = [ROOT, ROOT / "gpt_numpy", *near.parents]
    return any((start / name).exists() for start in starts if ROOT in (start, *start.parents))


@pytest.mark.parametrize("path, text", list(documents()))
def test_paths_exist(path, text):
    for name in quoted(text):
        if re.fullmatch(r"[\w./-]+/[\w./-]*", name) and not ELSEWHERE.search(name) and not name.startswith("gpt-numpy"):
            assert exists(name, path), f"{path.relative_to(ROOT)} names {name}"


def resolves(name):
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if not hasattr(value, part):
                return part in getattr(value, "__annotations__", {}) or part in getattr(value, "_fields", ())
            value = getattr(value, part)
        return True
    return False


@pytest.mark.parametrize("path, text", list(documents()))
def test_modules_and_their_names_exist(path, text):
    for name in quoted(text):
        name = name.split("(")[0]
        if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", name) is None:
            continue
        first = name.split(".")[0]
        if first == "gpt_numpy" or first == "benchmarks":
            assert resolves(name), f"{path.relative_to(ROOT)} names {name}"
        elif first in ROOMS and not name.endswith((".safetensors", ".json", ".txt", ".bin", ".py", ".toml")):
            variable = any(hasattr(kind, name.split(".")[1]) for kind in VARIABLES.get(first, ()))
            beside = ".".join(path.relative_to(ROOT).parent.parts)
            assert variable or resolves(f"gpt_numpy.{name}") or resolves(f"{beside}.{name}"), (
                f"{path.relative_to(ROOT)} names {name}"
            )


def help_of(*words):
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return output.getvalue()


@cache
def flags(command):
    """All flags of a subcommand and of the subcommands below it."""
    text = help_of(command)
    for below in re.findall(r"^ {4}([a-z]+)(?: |$)", text, re.MULTILINE):
        text += help_of(command, below)
    return set(re.findall(r"--[a-z0-9-]+", text))


def command_lines(text):
    """(subcommand, rest of the line) of every use of the command in prose and in blocks of code."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(r"gpt-numpy ([^`\n#]+)", joined):
        word, _, rest = line.partition(" ")
        if re.fullmatch(r"[a-z]+", word):
            yield word, rest.split("&&")[0]


@pytest.mark.parametrize("path, text", [p for p in documents() if "gpt-numpy " in p.values[1]])
def test_commands_and_their_flags_exist(path, text):
    for command, rest in command_lines(text):
        if command not in SUBCOMMANDS and not re.match(r"\s*(command|is|has|folder)", f" {command}"):
            raise AssertionError(f"{path.relative_to(ROOT)} names gpt-numpy {command}")
        for flag in re.findall(r"(?<![\w-])--[a-z0-9-]+", rest):
            assert flag in flags(command), f"{path.relative_to(ROOT)} names gpt-numpy {command} {flag}"
