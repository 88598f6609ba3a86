"""The parts of a byte-level BPE tokenizer, and the checks of each against the others.

Every file format reads into a ``Vocabulary`` and is written from one. Ids are dense: ``tokens[i]`` are
the bytes of id ``i``. Two kinds of tokens are not made by a merge: the 256 single bytes and the
special tokens. Each of the others is the result of exactly one merge. With ``ignore_merges``, a token may also be the result
of none: such a token stands where a whole word is that token.

A freshly trained vocabulary numbers the bytes by their value (0 … 255), then the merges in order, then
the special tokens (``from_merges``). GPT-2's own numbers the bytes in another order (see ``byte_alphabet``), and other
vocabularies put special tokens first. No code here depends on the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..errors import VocabError
from ..wording import counted
from .byte_alphabet import GPT2_BYTE_ORDER, spell, unspell
from .pretokenize import GPT2_PATTERN
from .specials import END_OF_TEXT

NORMAL_FORMS = ("NFC",)


class Origin:
    """Positions of a vocabulary's parts, as arguments of an error; a reader of files gives lines."""

    def token(self, i: int) -> dict:
        return {"field": f"id {i}"}

    def merge(self, rank: int) -> dict:
        return {"field": f"merge {rank}"}

    def whole(self) -> dict:
        return {}


class Extras(NamedTuple):
    """What the files beside a vocabulary say to other programs. It decides no id, and is written again as it was read.

    settings  entries of ``tokenizer_config.json``, such as ``chat_template``, ``pad_token`` and ``model_max_length``
    files     name → content of whole files: ``chat_template.jinja``
    """

    settings: dict[str, Any]
    files: dict[str, bytes]


@dataclass(frozen=True)
class Vocabulary:
    """Tokens, merges and special tokens, checked against each other; ``VocabError`` names the fault.

    tokens          the bytes of each id (for a special token, its text in UTF-8)
    merges          pairs of ids in the order of their ranks
    special_tokens  text → id
    pattern         the pre-tokenization pattern, in the syntax of the ``regex`` package
    plain_tokens    text → id of added tokens that are not special: found in every text, before the pattern
    add_prefix_space  whether a part of a text that does not begin with a space gets a space in front
    end_of_text     the special token that ends a text; by default ``<|endoftext|>``, where there is such a token
    ties            the rule for pairs of equal counts that the merges were trained with (``TIES``); None: unknown
    normal_form     the Unicode normal form that ordinary text is brought into before the pattern, one of ``NORMAL_FORMS``
    normalized_tokens  those of plain_tokens that are found in the normalised text; the others in the text as it is
    ignore_merges   whether a word that is a token is that token, whatever the merges make of it
    begin           special tokens that stand in front of every text that a model reads, such as ``<|begin_of_text|>``
    extras          what the files beside the vocabulary say to other programs, such as a chat template
    made            (byte_ids, merged_ids) of tokens that were made from the merges, which need no search then
    byte_ids        (derived) byte → id
    merged_ids      (derived) merge → id of the token it makes
    """

    tokens: tuple[bytes, ...]
    merges: tuple[tuple[int, int], ...]
    special_tokens: dict[str, int]
    pattern: str = GPT2_PATTERN
    origin: InitVar[Origin] = Origin()
    plain_tokens: dict[str, int] = field(default_factory=dict)
    add_prefix_space: bool = False
    end_of_text: str | None = None
    ties: str | None = field(default=None, compare=False)
    made: InitVar[tuple[Sequence[int], Sequence[int]] | None] = None
    normal_form: str | None = None
    normalized_tokens: frozenset[str] = frozenset()
    ignore_merges: bool = False
    begin: tuple[str, ...] = ()
    extras: Extras = field(default_factory=lambda: Extras({}, {}), compare=False, repr=False)
    byte_ids: tuple[int, ...] = field(init=False, repr=False)
    merged_ids: tuple[int, ...] = field(init=False, repr=False)

    def __repr__(self):
        merges, special = counted(len(self.merges), "merge"), len(self.special_tokens)
        return f"<Vocabulary: {counted(len(self.tokens), 'id')}: {merges}, {special} special>"

    def __post_init__(self, origin, made):
        if self.end_of_text is None and END_OF_TEXT in self.special_tokens:
            object.__setattr__(self, "end_of_text", END_OF_TEXT)
        for text in self.begin:
            if text not in self.special_tokens:
                raise VocabError("a token in front of every text is not special", found=text, **origin.whole())
        if made is not None and self._are_distinct():
            for name, ids in zip(("byte_ids", "merged_ids"), made, strict=True):
                object.__setattr__(self, name, tuple(ids))
            return
        ids = self._ordinary_ids(origin)
        missing = [byte for byte in range(256) if bytes([byte]) not in ids]
        if missing:
            raise VocabError(
                f"no token for the byte 0x{missing[0]:02x} ({len(missing)} of 256 are missing)", **origin.whole()
            )
        object.__setattr__(self, "byte_ids", tuple(ids[bytes([byte])] for byte in range(256)))
        object.__setattr__(self, "merged_ids", self._merged_ids(ids, origin))

    def __len__(self) -> int:
        return len(self.tokens)

    def _are_distinct(self) -> bool:
        """Whether no token occurs twice, and no special token's text is the spelling of an ordinary token."""
        tokens = set(self.tokens)
        return len(tokens) == len(self.tokens) and tokens.isdisjoint(map(_unspelled_other, self.special_tokens))

    def _ordinary_ids(self, origin) -> dict[bytes, int]:
        """token → id without the special tokens, checked to differ from every special token."""
        special_ids = set(self.special_tokens.values())
        ids: dict[bytes, int] = {}
        for i, token in enumerate(self.tokens):
            if i in special_ids:
                continue
            if not token:
                raise VocabError("an empty token", **origin.token(i))
            if ids.setdefault(token, i) != i:
                raise VocabError(f"the token {spell(token)!r} has the id {ids[token]} already", **origin.token(i))
        for text, i in {**self.special_tokens, **self.plain_tokens}.items():
            # The spelling too: vocab.json is one table of added tokens' texts and spelled tokens.
            if ids.get(text.encode("utf-8"), i) != i or ids.get(_unspelled(text), i) != i:
                raise VocabError(f"the added token {text!r} is an ordinary token as well", **origin.token(i))
        return ids

    def _merged_ids(self, ids, origin) -> tuple[int, ...]:
        made: dict[int, int] = {}  # token → the merge that makes it
        usable = set(self.byte_ids)
        for rank, (left, right) in enumerate(self.merges):
            for part in (left, right):
                if part not in usable:
                    raise VocabError(
                        f"merges {self._name(part)}, which neither is a byte nor was made by an earlier merge",
                        **origin.merge(rank),
                    )
            token = self.tokens[left] + self.tokens[right]
            new_id = ids.get(token)
            if new_id is None:
                raise VocabError(f"makes {spell(token)!r}, which is not in the vocabulary", **origin.merge(rank))
            if new_id in made:
                raise VocabError(f"makes {spell(token)!r}, as merge {made[new_id]} does", **origin.merge(rank))
            made[new_id] = rank
            usable.add(new_id)
        plain_ids = set(self.plain_tokens.values())
        for token, i in ids.items() if not self.ignore_merges else ():
            if i not in usable and i not in plain_ids:
                raise VocabError(
                    f"no merge makes the token {spell(token)!r}: a merge is missing, or it is a "
                    f"special token that nothing declares",
                    **origin.token(i),
                )
        return tuple(made)

    def _name(self, i) -> str:
        return repr(spell(self.tokens[i])) if 0 <= i < len(self.tokens) else f"id {i}"


def _unspelled(text: str) -> bytes:
    try:
        return unspell(text)
    except ValueError:
        return b""  # no token


def _unspelled_other(text: str) -> bytes:
    """As `_unspelled`, but no token where the spelling is the text itself."""
    token = _unspelled(text)
    return token if token != text.encode("utf-8") else b""


def from_merges(
    merges: Sequence[tuple[int, int]], special_tokens: Sequence[str], pattern: str, ties: str = "lowest"
) -> Vocabulary:
    """The vocabulary of freshly trained ``merges``, whose parts are byte values and 256 + the number of an earlier merge.

    Ids: bytes by value, merges in order, then specials. With ``ties="huggingface"`` the ids are those of ``tokenizers``:
    specials, bytes in the order of their characters, merges.
    """
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    specials = [text.encode("utf-8") for text in special_tokens]
    order = [*(GPT2_BYTE_ORDER if ties == "huggingface" else range(256)), *range(256, len(tokens))]
    first, first_special = (len(specials), 0) if ties == "huggingface" else (0, len(tokens))
    ids = dict(zip(order, range(first, first + len(order)), strict=True))
    ordinary = [tokens[number] for number in order]
    made = [ids[byte] for byte in range(256)], range(first + 256, first + len(tokens))
    return Vocabulary(
        tuple(specials + ordinary if first else ordinary + specials),
        tuple((ids[left], ids[right]) for left, right in merges) if ties == "huggingface" else tuple(merges),
        {text: first_special + i for i, text in enumerate(special_tokens)},
        pattern,
        ties=ties,
        made=made,
    )


# ---- whole words -------------------------------------------------------------------------------------------

# With ``ignore_merges``, a word that is a token is that token, though its merges may not make it. Most vocabularies have no
# such token. Where there are some (in a vocabulary joined from others, say), words are looked up before they are merged.


def unmerged_tokens(vocabulary: Vocabulary, encoder) -> dict[bytes, int]:
    """bytes → id of the ordinary tokens that ``encoder`` does not make of their own bytes."""
    added = {*vocabulary.special_tokens.values(), *vocabulary.plain_tokens.values()}
    ids = [i for i in range(len(vocabulary)) if i not in added]
    tokens = [vocabulary.tokens[i] for i in ids]
    made = encoder.encode_words(tokens)
    lengths = np.array([len(token) for token in vocabulary.tokens])
    # Where each token's bytes end, the last id made of them is the token itself, unless there are several.
    last = made[np.searchsorted(np.cumsum(lengths[made]), np.cumsum(lengths[ids]))]
    return {token: i for token, i, found in zip(tokens, ids, last.tolist()) if found != i}


def encode_words(words: list[bytes], encoder, whole: dict[bytes, int], dtype: np.dtype) -> np.ndarray:
    """The ids (n_tokens,) of ``words``, each merged by itself or, where it is in ``whole``, as that id."""
    if whole.keys().isdisjoint(words):
        return encoder.encode_words(words)
    pieces, start = [], 0
    for n, word in enumerate(words):
        if word in whole:
            pieces += [encoder.encode_words(words[start:n]), np.array([whole[word]], dtype)]
            start = n + 1
    return np.concatenate([*pieces, encoder.encode_words(words[start:])], dtype=dtype)
