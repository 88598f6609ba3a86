"""Special tokens: strings such as ``<|endoftext|>`` that have one id and are never split.

Special tokens control the model: a text that a user typed must not be able to end a document. Special tokens
are therefore recognised only where the caller allows that. Any other text that holds one is refused.

The order of ``cut`` is that of ``tokenizers``: added tokens are found in the text as it is; the parts between them are
normalised; the added tokens that are found in normalised text divide these parts again.

>>> list(split_specials("one<|endoftext|>two", ["<|endoftext|>"]))
[('one', False), ('<|endoftext|>', True), ('two', False)]
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import regex

from ..errors import TokenizerError
from ..unicode.normal_form import normalized

if TYPE_CHECKING:
    from .vocabulary import Vocabulary

END_OF_TEXT = "<|endoftext|>"


@functools.lru_cache(maxsize=32)
def _any_of(special_tokens: frozenset[str]) -> regex.Pattern:
    # An alternation takes its first branch that matches, so the longest goes first.
    return regex.compile("|".join(regex.escape(token) for token in sorted(special_tokens, key=len, reverse=True)))


def split_specials(text: str, special_tokens: Collection[str]) -> Iterator[tuple[str, bool]]:
    """The parts of ``text`` in order, each with whether it is a special token.

    Of special tokens that begin at the same position the longest is taken.
    """
    start = 0
    for match in find_specials(text, special_tokens):
        if match.start() > start:
            yield text[start : match.start()], False
        yield match.group(), True
        start = match.end()
    if start < len(text):
        yield text[start:] if start else text, False


def cut(text: str, allowed: frozenset[str], vocabulary: Vocabulary, goes_on: bool = False) -> list[tuple[str, bool]]:
    """The parts of ``text`` in order, each with whether it is one of the ``allowed`` added tokens.

    ``goes_on`` says that ordinary text came before ``text``, so that no prefix space is added.
    """
    late = allowed & vocabulary.normalized_tokens
    parts = list(split_specials(text, allowed - late))
    if vocabulary.normal_form is not None:
        parts = [(part if added else normalized(part), added) for part, added in parts]
        if late:
            parts = [p for part, added in parts for p in ([(part, True)] if added else split_specials(part, late))]
    if vocabulary.add_prefix_space:
        first = 1 if goes_on else 0
        parts[first:] = [(part, True) if added else (_prefixed(part), False) for part, added in parts[first:]]
    return parts


def _prefixed(text):
    return text if text.startswith(" ") else " " + text


def find_specials(text: str, special_tokens: Collection[str]):
    """The matches of ``special_tokens`` in ``text``, from left to right."""
    # Most texts hold no special token, and the search for a plain string is many times faster than any pattern.
    present = frozenset(token for token in special_tokens if token in text)
    return _any_of(present).finditer(text) if present else iter(())


def resolve(known: Collection[str], chosen, name: str, but: Collection[str] = frozenset()) -> frozenset[str]:
    """The set that an ``allowed_special`` or ``disallowed_special`` argument ``chosen`` means.

    ``"all"`` is every ``known`` token that is not in ``but``; anything else is a collection of known tokens.
    """
    if isinstance(chosen, str):
        if chosen != "all":
            raise TypeError(f"{name} is 'all' or a collection of special tokens, not the str {chosen!r}")
        return frozenset(known) - frozenset(but)
    chosen = frozenset(chosen)
    unknown = chosen - frozenset(known)
    if unknown:
        raise TokenizerError(
            "not a special token of this tokenizer",
            field=name,
            found=min(unknown, key=repr),
            expected=f"some of {sorted(known)}",
        )
    return chosen


def refuse_specials(
    text: str, disallowed: frozenset[str], allowed: frozenset[str], field: str | None = None, start: int = 0
) -> None:
    """Raise ``TokenizerError``, with the position, if ``text`` holds a ``disallowed`` token outside the ``allowed``.

    ``field`` says which text it is; the position of its first character is ``start``.
    """
    for match in find_specials(text, disallowed | allowed) if disallowed else ():
        if match.group() in disallowed:
            raise TokenizerError(
                f"the text holds the special token {match.group()!r}; pass it in allowed_special to encode it as one "
                f"id, or disallowed_special=() to encode it as ordinary text",
                field=field,
                offset=start + match.start(),
            )


def check_special_tokens(special_tokens: Sequence[str]) -> tuple[str, ...]:
    """``special_tokens`` as a tuple; ``TokenizerError`` if one is empty, a duplicate, or not text."""
    if isinstance(special_tokens, str):
        raise TypeError(f"special_tokens is a sequence of str, not one str ({special_tokens!r})")
    special_tokens = tuple(special_tokens)
    for i, token in enumerate(special_tokens):
        field = f"special_tokens[{i}]"
        if not isinstance(token, str):
            raise TypeError(f"{field} is a {type(token).__name__}, not a str")
        if not token:
            raise TokenizerError("a special token is empty", field=field)
        if token in special_tokens[:i]:
            raise TokenizerError("the same special token twice", field=field, found=token)
        try:
            token.encode("utf-8")
        except UnicodeEncodeError:
            raise TokenizerError("a special token holds a lone surrogate", field=field, found=token) from None
    return special_tokens


# ---- in front of a text ------------------------------------------------------------------------------------

# The tokenizers of some models put special tokens in front of every text, mostly one: Llama 3's <|begin_of_text|>. These are
# Tokenizer.begin_ids. A text that a model reads from its beginning on gets them here: prompts, texts that are scored,
# evaluated, looked at or calibrated on, and every document of a training text. transformers does the same by default, and so
# do llama.cpp and the preparation of data in litgpt. The ids of a tokenizer alone (Tokenizer.encode) have none in front.


def missing_begin(tokenizer: Any, ids: Sequence[int] | np.ndarray) -> list[int]:
    """The ids to put in front of a text's ``ids``: ``begin_ids``, or none where the text itself begins with them.

    A text begins with them where it spells the special tokens and these are allowed, as a filled chat template does. A
    model has seen no text that begins twice.
    """
    begin = _begin_ids(tokenizer)
    return [] if list(ids[: len(begin)]) == begin else begin


def _begin_ids(tokenizer):
    return getattr(tokenizer, "begin_ids", [])  # a tokenizer of the caller's own may have encode and decode alone


def begun(tokenizer: Any, ids: list[int]) -> list[int]:
    """``ids`` of a text as a model reads them from the text's beginning on, see ``missing_begin``."""
    return missing_begin(tokenizer, ids) + ids


def before_document(tokenizer: Any) -> list[int]:
    """The ids before the first token of a document: ``begin_ids``, or else the end of a document before it, or none."""
    return _begin_ids(tokenizer) or ([] if tokenizer.eot_id is None else [tokenizer.eot_id])
