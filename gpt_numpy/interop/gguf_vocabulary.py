"""The tokenizer inside a GGUF file: tokens, merges, special tokens, and the name of the pre-tokenization pattern.

llama.cpp has its patterns built in and knows each by a name. ``PATTERNS`` gives the name of each pattern for which
llama.cpp finds the same words. llama.cpp normalises no text: it reads a text that is not in NFC otherwise than a tokenizer
with that normalizer.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import ConfigError, VocabError
from ..tokenizer.formats.pipeline import DIGITS
from ..tokenizer.formats.tokenizer_config import CHAT_TEMPLATE_FILE
from ..tokenizer.formats.vocab_files import id_table
from ..tokenizer.pretokenize import GPT2_PATTERN
from ..tokenizer.tokenizer import Tokenizer

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _REST
QWEN2_PATTERN = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _REST
# the spelling of a pattern in tokenizer.json, in tiktoken or here → llama.cpp's name
PATTERNS: Mapping[str, str] = types.MappingProxyType(
    {
        GPT2_PATTERN: "gpt-2",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt-2",
        LLAMA3_PATTERN: "llama-bpe",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+": (
            "llama-bpe"
        ),
        QWEN2_PATTERN: "qwen2",
        DIGITS[True]: "smollm",
    }
)
_UNMERGED = {"llama-bpe": "smaug-bpe"}  # the same pattern where a whole word is not taken from the vocabulary first
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # llama.cpp's kinds of tokens
_NEVER_IN_UTF8 = 0xFF


class Words(NamedTuple):
    """What a GGUF file says about a tokenizer."""

    pattern: str  # llama.cpp's name
    tokens: list[str]  # as many as the model has rows
    kinds: list[int]
    merges: list[str]
    begin: int  # the id that llama.cpp knows as the beginning of a text
    end: int  # … as its end
    turn: int | None  # another id at which generation ends
    adds_begin: bool  # whether every text begins with ``begin``
    pad: int | None  # the id that fills up rows
    chat_template: str | None  # of several, the one named default


def vocabulary_of(tokenizer: Any, n_rows: int, end_of_text: tuple[int, ...] = ()) -> Words:
    """The ``Words`` of ``tokenizer`` for a model with ``n_rows`` rows in its embedding.

    Raises ``VocabError`` for a tokenizer that llama.cpp does not have, ``ConfigError`` for one with more ids than rows.
    """
    if not isinstance(tokenizer, Tokenizer):
        raise VocabError("llama.cpp has no tokenizer of characters", found=tokenizer, expected="byte-level BPE")
    vocabulary = tokenizer.vocabulary
    if vocabulary.add_prefix_space:
        raise VocabError("llama.cpp has no prefix space in byte-level BPE", field="add_prefix_space", found=True)
    if vocabulary.pattern not in PATTERNS:
        raise VocabError("llama.cpp has no such pattern", field="pattern", found=vocabulary.pattern)
    if len(vocabulary.begin) > 1:
        raise VocabError("llama.cpp puts one token in front of a text", field="begin", found=vocabulary.begin)
    pattern = PATTERNS[vocabulary.pattern]
    if not vocabulary.ignore_merges:
        pattern = _UNMERGED.get(pattern, pattern)
    elif pattern not in _UNMERGED and tokenizer.whole_words:
        raise VocabError("llama.cpp has this for Llama 3's pattern alone", field="ignore_merges", found=True)
    if len(vocabulary) > n_rows:
        raise ConfigError("the tokenizer has more ids", field="vocab_size", found=n_rows, expected=f"{len(vocabulary)}")
    tokens = list(id_table(vocabulary))
    kinds = [_NORMAL] * len(tokens)
    for added, kind in ((vocabulary.special_tokens, _CONTROL), (vocabulary.plain_tokens, _USER_DEFINED)):
        for i in added.values():
            kinds[i] = kind
    padding = range(len(tokens), n_rows)
    merges = [f"{tokens[left]} {tokens[right]}" for left, right in vocabulary.merges]
    ends = end_of_text or (() if tokenizer.eot_id is None else (tokenizer.eot_id,))
    # Without an end, llama.cpp would stop at id 11. Instead, it gets a token that no UTF-8 text has.
    end = ends[0] if ends else vocabulary.byte_ids[_NEVER_IN_UTF8]
    return Words(
        pattern,
        [*tokens, *(f"[PAD{i}]" for i in padding)],
        [*kinds, *(_UNUSED for _ in padding)],
        merges,
        tokenizer.begin_ids[0] if vocabulary.begin else end,
        end,
        ends[1] if len(ends) > 1 else None,
        bool(vocabulary.begin),
        _id_of_role(vocabulary, "pad_token"),
        _chat_template(vocabulary.extras),
    )


def _id_of_role(vocabulary, role):
    entry = vocabulary.extras.settings.get(role)
    return vocabulary.special_tokens.get(entry.get("content") if isinstance(entry, dict) else entry)


def _chat_template(extras):
    if CHAT_TEMPLATE_FILE in extras.files:
        try:
            return extras.files[CHAT_TEMPLATE_FILE].decode("utf-8")
        except UnicodeDecodeError as error:
            raise VocabError("not UTF-8", path=CHAT_TEMPLATE_FILE, offset=error.start) from None
    template = extras.settings.get("chat_template")
    named = [one for one in template if isinstance(one, dict)] if isinstance(template, list) else []
    template = next((one.get("template") for one in named if one.get("name") == "default"), template)
    return template if isinstance(template, str) else None


def add_to(writer: Any, words: Words | None) -> None:
    """Put ``words`` into a ``GGUFWriter``; None: the file has no tokenizer, and llama.cpp takes and gives ids only."""
    if words is None:
        writer.add_tokenizer_model("no_vocab")
        return
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.pattern)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.kinds)
    writer.add_token_merges(words.merges)
    writer.add_bos_token_id(words.begin)
    writer.add_eos_token_id(words.end)
    if words.turn is not None:
        writer.add_eot_token_id(words.turn)
    writer.add_add_bos_token(words.adds_begin)
    if words.pad is not None:
        writer.add_pad_token_id(words.pad)
    if words.chat_template is not None:
        writer.add_chat_template(words.chat_template)
