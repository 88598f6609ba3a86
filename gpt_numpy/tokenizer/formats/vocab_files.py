"""``vocab.json`` and ``merges.txt``, the form of OpenAI's GPT-2 and of Hugging Face.

OpenAI calls the two files ``encoder.json`` and ``vocab.bpe``; the content is the same. The table maps
each token's spelling (see ``byte_alphabet``) to its id; the other file has one merge a line, in order, after
a version line. ``tokenizer_config`` reads the other settings.
"""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import VocabError
from ..byte_alphabet import BYTE_TO_CHARACTER, spell, unspell
from ..vocabulary import Origin, Vocabulary
from . import strict_json
from .tokenizer_config import Declared, merge_added_tokens

VERSION_LINE = "#version: 0.2"


def read_vocabulary(vocab_path: Path, merges_path: Path, declared: Declared | None = None) -> Vocabulary:
    """The vocabulary of the two files; every fault is a ``VocabError`` with its file and line.

    ``declared`` are the declarations of the files beside them. Without a declaration, the only special token is
    ``<|endoftext|>``, if the vocabulary has it, as in GPT-2.
    """
    declared = declared or Declared()
    table, text = strict_json.read(vocab_path)
    table = read_id_table(table, text, vocab_path)
    merges = read_merges(merges_path, table)
    specials, plain = declared.settle(table, _made(table, merges))
    merge_added_tokens(table, specials, plain, declared.path)
    lines = list(merges.values())
    origin = FileOrigin(vocab_path, text, table, lambda rank: {"path": merges_path, "line": lines[rank]})
    return declared.vocabulary(tokens_of(table, {**specials, **plain}, origin), tuple(merges), specials, origin)


def _made(table, merges) -> set[str]:
    """The spellings of the byte tokens and of the merged tokens."""
    spelled = {i: text for text, i in table.items()}
    return {*BYTE_TO_CHARACTER, *(spelled[left] + spelled[right] for left, right in merges)}


class FileOrigin(Origin):
    """Positions of tokens, as keys of ``table`` in the JSON ``text`` of ``path``, and of merges, by ``merge_place``."""

    def __init__(self, path, text, table, merge_place):
        self.path, self.text, self.table, self.merge = path, text, table, merge_place

    def token(self, i):
        key = next((key for key, value in self.table.items() if value == i), "")
        return {"path": self.path, "line": strict_json.line_of_key(self.text, key), "field": f"id {i}"}

    def whole(self):
        return {"path": self.path}


def read_id_table(table, text: str, path: Path) -> dict[str, int]:
    """``table`` (the JSON value in ``text``), checked to be a table of distinct ids from 0 without a gap."""
    if not isinstance(table, dict):
        raise VocabError("not a table of tokens", path=path, found=type(table).__name__, expected="a JSON object")
    owners: dict[int, str] = {}
    for key, i in table.items():
        problem = (
            "has an id that is no whole number"
            if type(i) is not int
            else "has a negative id"
            if i < 0
            else f"has the id of {owners[i]!r} too"
            if i in owners
            else None
        )
        if problem:
            raise VocabError(
                f"the token {key!r} {problem}", path=path, line=strict_json.line_of_key(text, key), found=i
            )
        owners[i] = key
    if owners and max(owners) != len(owners) - 1:
        last, gap = max(owners), next(gap for gap in range(len(owners)) if gap not in owners)
        raise VocabError(
            f"no token has the id {gap}, yet {owners[last]!r} has {last}",
            path=path,
            line=strict_json.line_of_key(text, owners[last]),
        )
    return table


def tokens_of(table: dict[str, int], specials: dict[str, int], origin: Origin) -> tuple[bytes, ...]:
    """The bytes of each id: ordinary tokens unspelled, special ones as their text."""
    tokens = [b""] * len(table)
    for text, i in table.items():
        try:
            tokens[i] = text.encode("utf-8") if text in specials else unspell(text)
        except ValueError as error:
            raise VocabError(
                f"the token {text!r} is neither special nor spelled in GPT-2's byte alphabet ({error})",
                **origin.token(i),
            ) from None
    return tuple(tokens)


def read_merges(path: Path, table: dict[str, int]) -> dict[tuple[int, int], int]:
    """The merges of ``path`` in order: pair of ids → line. Lines end in LF, or all of them in CRLF."""
    text = strict_json.read_text(path)
    if text.count("\r\n") == text.count("\n"):  # as in a checkout on Windows
        text = text.replace("\r\n", "\n")
    rows = text.split("\n")
    if rows.pop() != "":
        raise VocabError("the last line does not end (is the file cut off?)", path=path, line=len(rows) + 1)
    if not rows:
        raise VocabError("empty", path=path, line=1, expected=f"{VERSION_LINE!r} and one merge a line")
    merges: dict[tuple[int, int], int] = {}
    for line, row in enumerate(rows, 1):
        if row.endswith("\r"):
            raise VocabError("a carriage return", path=path, line=line, expected="lines that all end alike")
        if line > 1 or not row.startswith("#version:"):
            add_merge(merges, row.split(" "), table, line, {"path": path, "line": line})
    return merges


def add_merge(merges: dict, parts: list[str], table: dict[str, int], place: int, where: dict) -> None:
    """Put the merge of the two spelled tokens ``parts``, found at ``place``, into ``merges``: pair → place."""
    try:
        left, right = parts
        pair = table[left], table[right]
    except (ValueError, TypeError):
        raise VocabError("not a merge", found=parts, expected="two tokens", **where) from None
    except KeyError as error:
        raise VocabError("a merge of an unknown token", found=error.args[0], **where) from None
    if pair in merges:
        raise VocabError(f"a merge for the second time, after {merges[pair]}", found=" ".join(parts), **where)
    merges[pair] = place


def id_table(vocabulary: Vocabulary) -> dict[str, int]:
    """token's spelling (or a special token's text) → id, in the order of ids."""
    names = {i: text for text, i in {**vocabulary.special_tokens, **vocabulary.plain_tokens}.items()}
    return {names.get(i) or spell(token): i for i, token in enumerate(vocabulary.tokens)}


def format_merges(vocabulary: Vocabulary) -> bytes:
    """The content of ``merges.txt``."""
    spelled = [spell(token) for token in vocabulary.tokens]
    lines = [VERSION_LINE, *(f"{spelled[left]} {spelled[right]}" for left, right in vocabulary.merges), ""]
    return "\n".join(lines).encode("utf-8")


def format_vocab(vocabulary: Vocabulary) -> bytes:
    """The content of ``vocab.json``: one token a line, so that a diff shows single tokens."""
    return json.dumps(id_table(vocabulary), ensure_ascii=False, indent=0).encode("utf-8")
