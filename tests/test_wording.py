"""Numbers and errors in words; no message of the package says ``1 documents`` or repeats the system's own words."""

import ast
import pathlib
import re

import pytest

import gpt_numpy
from gpt_numpy import wording

PACKAGE = pathlib.Path(gpt_numpy.__file__).parent
# Nouns that a program counts and of which there may be one. Bytes are left out: nothing here has one byte.
NOUNS = (
    "documents|tokens|files|texts|steps|windows|blocks|merges|sequences|parameters|characters|ids|gradients|tensors|runs|"
    "shards|words|passages|questions|checkpoints|entries|problems"
)
PLURAL = re.compile(rf" (?:{NOUNS})\b(?!/s)")
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "kernels" not in path.parts)


def plurals_for_any_number(tree):
    """The f-strings of a module in which a count of any size stands before a plural."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:]):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    counts = value.format_spec is not None and "," in ast.unparse(value.format_spec)
                    counts |= ast.unparse(value.value).startswith("len(")
                    if counts and PLURAL.match(text.value):
                        yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_number_and_its_noun_agree(path):
    assert list(plurals_for_any_number(ast.parse(path.read_text(encoding="utf-8")))) == [], "wording.counted agrees"


def test_the_scan_finds_them():
    found = plurals_for_any_number(
        ast.parse("f'{n:,} documents', f'{len(x)} tokens', f'{n:,} tokens/s', f'{n} tokens'")
    )
    assert len(list(found)) == 2


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_message_repeats_the_system_s_words(path):
    """``strerror`` is in the system's language and names no remedy; ``wording.fault_of`` says the same in ours."""
    if path.name not in ("wording.py", "terminal.py"):
        assert "strerror" not in path.read_text(encoding="utf-8")


def test_a_fault_in_words():
    assert wording.fault_of(FileNotFoundError(2, "No such file or directory")) == "there is no such file or folder"
    assert wording.fault_of(OSError("odd")) == "odd"
    assert wording.in_words(PermissionError(13, "Permission denied", "a.txt")).startswith(
        "a.txt: there is no permission"
    )
