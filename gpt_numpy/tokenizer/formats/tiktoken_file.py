"""``.tiktoken`` rank files: one token a line, its bytes in base64 and its rank, which is its id as well.

The file holds no merges. tiktoken joins the neighbours that make the token of the lowest rank. The merge
that makes a token is therefore found by encoding the token's bytes with the tokens of lower rank: two parts are left.
Special tokens and the pattern are in the ``tokenizer_config.json`` beside the file.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from ...errors import VocabError
from ..byte_alphabet import spell
from ..reference import encode_word
from ..vocabulary import Origin, Vocabulary
from . import strict_json
from .tokenizer_config import Declared


def read_tiktoken(path: Path, declared: Declared) -> Vocabulary:
    """The vocabulary of the ranks in ``path`` with the added tokens and the pattern that ``declared`` gives."""
    ids = _read_ranks(path)
    specials, plain = declared.specials or {}, declared.plain
    everything = [
        *((token, i) for token, (i, _) in ids.items()),
        *((text.encode("utf-8", "surrogatepass"), i) for text, i in {**specials, **plain}.items()),
    ]
    tokens: dict[int, bytes] = {}
    for token, i in everything:
        if i in tokens:
            raise VocabError(
                f"{spell(tokens[i])!r} and {spell(token)!r} have the same id",
                path=path,
                line=ids[token][1] if token in ids else None,
                found=i,
            )
        tokens[i] = token
    gap = next((gap for gap in range(len(tokens)) if gap not in tokens), None)
    if gap is not None:
        last, i = max(everything, key=lambda item: item[1])
        raise VocabError(
            f"no token has the id {gap}, yet {spell(last)!r} has {i}",
            path=path,
            line=ids[last][1] if last in ids else None,
        )
    lines = dict(ids.values())
    origin = _RankOrigin(path, lines)
    merges = _find_merges(ids, origin)
    origin.merge_lines = [lines[i] for i in merges]
    in_order = tuple(tokens[i] for i in range(len(tokens)))
    return declared.vocabulary(in_order, tuple(merges.values()), specials, origin)


class _RankOrigin(Origin):
    def __init__(self, path, lines):
        self.path, self.lines, self.merge_lines = path, lines, []

    def token(self, i):
        return {"path": self.path, "line": self.lines.get(i), "field": f"id {i}"}

    def merge(self, rank):
        return {"path": self.path, "line": self.merge_lines[rank]}

    def whole(self):
        return {"path": self.path}


def _read_ranks(path: Path) -> dict[bytes, tuple[int, int]]:
    """token → (id, line)."""
    rows = strict_json.read_text(path).split("\n")
    if rows.pop() != "":
        raise VocabError("the last line does not end (is the file cut off?)", path=path, line=len(rows) + 1)
    if not rows:
        raise VocabError("empty", path=path, line=1, expected="one token a line")
    ids: dict[bytes, tuple[int, int]] = {}
    for line, row in enumerate(rows, 1):
        coded, space, rank = row.partition(" ")
        try:
            token = base64.b64decode(coded, validate=True)
        except (binascii.Error, ValueError):
            token = b""
        if not token or not space or not (rank.isascii() and rank.isdigit() and len(rank) < 19):
            raise VocabError("not a rank", path=path, line=line, found=row[:80], expected="base64, a space, a number")
        if token in ids:
            raise VocabError(f"the token of line {ids[token][1]} again", path=path, line=line, found=spell(token))
        ids[token] = int(rank), line
    return ids


def _find_merges(ids, origin) -> dict[int, tuple[int, int]]:
    """id → the pair that makes the token, in the order of ranks."""
    single = [ids.get(bytes([byte]), (-1, 0))[0] for byte in range(256)]
    merges: dict[int, tuple[int, int]] = {}
    table: dict[tuple[int, int], tuple[int, int]] = {}
    for token, (i, _) in sorted(ids.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = encode_word(token, single, table)
        if len(parts) != 2 or -1 in parts:
            raise VocabError(
                f"lower ranks leave {len(parts):,} parts of {spell(token)!r}, so that nothing makes it",
                **origin.token(i),
            )
        merges[i] = parts[0], parts[1]
        table[merges[i]] = i, i
    return merges


def format_tiktoken(vocabulary: Vocabulary) -> bytes:
    """The content of a ``.tiktoken`` file; ``VocabError`` if ranks cannot express the merges."""
    special_ids = {*vocabulary.special_tokens.values(), *vocabulary.plain_tokens.values()}
    ranks = {token: (i, i) for i, token in enumerate(vocabulary.tokens) if i not in special_ids}
    if tuple(_find_merges(ranks, Origin()).values()) != vocabulary.merges:
        raise VocabError("the merges do not follow from the order of ids, which is all that a .tiktoken file holds")
    return b"".join(base64.b64encode(token) + b" %d\n" % i for token, (i, _) in ranks.items())
