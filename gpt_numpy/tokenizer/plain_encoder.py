"""Encoding and training through ``reference`` alone, for machines where numba cannot compile ``kernels/bpe/``.

The ids are the same. The time is some hundred times as long.
"""

from __future__ import annotations

import functools

import numpy as np

from ..errors import TokenizerError
from . import reference
from .ids import check_text
from .pretokenize import GPT2_PATTERN, split
from .vocabulary import Vocabulary

_REMEMBERED_WORDS = 1 << 16
_BLANKS = frozenset(b" \t\n")


class PlainEncoder:
    """The methods of ``kernels.bpe.BPEEncoder`` that ``Tokenizer`` calls, word by word in plain Python."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self.dtype = np.dtype(np.uint16 if len(vocabulary) <= 1 << 16 else np.uint32)
        table = reference.merge_table(vocabulary.merges, vocabulary.merged_ids)

        @functools.lru_cache(_REMEMBERED_WORDS)
        def encode_word(word: bytes) -> list[int]:
            return reference.encode_word(word, vocabulary.byte_ids, table)

        self._encode_word = encode_word

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``; special tokens are ordinary text."""
        check_text(text)
        return self._encode([word.encode("utf-8") for word in split(text, GPT2_PATTERN)])

    def encode_to_array(self, text: str, threads: int | None = None) -> np.ndarray:
        """As `encode`, but an array (n_tokens,); ``threads`` is ignored here."""
        return np.array(self.encode(text), self.dtype)

    def encode_batch(self, texts: list[str], threads: int | None = None) -> list[list[int]]:
        """`encode` of each of ``texts``, one after the other; ``threads`` is ignored here."""
        for n, text in enumerate(texts):
            check_text(text, f"text {n}")
        return [self.encode(text) for text in texts]

    def encode_batch_to_arrays(self, texts: list[str], threads: int | None = None) -> list[np.ndarray]:
        """As `encode_batch`, but arrays (n_tokens,)."""
        return [np.array(ids, self.dtype) for ids in self.encode_batch(texts)]

    def encode_words(self, words: list[bytes]) -> np.ndarray:
        """The ids (n_tokens,) of ``words``, each merged by itself, in order."""
        return np.array(self._encode(words), self.dtype)

    def encode_bytes(self, data: bytes) -> np.ndarray:
        """The ids (n_tokens,) of bytes that need not be UTF-8, as ``BPEEncoder.encode_bytes`` specifies them."""
        try:
            return np.array(self.encode(data.decode("utf-8")), self.dtype)
        except UnicodeDecodeError as error:
            words = [word.encode("utf-8") for word in split(data[: error.start].decode("utf-8"), GPT2_PATTERN)]
        last = words.pop() if words else b""
        tokens, start = self._encode(words), sum(map(len, words))
        ids = self._encode([last])
        if ids and self._is_blank(ids[0]):
            while tokens and self._is_blank(tokens[-1]):
                start -= len(self._vocabulary.tokens[tokens.pop()])
        return np.array(tokens + self._encode([data[start:]]), self.dtype)

    def _encode(self, words):
        return [i for word in words for i in self._encode_word(word)]

    def _is_blank(self, token):
        return _BLANKS.issuperset(self._vocabulary.tokens[token])


def train_merges(texts, n_merges, special_tokens, pattern, progress=None, ties="lowest") -> np.ndarray:
    """The merges (n, 2) learned from ``texts``; n < ``n_merges`` where no pair is left to merge."""
    counts = reference.count_words(texts, pattern, special_tokens)
    if not counts:
        raise TokenizerError("there is no text to train on")
    return np.array(reference.train_merges(counts, n_merges, progress, ties), np.int64).reshape(-1, 2)
