"""Checks of a caller's texts and ids, and the conversion of ids to bytes: the parts that both tokenizers share."""

from __future__ import annotations

import array
import operator
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from ..errors import TokenizerError
from ..host import compiler


def check_text(text: str, field: str | None = None, start: int = 0) -> None:
    """``TypeError`` unless ``text`` is a str; ``TokenizerError`` with the position of a lone surrogate.

    ``field`` says which text it is; the position of its first character is ``start``.
    """
    if not isinstance(text, str):
        raise TypeError(f"a text to encode is a str, not {type(text).__name__}{f' ({field})' if field else ''}")
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            "a lone surrogate, which no UTF-8 can hold",
            field=field,
            offset=start + error.start,
            found=text[error.start],
        ) from None


def check_ids(ids: Iterable[int], n_vocab: int) -> np.ndarray:
    """``ids`` as an int64 array, each in 0 … n_vocab-1; ``TokenizerError`` with the position of the first that is out of range.

    Integers are Python's and NumPy's; a bool or a float is refused, whatever its value.
    """
    if isinstance(ids, (str, bytes, bytearray)) or not isinstance(ids, Iterable):
        raise TypeError(f"ids are a sequence of integers, not {type(ids).__name__}")
    if isinstance(ids, np.ndarray):
        if ids.ndim != 1:
            raise TypeError(f"ids are one-dimensional, not of shape {ids.shape}")
        whole = ids.astype(np.int64, copy=False) if ids.dtype.kind in "iu" else None
    else:
        ids = list(ids)
        whole = _integers(ids)
    if whole is not None and (not len(whole) or (whole.min() >= 0 and whole.max() < n_vocab)):
        return whole
    return np.array([_check_id(i, position, n_vocab) for position, i in enumerate(ids)], np.int64)


def _integers(ids: list) -> np.ndarray | None:
    """``ids`` as an int64 array, or None if one is no integer from 0 to 2**32 - 1. Looking at all types takes twice as long."""
    try:
        numbers = np.frombuffer(array.array("I", ids), np.uintc)
    except (TypeError, OverflowError, DeprecationWarning):  # before 2.3, NumPy warns of its bools
        return None
    if any(isinstance(ids[i], (bool, np.bool_)) for i in np.flatnonzero(numbers < 2)):
        return None
    return numbers.astype(np.int64)


def _check_id(i, position, n_vocab) -> int:
    try:
        if isinstance(i, (bool, np.bool_)):
            raise TypeError
        number = operator.index(i)
    except TypeError:
        raise TokenizerError(
            "not a token id", field=f"position {position}", found=i, expected=f"a whole number from 0 to {n_vocab - 1}"
        ) from None
    if not 0 <= number < n_vocab:
        raise TokenizerError(
            "a token id out of range", field=f"position {position}", found=number, expected=f"0 to {n_vocab - 1}"
        )
    return number


class TokenJoiner:
    """The bytes of many tokens, gathered from one array that holds all tokens' bytes side by side.

    Long sequences go through a kernel; short ones, for which it would have to be loaded first, through NumPy.
    """

    BLOCK = 1 << 14  # ids at a time: their bytes stay in the processor's cache
    MANY = 1 << 15  # ids for which the kernel is worth loading
    _SPARE = 16  # bytes behind the last token's, which the kernel may read

    def __init__(self, tokens: Sequence[bytes]):
        self._bytes = np.frombuffer(bytearray(b"".join(tokens) + bytes(self._SPARE)), np.uint8)
        self.lengths = np.array([len(token) for token in tokens], np.int64)
        self._starts = np.zeros(len(tokens) + 1, np.int64)
        np.cumsum(self.lengths, out=self._starts[1:])

    def join(self, ids: np.ndarray) -> bytes:
        """The bytes of ``ids`` (checked before), one token after the other."""
        if len(ids) < self.MANY:
            return b"".join(block.data for block in self._blocks(ids))
        return self.join_rows(ids, np.array([0, len(ids)], np.int64))[0].tobytes()

    def join_rows(self, ids: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The bytes of ``ids`` (checked before), uint8, and where those of each row of ids begin and the last end, int64."""
        if len(ids) >= self.MANY and not compiler.missing():
            from ..kernels.bpe.texts import spelled

            return spelled(ids, offsets, self._starts, self._bytes)
        before = np.zeros(len(ids) + 1, np.int64)
        np.cumsum(self.lengths[ids], out=before[1:])
        return np.concatenate([np.empty(0, np.uint8), *self._blocks(ids)]), before[offsets]

    def _blocks(self, ids) -> list[np.ndarray]:
        return [self._block(ids[i : i + self.BLOCK]) for i in range(0, len(ids), self.BLOCK)]

    def _block(self, ids) -> np.ndarray:
        lengths = self.lengths[ids]
        ends = np.cumsum(lengths)
        # where each byte comes from: its token's start, and how far into the token it is
        positions = np.repeat(self._starts[ids] - (ends - lengths), lengths) + np.arange(ends[-1])
        return self._bytes[positions]


class _Tokens(Protocol):
    @property
    def n_vocab(self) -> int: ...
    @property
    def special_tokens(self) -> dict[str, int]: ...
    @property
    def _joiner(self) -> TokenJoiner: ...
    def decode_bytes(self, ids: Iterable[int]) -> bytes: ...


class Decodes:
    """The side of a tokenizer that takes ids; a subclass has what ``_Tokens`` names."""

    def has_text(self: _Tokens, ids) -> np.ndarray:
        """Whether each of ``ids`` (an integer or an array of any shape) is an id of this tokenizer: a bool array.

        A model may have more rows than its tokenizer has ids, to fill up a vocabulary to a round size. Those ids have
        no text, and generation must not draw them: ``tokenizer.has_text(np.arange(model.config.vocab_size))``.
        """
        ids = np.asarray(ids)
        return (ids >= 0) & (ids < self.n_vocab)

    def decode_bytes(self: _Tokens, ids: Iterable[int]) -> bytes:
        """The bytes that ``ids`` stand for, exactly; ``TokenizerError`` with the position of an invalid id."""
        return self._joiner.join(check_ids(ids, self.n_vocab))

    def decode(self: _Tokens, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of ``ids``; ``errors`` chooses the treatment of bytes that are not UTF-8, as in ``bytes.decode``."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def bytes_of_text(self: _Tokens) -> np.ndarray:
        """The number of bytes of text that each id stands for, (n_vocab,) int64; 0 for a special token."""
        lengths = self._joiner.lengths.copy()
        lengths[list(self.special_tokens.values())] = 0
        return lengths
