"""The byte-level BPE tokenizer: text to ids and back.

>>> tokenizer = Tokenizer.train(["aaabdaaabac"], vocab_size=260)
>>> tokenizer.encode("aaabdaaabac")
[258, 100, 258, 97, 99]
>>> tokenizer.encode("aa<|endoftext|>", allowed_special="all")
[256, 259]
>>> tokenizer.decode([258, 100])
'aaabd'

The steps are in files of their own: ``specials`` cuts out special tokens, ``pretokenize`` cuts the rest
into words, ``reference`` merges (and learns to), ``files`` reads and writes. The character-level tokenizer
with the same interface is ``char``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ..errors import TokenizerError
from . import files, reference
from .ids import check_ids, check_text
from .pretokenize import GPT2_PATTERN, compile_pattern, split
from .saving import write_files
from .specials import END_OF_TEXT, check_special_tokens, refuse_specials, resolve, split_specials
from .vocabulary import Vocabulary, from_merges

CACHE_WORDS = 1 << 16  # at most so many words, of at most CACHE_WORD_BYTES each, are remembered with their ids
CACHE_WORD_BYTES = 64


class Tokenizer:
    """Byte-level BPE over ``vocabulary``; made by ``train`` or ``load``."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self._merges = reference.merge_table(vocabulary.merges, vocabulary.merged_ids)
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = (END_OF_TEXT,),
              pattern: str = GPT2_PATTERN) -> Tokenizer:
        """Learn merges from ``texts`` (an iterable of str, or one str) until there are ``vocab_size`` tokens.

        The ids are the 256 byte values, then the merges in order, then ``special_tokens``. Of the pairs of
        tokens the one with the highest count is merged next; among equals the lowest pair of ids. Specials
        that occur in the texts divide them, and no merge crosses one.

        Raises ``TokenizerError`` if ``vocab_size`` is below 256 + the special tokens or if the texts are
        empty. If the pairs run out first the vocabulary is smaller, and a ``UserWarning`` says so.
        """
        special_tokens = check_special_tokens(special_tokens)
        n_merges = _check_vocab_size(vocab_size, len(special_tokens))
        compile_pattern(pattern)
        word_counts = reference.count_words(_checked(texts), pattern, special_tokens)
        if not word_counts:
            raise TokenizerError("there is no text to train on")
        merges = reference.train_merges(word_counts, n_merges)
        if len(merges) < n_merges:
            warnings.warn(f"the text has only {len(merges)} merges: the vocabulary has "
                          f"{vocab_size - n_merges + len(merges)} tokens, not {vocab_size}", stacklevel=2)
        return cls(from_merges(merges, special_tokens, pattern))

    @property
    def n_vocab(self) -> int:
        """The number of ids, special tokens included."""
        return len(self.vocabulary)

    vocab_size = n_vocab

    @property
    def special_tokens(self) -> dict[str, int]:
        """text → id of the special tokens."""
        return dict(self.vocabulary.special_tokens)

    @property
    def eot_id(self) -> int | None:
        """The id of ``<|endoftext|>``, or None if the vocabulary has no such token."""
        return self.vocabulary.special_tokens.get(END_OF_TEXT)

    def encode(self, text: str, *, allowed_special: str | Collection[str] = (),
               disallowed_special: str | Collection[str] = "all") -> list[int]:
        """The ids of ``text``.

        ``allowed_special``     special tokens to encode as their id: a collection of them, or ``"all"``
        ``disallowed_special``  special tokens to refuse: ``"all"`` is all that are not allowed; with ``()``
                                what is not allowed is encoded as the ordinary text it also is

        Raises ``TokenizerError``, with the position, for a refused special token and for a lone surrogate;
        ``TypeError`` if ``text`` is no str.
        """
        check_text(text)
        known = self.vocabulary.special_tokens
        allowed = resolve(known, allowed_special, "allowed_special")
        refuse_specials(text, resolve(known, disallowed_special, "disallowed_special", but=allowed), allowed)
        ids: list[int] = []
        for part, special in split_specials(text, allowed):
            if special:
                ids.append(known[part])
            else:
                self._encode_part(part, ids)
        return ids

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of ``text``, in which special tokens are text like any other."""
        check_text(text)
        ids: list[int] = []
        self._encode_part(text, ids)
        return ids

    def encode_word(self, word: bytes) -> list[int]:
        """The ids of any bytes taken as one word, without looking at the pre-tokenization pattern."""
        if not isinstance(word, bytes):
            raise TypeError(f"a word is bytes, not {type(word).__name__}")
        return reference.encode_word(word, self.vocabulary.byte_ids, self._merges)

    def _encode_part(self, text: str, ids: list[int]) -> None:
        for word in split(text, self.vocabulary.pattern):
            known = self._cache.get(word)
            if known is None:
                known = self.encode_word(word.encode("utf-8"))
                if len(word) <= CACHE_WORD_BYTES:
                    if len(self._cache) >= CACHE_WORDS:
                        self._cache.clear()
                    self._cache[word] = known
            ids.extend(known)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that ``ids`` stand for, exactly; ``TokenizerError`` with the position of what is no id."""
        return b"".join(map(self.vocabulary.tokens.__getitem__, check_ids(ids, self.n_vocab)))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of ``ids``; ``errors`` says what becomes of bytes that are no UTF-8, as in ``bytes.decode``."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def save(self, folder: str | os.PathLike, form: str = "huggingface") -> None:
        """Write the tokenizer into ``folder``, made if missing: each file whole or not at all.

        ``form`` is one of ``files.FORMATS``: ``"huggingface"``, ``"openai"`` or ``"tiktoken"``.
        """
        write_files(folder, files.contents(self.vocabulary, form))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Tokenizer:
        """Read a tokenizer from a folder in any of the forms above, or from a ``tokenizer.json`` or ``.tiktoken`` file.

        Raises ``VocabError``, with file and line, if something is wrong with it.
        """
        return cls(files.load(Path(path)))


def _check_vocab_size(vocab_size, n_special) -> int:
    if type(vocab_size) is not int:
        raise TypeError(f"vocab_size is an int, not {type(vocab_size).__name__}")
    if vocab_size < 256 + n_special:
        raise TokenizerError("too small a vocabulary", field="vocab_size", found=vocab_size,
                             expected=f"at least {256 + n_special}: the 256 bytes and {n_special} special tokens")
    return vocab_size - 256 - n_special


def _checked(texts):
    for text in [texts] if isinstance(texts, str) else texts:
        check_text(text)
        yield text
