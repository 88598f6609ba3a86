"""The identity of a tokenizer: one SHA-256 over everything that decides the ids of a text.

Two tokenizers with the same number of ids can give a text different ids, and a model trained with one reads the
other's ids as noise. Token shards, checkpoints and run folders therefore keep ``tokenizer.identity``, and code
that uses two of them together compares the identities (``check_same_tokenizer``).

The identity covers the kind of tokenizer, the tokens with their ids, the merges in their order, special and plain
added tokens, the pre-tokenization pattern, the prefix space, the normal form, whether whole words go before merges, the
tokens in front of a text, and the Unicode version of the package's own tables. For another pattern than GPT-2's it also
covers the characters of every class that the pattern names (``\\p{Lu}``), which the installed ``regex`` decides. The files
that a tokenizer was read from, and their format, do not change the identity.
"""

from __future__ import annotations

import functools
import hashlib
import json

import numpy as np
import regex

from .. import unicode
from ..errors import TokenizerError
from .pretokenize import GPT2_PATTERN

_CLASS = regex.compile(r"\\[pP](?:\{[^}]*\}|[A-Za-z])|\\[sSwWdD]|\[:\^?\w+:\]|\\[bB]")
_N_CODE_POINTS = 0x110000


def bpe_identity(vocabulary) -> str:
    """The identity, 64 hexadecimal digits, of a byte-level BPE ``Vocabulary``."""
    lengths = np.array([len(token) for token in vocabulary.tokens], "<i8")
    merges = np.array(vocabulary.merges, "<i8").reshape(-1, 2)
    facts = {
        "kind": "byte-level BPE",
        "special_tokens": vocabulary.special_tokens,
        "plain_tokens": vocabulary.plain_tokens,
        "pattern": vocabulary.pattern,
        "add_prefix_space": vocabulary.add_prefix_space,
        "unicode": unicode.VERSION,
        "classes": {name: _hash_of_class(name) for name in sorted(_classes_of_regex(vocabulary.pattern))},
    }
    # Only where a tokenizer has them: the identities of others are as they were before there were such parts.
    more = {
        "normal_form": vocabulary.normal_form,
        "normalized_tokens": sorted(vocabulary.normalized_tokens),
        "ignore_merges": vocabulary.ignore_merges,
        "begin": vocabulary.begin,
    }
    facts |= {name: value for name, value in more.items() if value}
    return _hash(facts, lengths.tobytes(), b"".join(vocabulary.tokens), merges.tobytes())


def char_identity(characters, special_tokens) -> str:
    """The identity of a character-level tokenizer: its ``characters`` in the order of ids, then ``special_tokens``."""
    return _hash({"kind": "characters", "special_tokens": special_tokens, "characters": [ord(c) for c in characters]})


def check_same_tokenizer(identity, name, other_identity, other_name) -> None:
    """Raise TokenizerError, naming both, unless two identities are the same.

    ``name`` and ``other_name`` name the owners, for example ``"the shards in data/"`` and ``"the model in m/"``.
    """
    if identity != other_identity:
        raise TokenizerError(
            f"{name} and {other_name} have different tokenizers",
            field="tokenizer",
            found=f"{identity[:16]}… and {other_identity[:16]}…",
            expected="one tokenizer, with one identity",
        )


def _hash(facts, *arrays) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode("ascii"))
    for data in arrays:
        digest.update(f" {len(data)} ".encode())
        digest.update(data)
    return digest.hexdigest()


def classes_of(pattern: str) -> set[str]:
    """The character classes that ``pattern`` names and that Unicode's tables decide."""
    names = set(_CLASS.findall(pattern))
    return {r"\w" if name in (r"\b", r"\B") else f"[{name}]" if name.startswith("[") else name for name in names}


def _classes_of_regex(pattern):
    return () if pattern == GPT2_PATTERN else classes_of(pattern)


@functools.cache
def _hash_of_class(name) -> str:
    """SHA-256 of the ranges of code points that ``regex`` puts into the class ``name``."""
    code_points = np.arange(_N_CODE_POINTS, dtype="<u4")
    code_points[0xD800:0xE000] = 0  # surrogates are no characters
    everything = code_points.tobytes().decode("utf-32-le")
    try:
        spans = [match.span() for match in regex.finditer(f"(?:{name})+", everything)]
    except regex.error:  # part of a larger construct; the pattern itself is in the identity
        spans = []
    return hashlib.sha256(np.array(spans, "<i8").tobytes()).hexdigest()


def tokenizer_sha256(tokenizer) -> str:
    """The identity of ``tokenizer``, of either kind: ``tokenizer.identity``."""
    return tokenizer.identity
