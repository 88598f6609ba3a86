"""The identity of a tokenizer: one hash over everything that decides which ids a text becomes.

Two tokenizers with the same identity give the same ids for every text, whatever files they were loaded from. Shards,
checkpoints and runs carry the identity, and whoever joins two of them compares it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from .. import unicode


def tokenizer_sha256(tokenizer: Any) -> str:
    """The identity of a ``Tokenizer`` or a ``CharTokenizer``, as 64 hexadecimal digits."""
    digest = hashlib.sha256()

    def add(*values):
        for value in values:
            content = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
            digest.update(len(content).to_bytes(8, "little") + content)

    vocabulary = getattr(tokenizer, "vocabulary", None)
    add("characters" if vocabulary is None else "bpe", tokenizer.n_vocab)
    add(*(tokenizer.decode_bytes([i]) for i in range(tokenizer.n_vocab)))
    for text, i in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1]):
        add(text, i)
    if vocabulary is not None:
        add(unicode.VERSION, vocabulary.pattern, *(f"{left} {right}" for left, right in vocabulary.merges))
    return digest.hexdigest()
