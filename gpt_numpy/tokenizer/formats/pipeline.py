"""The steps around the merges in a ``tokenizer.json``: ``normalizer``, ``pre_tokenizer`` and ``post_processor``, in and out.

Of the many steps that ``tokenizers`` has, those of byte-level BPE are read:

normalizer      none, or NFC (Qwen)
pre_tokenizer   ByteLevel with GPT-2's pattern; Split by another pattern before it (Llama 3, Qwen); or Digits before it
                (SmolLM2, StarCoder), which is a pattern as well: ``DIGITS``
post_processor  none, ByteLevel, or a template that puts special tokens in front of a text (Llama 3)

Any other step is refused by name.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path

from ...errors import VocabError
from ..pretokenize import GPT2_PATTERN
from ..vocabulary import NORMAL_FORMS, Vocabulary


def _digits(number):
    """The words of GPT-2's pattern within the parts between numbers: such a part ends where a number begins."""
    return rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}+|{number}| ?[^\s\p{{L}}\p{{N}}]+|\s+(?![^\s\p{{N}}])|\s+"


# whether each digit is a word of its own → the pattern
DIGITS: Mapping[bool, str] = types.MappingProxyType({True: _digits(r"\p{N}"), False: _digits(r"\p{N}+")})
_SPLITS = ({"behavior": "Isolated", "invert": False}, {"behavior": "Removed", "invert": True})  # keep every match


def _in_order(step, key):
    """The list under ``key`` of a sequence of steps, not checked; any other step alone in a list."""
    return step.get(key) if isinstance(step, dict) and step.get("type") == "Sequence" else [step]


def normal_form_of(step, path: Path) -> str | None:
    """The Unicode normal form of a ``normalizer``, or None."""
    steps = _in_order(step, "normalizers")
    if isinstance(steps, list) and len(steps) < 2:
        step = steps[0] if steps else None
    if step is None:
        return None
    kind = step.get("type") if isinstance(step, dict) else None
    if kind not in NORMAL_FORMS:
        raise VocabError(
            "has a normalizer that is not supported", path=path, field="normalizer", found=step, expected="NFC or none"
        )
    return kind


def pattern_of(step, path: Path) -> tuple[object, bool]:
    """(pattern, prefix space) of a ``pre_tokenizer``. The pattern is the file's, and not checked."""
    steps = _in_order(step, "pretokenizers")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise VocabError("not byte-level", path=path, field="pre_tokenizer", found=step)
    *first, last = steps
    if last.get("type") != "ByteLevel":
        raise VocabError("not byte-level", path=path, field="pre_tokenizer", found=last)
    prefix, uses_gpt2s = bool(last.get("add_prefix_space")), last.get("use_regex", True)
    if not first and uses_gpt2s:
        return GPT2_PATTERN, prefix
    if prefix:  # a space before every word of another pattern
        raise VocabError("a prefix space behind another pattern is not supported", path=path, field="pre_tokenizer")
    if len(first) == 1 and first[0].get("type") == "Digits" and uses_gpt2s:
        return DIGITS[bool(first[0].get("individual_digits"))], False
    pattern = first[0].get("pattern") if len(first) == 1 and not uses_gpt2s else None
    split = first[0] if first else {}
    keeps = any(all(split.get(key) == value for key, value in kept.items()) for kept in _SPLITS)
    if not isinstance(pattern, dict) or split.get("type") != "Split" or not keeps:
        raise VocabError("not a split by one pattern", path=path, field="pre_tokenizer", found=steps)
    return pattern.get("Regex"), False


def begin_of(step, specials: Mapping[str, int], path: Path) -> tuple[str, ...]:
    """The special tokens that a ``post_processor`` puts in front of a text."""
    steps = _in_order(step, "processors")
    begin: list[str] = []
    for part in steps if isinstance(steps, list) else [steps]:
        kind = part.get("type") if isinstance(part, dict) else part
        if kind == "TemplateProcessing":
            begin = [*_template(part, specials, path), *begin]
        elif kind not in (None, "ByteLevel"):
            raise VocabError("is unknown, which is not supported", path=path, field="post_processor", found=kind)
    return tuple(begin)


def _template(step, specials, path):
    pieces = step.get("single")
    listed = pieces if isinstance(pieces, list) else []
    kinds = [next(iter(piece), None) if isinstance(piece, dict) else None for piece in listed]
    if not kinds or kinds != ["SpecialToken"] * (len(kinds) - 1) + ["Sequence"]:
        raise VocabError(
            "adds tokens elsewhere than in front of a text, which is not supported",
            path=path,
            field="post_processor",
            found=pieces,
        )
    texts, table = [], step.get("special_tokens")
    for piece in listed[:-1]:
        name = piece["SpecialToken"].get("id") if isinstance(piece["SpecialToken"], dict) else None
        entry = table.get(name) if isinstance(table, dict) and isinstance(name, str) else None
        ids = entry.get("ids") if isinstance(entry, dict) else None
        found = [text for i in ids for text, own in specials.items() if own == i] if isinstance(ids, list) else []
        if not found or len(found) != len(ids):
            raise VocabError(
                "not a special token of the file", path=path, field="post_processor.special_tokens", found=name
            )
        texts += found
    return texts


# ---- out ---------------------------------------------------------------------------------------------------


def steps_of(vocabulary: Vocabulary) -> dict[str, dict | None]:
    """The four steps, and the decoder, as the content of a ``tokenizer.json``."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    digits = next((single for single, pattern in DIGITS.items() if pattern == vocabulary.pattern), None)
    before: dict
    if vocabulary.pattern == GPT2_PATTERN:
        before = {**byte_level, "add_prefix_space": vocabulary.add_prefix_space, "use_regex": True}
    elif digits is not None:
        first = {"type": "Digits", "individual_digits": digits}
        before = {"type": "Sequence", "pretokenizers": [first, {**byte_level, "use_regex": True}]}
    else:
        split = {"type": "Split", "pattern": {"Regex": vocabulary.pattern}, "behavior": "Isolated", "invert": False}
        before = {"type": "Sequence", "pretokenizers": [split, {**byte_level, "use_regex": False}]}
    after: dict = {**byte_level, "trim_offsets": False, "use_regex": True}
    if vocabulary.begin:
        after = {"type": "Sequence", "processors": [after, _template_of(vocabulary)]}
    return {
        "normalizer": None if vocabulary.normal_form is None else {"type": vocabulary.normal_form},
        "pre_tokenizer": before,
        "post_processor": after,
        "decoder": {**byte_level, "use_regex": True},
    }


def _template_of(vocabulary):
    begin = vocabulary.begin
    front = [{"SpecialToken": {"id": text, "type_id": 0}} for text in begin]
    second = [{"SpecialToken": {"id": text, "type_id": 1}} for text in begin]
    single = [*front, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *second, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            text: {"id": text, "ids": [vocabulary.special_tokens[text]], "tokens": [text]} for text in begin
        },
    }
