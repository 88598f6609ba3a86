"""Many texts or many rows of ids in two arrays, without a Python object for each.

>>> batch = join([np.array([7, 8], np.uint16), np.array([9], np.uint16)], np.uint16)
>>> batch.ids.tolist(), batch.offsets.tolist()
([7, 8, 9], [0, 2, 3])
>>> [row.tolist() for row in batch.rows()]
[[7, 8], [9]]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import TokenizerError
from .ids import TokenJoiner, check_ids


class RaggedIds(NamedTuple):
    """The ids of many texts: those of text k are ``ids[offsets[k]:offsets[k + 1]]``."""

    ids: np.ndarray  # (n_tokens,)
    offsets: np.ndarray  # (n_texts + 1,) int64

    def rows(self) -> Iterator[np.ndarray]:
        """The ids of each text in order, as views of ``ids``."""
        return (self.ids[start:stop] for start, stop in itertools.pairwise(self.offsets.tolist()))


class RaggedBytes(NamedTuple):
    """The UTF-8 of many texts: that of text k is ``data[offsets[k]:offsets[k + 1]]``."""

    data: np.ndarray  # (n_bytes,) uint8
    offsets: np.ndarray  # (n_texts + 1,) int64


def decoded(texts: list) -> list[str]:
    """``texts``, all str or all bytes, as str; ``TokenizerError`` names the text and the offset of bytes that are not UTF-8."""
    if not all(isinstance(text, bytes) for text in texts):
        return texts
    result = []
    for number, text in enumerate(texts):
        try:
            result.append(text.decode("utf-8"))
        except UnicodeDecodeError as error:
            found = text[error.start : error.start + 1]
            raise TokenizerError("not UTF-8", field=f"text {number}", offset=error.start, found=found) from None
    return result


def join(rows: Sequence[np.ndarray], dtype) -> RaggedIds:
    """One array of ``dtype`` from the arrays in ``rows``."""
    ids = np.concatenate(rows, dtype=dtype) if len(rows) else np.empty(0, dtype)
    return RaggedIds(ids, _offsets(map(len, rows), len(rows)))


def _offsets(lengths, count) -> np.ndarray:
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(np.fromiter(lengths, np.int64, count=count), out=offsets[1:])
    return offsets


def checked(batch: RaggedIds | Iterable[Iterable[int]], n_vocab: int) -> RaggedIds:
    """``batch`` with every id checked; ``TokenizerError`` names the row and the position of an invalid id."""
    if isinstance(batch, RaggedIds):
        return RaggedIds(check_ids(batch.ids, n_vocab), _checked_offsets(batch))
    rows = [row if isinstance(row, (list, np.ndarray)) else list(row) for row in batch]
    together = list(itertools.chain.from_iterable(rows))
    try:
        ids = check_ids(together, n_vocab)
    except TokenizerError:
        for number, row in enumerate(rows):
            try:
                check_ids(row, n_vocab)
            except TokenizerError as error:
                raise TokenizerError(f"row {number}: {error}") from None
        raise
    return RaggedIds(ids, _offsets(map(len, rows), len(rows)))


def _checked_offsets(batch) -> np.ndarray:
    offsets = np.asarray(batch.offsets)
    whole = offsets.ndim == 1 and len(offsets) and offsets.dtype.kind in "iu"
    if not whole or offsets[0] != 0 or offsets[-1] != len(batch.ids) or (np.diff(offsets) < 0).any():
        raise TokenizerError(
            "not the offsets of these ids",
            field="offsets",
            expected=f"whole numbers that do not fall, from 0 to {len(batch.ids)}",
        )
    return offsets


def decode(batch: RaggedIds, joiner: TokenJoiner) -> RaggedBytes:
    """The bytes of all rows of ``batch`` (checked before), side by side."""
    return RaggedBytes(*joiner.join_rows(batch.ids, np.asarray(batch.offsets, np.int64)))
