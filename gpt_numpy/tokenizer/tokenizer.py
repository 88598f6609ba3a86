"""The byte-level BPE tokenizer: text to ids and back.

>>> tokenizer = Tokenizer.train(["aaabdaaabac"], vocab_size=260)
>>> tokenizer.encode("aaabdaaabac")
[258, 100, 258, 97, 99]
>>> tokenizer.encode("aa<|endoftext|>", allowed_special="all")
[256, 259]
>>> tokenizer.decode([258, 100])
'aaabd'

``reference`` is the specification, in plain Python. ``kernels/bpe/`` is the fast implementation: a scanner finds
the words of GPT-2's pattern, an automaton those of other patterns (``automaton``; ``regex`` where a pattern has none), and
the kernels merge them. The
character-level tokenizer with the same interface is ``char``.
"""

from __future__ import annotations

import functools
import itertools
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import TokenizerError
from ..files.durable import write_files
from ..files.regular import open_regular
from ..host import compiler
from ..unicode.normal_form import normalized
from ..wording import counted
from . import plain_encoder, ragged
from .automaton import automaton_of
from .formats import folders
from .identity import bpe_identity
from .ids import Decodes, TokenJoiner, check_text
from .learning import check_ties, check_vocab_size, checked_texts, learn_merges, report_merges
from .plain_encoder import PlainEncoder
from .pretokenize import GPT2_PATTERN, compile_pattern, split
from .ragged import RaggedBytes, RaggedIds, join
from .specials import END_OF_TEXT, check_special_tokens, cut, refuse_specials, resolve
from .streaming import read_chunks, stable_parts
from .vocabulary import Vocabulary, encode_words, from_merges, unmerged_tokens


class Tokenizer(Decodes):
    """Byte-level BPE over ``vocabulary``; made by ``train`` or ``load``.

    Memory beside the vocabulary: the merge tables (some 6 MB for GPT-2's), and for each thread that encodes at the same
    time a cache of words of 5 MiB. The caches grow with the distinct words (128 MiB a million), to 160 MiB together.
    """

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.dtype = np.dtype(np.uint16 if len(vocabulary) <= 1 << 16 else np.uint32)

    def __getstate__(self):
        """The state to copy or pickle: the vocabulary. A copy makes the encoder's tables again."""
        return {"vocabulary": self.vocabulary, "dtype": self.dtype}

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        pattern: str = GPT2_PATTERN,
        progress: Callable[[int, int], None] | None = None,
        ties: str = "lowest",
    ) -> Tokenizer:
        """Learn merges from ``texts`` (an iterable of str, or one str) until there are ``vocab_size`` tokens.

        The ids are the 256 byte values, then the merges in order, then ``special_tokens``. Of the pairs of
        tokens the one with the highest count is merged next; among equals, by ``ties``, the lowest pair of ids
        (``"lowest"``), the pair that ``tokenizers`` takes, with its numbering of ids (``"huggingface"``), or the pair of
        the greatest bytes (``"greatest"``). The merges depend on the words and their counts only. Specials that occur in
        the texts divide them. ``progress(done, total)`` is called now and then with the number of merges.

        Memory follows the distinct words. Raises ``TokenizerError`` if ``vocab_size`` is below 256 + the special tokens
        or if the texts are empty. If the pairs run out first the vocabulary is smaller, with a ``UserWarning``.
        """
        special_tokens = check_special_tokens(special_tokens)
        n_merges = check_vocab_size(vocab_size, len(special_tokens))
        compile_pattern(pattern)
        check_ties(ties)
        progress = progress and functools.partial(report_merges, progress, n_merges)
        learn = learn_merges
        if compiler.missing():
            compiler.warn_missing()
            learn = plain_encoder.train_merges
        merges = learn(checked_texts(texts), n_merges, special_tokens, pattern, progress, ties)
        if len(merges) < n_merges:
            warnings.warn(
                f"the text has only {counted(len(merges), 'merge')}: the vocabulary has "
                f"{vocab_size - n_merges + len(merges)} tokens, not {vocab_size}",
                stacklevel=2,
            )
        return cls(from_merges(list(zip(*merges.T.tolist())), special_tokens, pattern, ties))

    def __repr__(self):
        merges, specials = len(self.vocabulary.merges), len(self.vocabulary.special_tokens)
        return f"<Tokenizer: {counted(self.n_vocab, 'id')}: {counted(merges, 'merge')}, {specials} special>"

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
        return self.vocabulary.special_tokens.get(self.vocabulary.end_of_text or "")

    @property
    def begin_ids(self) -> list[int]:
        """The ids in front of every text that a model reads, such as that of ``<|begin_of_text|>``; mostly none."""
        return [self.vocabulary.special_tokens[text] for text in self.vocabulary.begin]

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256, in hexadecimal, of everything that decides the ids of a text; equal for equal tokenizers (``identity``)."""
        return bpe_identity(self.vocabulary)

    @property
    def end_of_text(self) -> str | None:
        """The text of the token ``eot_id``, or None if there is no such token."""
        return self.vocabulary.end_of_text

    def encode(
        self,
        text: str,
        *,
        allowed_special: str | Collection[str] = (),
        disallowed_special: str | Collection[str] = "all",
        add_special_tokens: bool = False,
    ) -> list[int]:
        """The ids of ``text``, found on the calling thread.

        ``allowed_special``     special tokens to encode as their id: a collection of them, or ``"all"``
        ``disallowed_special``  special tokens to refuse: ``"all"`` is all that are not allowed; with ``()``
                                a token that is not allowed is encoded as ordinary text
        ``add_special_tokens``  whether ``begin_ids`` stand in front, as ``transformers`` has it

        Raises ``TokenizerError``, with the position, for a refused special token and for a lone surrogate;
        ``TypeError`` if ``text`` is no str.
        """
        parts = self._cut(text, *self._choose(allowed_special, disallowed_special))
        plain = self._all_plain([parts])
        ids = self._encoder.encode(parts[0][0]) if plain else self._encode_all([parts], threads=1)[0].tolist()
        return self.begin_ids + ids if add_special_tokens else ids

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of ``text``, in which special tokens are text like any other."""
        return self.encode(text, disallowed_special=())

    def encode_to_array(
        self,
        text: str,
        *,
        allowed_special: str | Collection[str] = (),
        disallowed_special: str | Collection[str] = "all",
        threads: int | None = None,
    ) -> np.ndarray:
        """As ``encode``, but an array (n_tokens,) of ``self.dtype``, found on ``threads`` threads (None: all cores)."""
        parts = self._cut(text, *self._choose(allowed_special, disallowed_special))
        if self._all_plain([parts]):
            return self._encoder.encode_to_array(parts[0][0], threads).astype(self.dtype, copy=False)
        return self._encode_all([parts], threads)[0]

    def encode_batch(
        self,
        texts: Iterable[str] | Iterable[bytes],
        *,
        allowed_special: str | Collection[str] = (),
        disallowed_special: str | Collection[str] = "all",
        threads: int | None = None,
        as_arrays: bool = False,
    ) -> list[list[int]] | RaggedIds:
        """``encode`` of each of ``texts``, on ``threads`` threads (None: all cores). Errors name the text's number.

        ``texts`` are all str, or all bytes in UTF-8. With ``as_arrays`` the result is one array of ids and one of offsets
        (``RaggedIds``), without a Python object for each text: many times as fast for short texts.
        """
        chosen = self._choose(allowed_special, disallowed_special)
        plain, several = self._plain_batch(list(texts), chosen)
        if plain is None:
            rows = self._encode_all(self._cut_all(several, chosen), threads)
            return join(rows, self.dtype) if as_arrays else [ids.tolist() for ids in rows]
        if as_arrays:
            return RaggedIds(*self._encoder.encode_ragged(plain, threads))
        return self._encoder.encode_batch(plain, threads)

    def encode_batch_to_arrays(
        self,
        texts: Iterable[str] | Iterable[bytes],
        *,
        allowed_special: str | Collection[str] = (),
        disallowed_special: str | Collection[str] = "all",
        threads: int | None = None,
    ) -> list[np.ndarray]:
        """As ``encode_batch``, but a list of arrays (n_tokens,) of ``self.dtype``."""
        chosen = self._choose(allowed_special, disallowed_special)
        plain, strings = self._plain_batch(list(texts), chosen)
        if plain is None:
            return self._encode_all(self._cut_all(strings, chosen), threads)
        return self._encoder.encode_batch_to_arrays(plain, threads)

    def encode_stream(
        self,
        chunks: Iterable[str],
        *,
        allowed_special: str | Collection[str] = (),
        disallowed_special: str | Collection[str] = "all",
    ) -> Iterator[np.ndarray]:
        """The ids of a text in ``chunks`` (such as an open file), as arrays. Joined, they are the ids of the whole text.

        Memory is bounded by the chunks and the longest word. ``TokenizerError`` for another pattern than GPT-2's.
        """
        if self.vocabulary.pattern != GPT2_PATTERN:
            raise TokenizerError(
                "a stream can be cut into words by GPT-2's pattern only", field="pattern", found=self.vocabulary.pattern
            )
        if self.vocabulary.normalized_tokens:
            raise TokenizerError("a stream cannot be searched for added tokens of normalised text")
        chosen = self._choose(allowed_special, disallowed_special)
        offset, goes_on = 0, False
        for part in stable_parts(chunks, frozenset().union(*chosen), self.vocabulary.normal_form is not None):
            parts = self._cut(part, *chosen, start=offset, goes_on=goes_on)
            yield self._encode_all([parts], threads=1)[0]
            offset, goes_on = offset + len(part), not parts[-1][1]

    def encode_file(
        self,
        path: str | os.PathLike,
        *,
        allowed_special: str | Collection[str] = (),
        disallowed_special: str | Collection[str] = "all",
    ) -> Iterator[np.ndarray]:
        """``encode_stream`` of a file in UTF-8, newlines as they are; ``DataError`` with the offset of a bad byte."""
        with open_regular(path) as file:
            yield from self.encode_stream(
                read_chunks(file, path), allowed_special=allowed_special, disallowed_special=disallowed_special
            )

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of bytes that need not be UTF-8; special tokens are ordinary text.

        From the word before the first invalid byte on, the rest is merged as one word, as in tiktoken: a pattern
        over characters cannot divide invalid bytes. ``TokenizerError`` for another pattern than GPT-2's.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"data to encode are bytes, not {type(data).__name__}")
        if self.vocabulary.pattern != GPT2_PATTERN:
            raise TokenizerError(
                "bytes can be encoded by GPT-2's pattern only", field="pattern", found=self.vocabulary.pattern
            )
        own = self.vocabulary
        if own.plain_tokens or own.add_prefix_space or own.normal_form or self.whole_words:
            raise TokenizerError(
                "bytes are encoded by merges alone: no added tokens, prefix space, normal form, whole words"
            )
        return self._encoder.encode_bytes(data).tolist()

    def decode_batch(
        self, batch: RaggedIds | Iterable[Iterable[int]], errors: str = "replace", *, as_arrays: bool = False
    ) -> list[str] | RaggedBytes:
        """The text of each row of ids in ``batch``: sequences of ids, or the result of ``encode_batch`` with ``as_arrays``.

        With ``as_arrays`` the result is one array of bytes and one of offsets (see ``RaggedBytes``), the exact bytes of
        ``decode_bytes``. ``TokenizerError`` names the row and the position of an invalid id.
        """
        data, offsets = ragged.decode(ragged.checked(batch, self.n_vocab), self._joiner)
        if as_arrays:
            return RaggedBytes(data, offsets)
        joined = data.tobytes()
        if joined.isascii():
            text = joined.decode("ascii")
            return [text[start:stop] for start, stop in itertools.pairwise(offsets.tolist())]
        return [joined[start:stop].decode("utf-8", errors) for start, stop in itertools.pairwise(offsets.tolist())]

    def save(self, folder: str | os.PathLike, form: str = "huggingface") -> None:
        """Write the tokenizer into ``folder``, made if missing; each file is written whole or not at all.

        ``form`` is one of ``folders.FORMATS``: ``"huggingface"``, ``"openai"`` or ``"tiktoken"``.
        """
        write_files(folder, folders.contents(self.vocabulary, form))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Tokenizer:
        """Read a tokenizer from a folder in any of the forms above, or from a ``tokenizer.json`` or ``.tiktoken`` file.

        Raises ``VocabError``, with file and line, for invalid content.
        """
        return cls(folders.load(Path(path)))

    @functools.cached_property
    def _encoder(self):
        if compiler.missing():
            compiler.warn_missing()
            return PlainEncoder(self.vocabulary)
        from ..kernels.bpe import BPEEncoder

        automaton = None if self.vocabulary.pattern == GPT2_PATTERN else automaton_of(self.vocabulary.pattern)
        return BPEEncoder(self.vocabulary.byte_ids, self.vocabulary.merges, self.vocabulary.merged_ids, automaton)

    @functools.cached_property
    def _finds_words(self):
        """Whether the encoder divides texts into words: by GPT-2's pattern or by an automaton, not by ``regex``."""
        pattern = self.vocabulary.pattern
        found = pattern == GPT2_PATTERN or not compiler.missing() and automaton_of(pattern) is not None
        return found and not self.whole_words

    @functools.cached_property
    def _joiner(self):
        return TokenJoiner(self.vocabulary.tokens)

    def _choose(self, allowed_special, disallowed_special) -> tuple[frozenset[str], frozenset[str]]:
        """(allowed, disallowed) special tokens."""
        known, plain = self.vocabulary.special_tokens, self.vocabulary.plain_tokens
        if plain:  # recognised in every text unless they are refused by name
            known = {**known, **plain}
        allowed = resolve(known, allowed_special, "allowed_special").union(plain)
        return allowed, resolve(known, disallowed_special, "disallowed_special", but=allowed)

    def _cut(self, text, allowed, disallowed, field=None, start=0, goes_on=False) -> list[tuple[str, bool]]:
        """``text``, checked, as its parts: added tokens (True) and ordinary text.

        ``goes_on`` says that ordinary text came before ``text``, so that no prefix space is added.
        """
        if not isinstance(text, str):
            check_text(text, field)
        refuse_specials(text, disallowed, allowed, field, start)
        if self.vocabulary.normal_form is not None:
            check_text(text, field, start)  # before the positions change
        parts = cut(text, allowed, self.vocabulary, goes_on)
        if start or not self._all_plain([parts]):
            check_text(text, field, start)  # the kernels' encoder checks a text in one piece
        return parts

    def _cut_all(self, texts, chosen) -> list[list[tuple[str, bool]]]:
        allowed, disallowed = chosen
        parts = [self._cut(text, allowed, disallowed, field=f"text {n}") for n, text in enumerate(texts)]
        for n, text in enumerate(texts):
            check_text(text, f"text {n}")
        return parts

    def _plain_batch(self, texts, chosen):
        """(``texts`` as the kernels take them, or None if special tokens or the pattern forbid that; ``texts`` as str)."""
        own = self.vocabulary
        if self._finds_words and not own.add_prefix_space and hasattr(self._encoder, "encode_ragged"):  # the kernels'
            from ..kernels.bpe.texts import many_texts

            try:
                plain = many_texts(texts)
            except TypeError:
                for n, text in enumerate(texts):
                    check_text(text, f"text {n}")
                raise
            # All texts are searched at once. A match across two texts only costs time.
            if not any(plain.holds(token) for token in frozenset().union(*chosen)):
                if own.normal_form is not None:
                    plain = many_texts([normalized(text) for text in ragged.decoded(texts)])
                if not any(plain.holds(token) for token in own.normalized_tokens):
                    return plain, texts
        return None, ragged.decoded(texts)

    def _all_plain(self, texts: list[list[tuple[str, bool]]]) -> bool:
        """Whether the kernels can make the lists of all ``texts`` directly, which is the fastest way."""
        return self._finds_words and all(len(parts) == 1 and not parts[0][1] for parts in texts)

    def _encode_all(self, texts: list[list[tuple[str, bool]]], threads) -> list[np.ndarray]:
        """The ids of each of ``texts``, which are cut into parts."""
        ordinary = [part for parts in texts for part, special in parts if not special]
        if self._finds_words:
            arrays = self._encoder.encode_batch_to_arrays(ordinary, threads) if ordinary else []
        else:
            arrays = [self._encode_words(part) for part in ordinary]
        encoded = iter(arrays)
        known = {**self.vocabulary.special_tokens, **self.vocabulary.plain_tokens}
        results = []
        for parts in texts:
            pieces = [np.array([known[part]], self.dtype) if special else next(encoded) for part, special in parts]
            results.append(np.concatenate(pieces, dtype=self.dtype) if pieces else np.empty(0, self.dtype))
        return results

    @functools.cached_property
    def whole_words(self) -> dict[bytes, int]:
        """Tokens that a word is as a whole, though its merges do not make them: word → id."""
        return unmerged_tokens(self.vocabulary, self._encoder) if self.vocabulary.ignore_merges else {}

    def _encode_words(self, text) -> np.ndarray:
        words = [word.encode("utf-8") for word in split(text, self.vocabulary.pattern)]
        return encode_words(words, self._encoder, self.whole_words, self.dtype)
