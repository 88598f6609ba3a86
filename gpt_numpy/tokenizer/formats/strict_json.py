"""Text and JSON of files from any source: a duplicate key, a NaN or very deep nesting is an error.

``json.loads`` keeps the last of two equal keys silently, takes ``NaN`` for a number, and answers a
hundred thousand brackets with a ``RecursionError``. In this module each of
them is a ``VocabError`` (or another error of the caller's choice) with its line.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ...errors import GPTNumpyError, VocabError
from ...files.regular import read_regular

MAX_DEPTH = 64
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{\]}]', re.DOTALL)
_KEY = re.compile(r'("(?:[^"\\]|\\.)*")\s*:', re.DOTALL)


class _DuplicateKey(ValueError):
    pass


def _object(pairs):
    table = dict(pairs)
    if len(table) != len(pairs):
        seen = set()
        raise _DuplicateKey(next(key for key, _ in pairs if key in seen or seen.add(key)))
    return table


def _constant(name):
    raise ValueError(f"{name} is not a JSON value")


def read(path: Path, error: type[GPTNumpyError] = VocabError) -> tuple[object, str]:
    """The value in the JSON file ``path``, and the file's text; ``error`` is the class to raise for invalid content."""
    text = read_text(path, error)
    return loads(text, path, error), text


def loads(text: str, path: Path, error: type[GPTNumpyError] = VocabError) -> object:
    """The value in ``text``; ``path`` is for the messages only."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as fault:
        raise error(f"not JSON ({fault.msg}, column {fault.colno})", path=path, line=fault.lineno) from None
    except _DuplicateKey as fault:
        key = fault.args[0]
        raise error("the same key twice", path=path, line=line_of_key(text, key, 2), found=key) from None
    except ValueError as fault:
        raise error(f"not JSON ({fault})", path=path) from None
    except RecursionError:
        raise error(f"nested deeper than {MAX_DEPTH}", path=path, line=_line_of_depth(text)) from None


def read_text(path: Path, error: type[GPTNumpyError] = VocabError) -> str:
    """The text of the file ``path``; an ``error`` with the line if it is not UTF-8 or has a byte-order mark.

    A path that is not a regular file is refused too: a FIFO or device might never end.
    """
    data = read_regular(path, error)
    if data.startswith(b"\xef\xbb\xbf"):
        raise error("begins with a byte-order mark", path=path, line=1, expected="plain UTF-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise error(f"not UTF-8 at byte {fault.start}", path=path, line=data.count(b"\n", 0, fault.start) + 1) from None


def is_there(path: Path) -> bool:
    """Whether ``path`` exists, as a regular file or as something else, which reading will refuse."""
    return path.exists() or path.is_symlink()


def line_of_key(text: str, key: str, occurrence: int = 1) -> int | None:
    """The line of the ``occurrence``-th ``key`` that is a key of an object; None if there is none."""
    for match in _KEY.finditer(text):
        try:
            occurrence -= json.loads(match.group(1)) == key
        except ValueError:
            continue
        if occurrence == 0:
            return text.count("\n", 0, match.start()) + 1
    return None


def _line_of_depth(text):
    """The line where brackets are first nested deeper than MAX_DEPTH."""
    depth = 0
    for match in _STRUCTURE.finditer(text):
        bracket = match.group()
        depth += bracket in "[{"
        depth -= bracket in "]}"
        if depth > MAX_DEPTH:
            return text.count("\n", 0, match.start()) + 1
