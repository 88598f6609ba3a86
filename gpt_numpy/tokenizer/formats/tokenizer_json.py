"""``tokenizer.json``, the one-file format of Hugging Face's ``tokenizers``.

The format describes many kinds of tokenizers. The parts of a byte-level BPE tokenizer are read. Any other
part that would change ids (a normalizer, dropout, …) is refused by name.
"""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import VocabError
from ..byte_alphabet import spell
from ..pretokenize import GPT2_PATTERN
from ..vocabulary import Vocabulary
from . import strict_json
from .tokenizer_config import Declared, add_token, added_tokens, check_pattern, merge_added_tokens, settled_end_of_text
from .vocab_files import FileOrigin, add_merge, id_table, read_id_table, tokens_of


def read_tokenizer_json(path: Path, declared: Declared | None = None) -> Vocabulary:
    """The vocabulary in ``path``; ``VocabError`` with the field or line for invalid content or another kind of tokenizer.

    The file decides the tokens. ``declared``, the declarations of the files beside this one, may name the token that ends
    a text, and must not contradict this file about the prefix space.
    """
    content, text = strict_json.read(path)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(model, dict):
        raise VocabError("not a tokenizer.json", path=path, field="model", expected="an object")
    _refuse_other_kinds(content, model, path)
    table = read_id_table(model.get("vocab"), text, path)
    specials: dict[str, int] = {}
    plain: dict[str, int] = {}
    for n, entry in enumerate(_list(content, "added_tokens", path)):
        i = entry.get("id") if isinstance(entry, dict) else None
        add_token(specials, plain, entry, i, path, f"added_tokens[{n}]")
    merge_added_tokens(table, specials, plain, path)

    def place(rank):
        return {"path": path, "field": f"model.merges[{rank}]"}

    merges: dict[tuple[int, int], int] = {}
    for rank, merge in enumerate(_list(model, "merges", path)):
        parts = merge.split(" ") if isinstance(merge, str) else merge if isinstance(merge, list) else []
        add_merge(merges, parts, table, rank, place(rank))
    origin = FileOrigin(path, text, table, place)
    pattern, add_prefix_space = _pattern(content.get("pre_tokenizer"), path)
    return Vocabulary(
        tokens_of(table, {**specials, **plain}, origin),
        tuple(merges),
        specials,
        check_pattern(pattern, path, "pre_tokenizer"),
        origin,
        plain,
        _settled_prefix(add_prefix_space, declared, path),
        settled_end_of_text(specials, declared or Declared()),
        declared.ties if declared is not None else None,
    )


def _settled_prefix(add_prefix_space, declared, path) -> bool:
    """``add_prefix_space``, unless the ``tokenizer_config.json`` beside the file says otherwise."""
    other = declared.add_prefix_space if declared is not None else None
    if other is not None and other != add_prefix_space:
        raise VocabError(
            f"{declared.path.name} beside this file says otherwise",
            path=path,
            field="pre_tokenizer.add_prefix_space",
            found=add_prefix_space,
            expected=other,
        )
    return add_prefix_space


def _list(table, key, path):
    value = table.get(key, [])
    if not isinstance(value, list):
        raise VocabError("not a list", path=path, field=key, found=type(value).__name__)
    return value


def _refuse_other_kinds(content, model, path):
    """Refuse parts that would give other ids than byte-level BPE."""
    if model.get("type", "BPE") != "BPE":
        raise VocabError("another kind of model", path=path, field="model.type", found=model["type"], expected="'BPE'")
    if content.get("normalizer") is not None:
        raise VocabError("has a normalizer, which is not supported", path=path, field="normalizer")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if model.get(key):
            raise VocabError("is set, which is not supported", path=path, field=f"model.{key}", found=model[key])
    after = content.get("post_processor")
    if after is not None and (not isinstance(after, dict) or after.get("type") != "ByteLevel"):
        raise VocabError("adds tokens or is unknown, which is not supported", path=path, field="post_processor")


def _pattern(before, path):
    """(pattern, prefix space) of a ``pre_tokenizer``: ByteLevel, or Split by a pattern and then ByteLevel."""
    steps = before.get("pretokenizers") if isinstance(before, dict) and before.get("type") == "Sequence" else [before]
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise VocabError("not byte-level", path=path, field="pre_tokenizer", found=before)
    *first, last = steps
    if last.get("type") != "ByteLevel":
        raise VocabError("not byte-level", path=path, field="pre_tokenizer", found=last)
    prefix, uses_gpt2s = bool(last.get("add_prefix_space")), last.get("use_regex", True)
    if not first and uses_gpt2s:
        return GPT2_PATTERN, prefix
    if prefix:  # a space before every word of another pattern
        raise VocabError("a prefix space behind another pattern is not supported", path=path, field="pre_tokenizer")
    pattern = first[0].get("pattern") if len(first) == 1 and not uses_gpt2s else None
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    if not isinstance(pattern, dict) or any(first[0].get(key) != value for key, value in split.items()):
        raise VocabError("not a split by one pattern", path=path, field="pre_tokenizer", found=steps)
    return pattern.get("Regex"), False


def format_tokenizer_json(vocabulary: Vocabulary) -> bytes:
    """The content of ``tokenizer.json``."""
    spelled = [spell(token) for token in vocabulary.tokens]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    before: dict
    if vocabulary.pattern == GPT2_PATTERN:
        before = {**byte_level, "add_prefix_space": vocabulary.add_prefix_space, "use_regex": True}
    else:
        split = {"type": "Split", "pattern": {"Regex": vocabulary.pattern}, "behavior": "Isolated", "invert": False}
        before = {"type": "Sequence", "pretokenizers": [split, {**byte_level, "use_regex": False}]}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, **entry} for i, entry in added_tokens(vocabulary)],
            "normalizer": None,
            "pre_tokenizer": before,
            "post_processor": {**byte_level, "trim_offsets": False, "use_regex": True},
            "decoder": {**byte_level, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": id_table(vocabulary),
                "merges": [f"{spelled[left]} {spelled[right]}" for left, right in vocabulary.merges],
            },
        },
        ensure_ascii=False,
        indent=1,
    ).encode("utf-8")
