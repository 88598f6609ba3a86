"""``tokenizer.json``, the one-file format of Hugging Face's ``tokenizers``.

The format describes many kinds of tokenizers. The parts of a byte-level BPE tokenizer are read. Any other
part that would change ids (dropout, another normalizer, …) is refused by name. ``pipeline`` reads the steps around the
merges.

Llama 3's file has all pairs of tokens that make a token as its merges. Merging takes the same steps within a token as for
the token's bytes alone, so only the last of these steps can ever make the token: the other merges are left out.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from ...errors import VocabError
from ...unicode.normal_form import normalized
from ..byte_alphabet import BYTE_TO_CHARACTER, spell, unspell
from ..reference import last_pair
from ..vocabulary import Extras, Vocabulary
from . import strict_json
from .pipeline import begin_of, normal_form_of, pattern_of, steps_of
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

    normal_form = normal_form_of(content.get("normalizer"), path)
    in_normalized = _normalized(content, specials, normal_form, path)
    merges = _merges(model, table, {**specials, **plain}, path)
    ranks = list(merges.values())
    origin = FileOrigin(path, text, table, lambda rank: _place(path, ranks[rank]))
    pattern, add_prefix_space = pattern_of(content.get("pre_tokenizer"), path)
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
        normal_form=normal_form,
        normalized_tokens=in_normalized,
        ignore_merges=bool(model.get("ignore_merges")),
        begin=begin_of(content.get("post_processor"), specials, path),
        extras=declared.extras if declared is not None else Extras({}, {}),
    )


def _place(path, rank):
    return {"path": path, "field": f"model.merges[{rank}]"}


def _normalized(content, specials, normal_form, path) -> frozenset[str]:
    """The added tokens that are found in normalised text; the flag has no meaning where no text is normalised."""
    if normal_form is None:
        return frozenset()
    flagged = frozenset(entry["content"] for entry in content["added_tokens"] if entry.get("normalized"))
    for text in flagged:
        if text in specials or normalized(text) != text:
            raise VocabError(
                "a special token, or one that is not normalised itself, is found in normalised text: not supported",
                path=path,
                field="added_tokens",
                found=text,
            )
    return flagged


def _merges(model, table, added, path) -> dict[tuple[int, int], int]:
    """The merges that can ever be applied, in order: pair of ids → position in the file."""
    merges: dict[tuple[int, int], int] = {}
    for rank, merge in enumerate(_list(model, "merges", path)):
        parts = merge.split(" ") if isinstance(merge, str) else merge if isinstance(merge, list) else []
        add_merge(merges, parts, table, rank, _place(path, rank))
    names = {i: name for name, i in table.items()}
    made = [table.get(names[left] + names[right]) for left, right in merges]
    several = {i for i, count in Counter(made).items() if count > 1 and i is not None and names[i] not in added}
    if not several:
        return merges
    byte_ids = [table.get(character, -1) for character in BYTE_TO_CHARACTER]
    ranked = {pair: (rank, i) for (pair, rank), i in zip(merges.items(), made)}
    last = {i: last_pair(_unspelled(names[i]), byte_ids, ranked) for i in several}
    kept: dict[tuple[int, int], int] = {}
    there = {*byte_ids, None}
    for (pair, rank), i in zip(merges.items(), made):
        if last.get(i, pair) == pair and there.issuperset(pair):
            kept[pair] = rank
            there.add(i)
    return kept


def _unspelled(name):
    try:
        return unspell(name)
    except ValueError:
        return b""  # a fault of the file, which ``tokens_of`` reports


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
    if model.get("byte_fallback"):
        raise VocabError(
            "is set: a vocabulary of SentencePiece, which is not supported",
            path=path,
            field="model.byte_fallback",
            found=True,
            expected="byte-level BPE",
        )
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise VocabError("is set, which is not supported", path=path, field=f"model.{key}", found=model[key])


def format_tokenizer_json(vocabulary: Vocabulary) -> bytes:
    """The content of ``tokenizer.json``."""
    spelled = [spell(token) for token in vocabulary.tokens]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, **entry} for i, entry in added_tokens(vocabulary)],
            **steps_of(vocabulary),
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": vocabulary.ignore_merges,
                "vocab": id_table(vocabulary),
                "merges": [f"{spelled[left]} {spelled[right]}" for left, right in vocabulary.merges],
            },
        },
        ensure_ascii=False,
        indent=1,
    ).encode("utf-8")
