"""``tokenizer_config.json``: the special tokens and the pattern of a tokenizer in other files.

Special tokens stand in it as ``transformers`` writes them, under ``added_tokens_decoder``; the
pre-tokenization pattern and the version of Unicode that says what a letter is are keys of our own, which others pass
over. A file without ``unicode_version`` is taken to mean the package's own version.
"""

from __future__ import annotations

import json
from pathlib import Path

from ... import unicode
from ...errors import TokenizerError, VocabError
from ..pretokenize import GPT2_PATTERN, compile_pattern
from ..specials import END_OF_TEXT
from ..vocabulary import Vocabulary
from . import strict_json

SETTINGS_FILE = "tokenizer_config.json"


def read_settings(path: Path) -> tuple[dict[str, int] | None, str]:
    """Special tokens (None: not declared) and the pattern from a ``tokenizer_config.json``."""
    settings, _ = strict_json.read(path)
    if not isinstance(settings, dict):
        raise VocabError("not a table of settings", path=path, found=type(settings).__name__, expected="a JSON object")
    pattern = check_pattern(settings.get("pattern", GPT2_PATTERN), path, "pattern")
    if (version := settings.get("unicode_version", unicode.VERSION)) != unicode.VERSION:
        raise VocabError(
            "the tokenizer classes characters by another version of Unicode",
            path=path,
            field="unicode_version",
            found=version,
            expected=unicode.VERSION,
        )
    declared = settings.get("added_tokens_decoder")
    if declared is None:
        return None, pattern
    if not isinstance(declared, dict):
        raise VocabError("not a table", path=path, field="added_tokens_decoder", found=declared)
    specials: dict[str, int] = {}
    for key, entry in declared.items():
        where = f"added_tokens_decoder.{key}"
        if not (key.isascii() and key.isdigit()):
            raise VocabError("not an id", path=path, field=where)
        add_special_token(specials, entry, int(key[:19]), path, where)
    return specials, pattern


def check_pattern(pattern, path: Path, where: str) -> str:
    """``pattern`` if it is one; ``VocabError`` otherwise."""
    if not isinstance(pattern, str):
        raise VocabError("not a pattern", path=path, field=where, found=pattern, expected="a string")
    try:
        compile_pattern(pattern)
    except TokenizerError as error:
        raise VocabError(str(error), path=path, field=where) from None
    return pattern


def add_special_token(specials: dict[str, int], entry, i, path: Path, where: str) -> None:
    """Put Hugging Face's added token ``entry`` with the id ``i`` into ``specials``.

    What only their library can do with an added token is refused.
    """
    text = entry.get("content") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text or type(i) is not int or i < 0:
        raise VocabError(
            "not an added token", path=path, field=where, found=entry, expected="an object with content and an id"
        )
    for flag in ("lstrip", "rstrip", "single_word"):
        if entry.get(flag):
            raise VocabError(f"{flag} is set, which is not supported", path=path, field=where)
    if text in specials or i in specials.values():
        raise VocabError("the same special token or id twice", path=path, field=where, found=text)
    specials[text] = i


def merge_special_tokens(table: dict[str, int], declared: dict[str, int], path: Path | None) -> None:
    """Check ``declared`` special tokens against the id ``table`` and add those that it lacks."""
    for text, i in sorted(declared.items(), key=lambda item: item[1]):
        if table.get(text, i) != i:
            raise VocabError(
                f"the special token {text!r} has another id in the vocabulary ({table[text]})", path=path, found=i
            )
        if text not in table:
            if i != len(table):
                raise VocabError(
                    f"the special token {text!r} is not in the vocabulary",
                    path=path,
                    found=i,
                    expected=f"its next id, {len(table)}",
                )
            table[text] = i


def added_tokens(vocabulary: Vocabulary) -> list[tuple[int, dict]]:
    """(id, Hugging Face's description) of each special token, in the order of ids."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [
        (i, {"content": text, **flags})
        for text, i in sorted(vocabulary.special_tokens.items(), key=lambda item: item[1])
    ]


def format_settings(vocabulary: Vocabulary) -> bytes:
    """The content of ``tokenizer_config.json``.

    ``transformers`` builds its GPT2Tokenizer with GPT-2's own pattern; for another one it has to take
    ``tokenizer.json`` as it stands, which its PreTrainedTokenizerFast does.
    """
    end_of_text = END_OF_TEXT if END_OF_TEXT in vocabulary.special_tokens else None
    settings = {
        "tokenizer_class": "GPT2Tokenizer" if vocabulary.pattern == GPT2_PATTERN else "PreTrainedTokenizerFast",
        "pattern": vocabulary.pattern,
        "unicode_version": unicode.VERSION,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "bos_token": end_of_text,
        "eos_token": end_of_text,
        "unk_token": end_of_text,
        "added_tokens_decoder": {str(i): entry for i, entry in added_tokens(vocabulary)},
    }
    return json.dumps(settings, ensure_ascii=False, indent=2).encode("utf-8")
