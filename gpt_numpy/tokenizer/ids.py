"""Checks of texts and ids that come from outside, shared by both tokenizers."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import numpy as np

from ..errors import TokenizerError


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
        raise TokenizerError("a lone surrogate, which no UTF-8 can hold", field=field, offset=start + error.start,
                             found=text[error.start]) from None


def check_ids(ids: Iterable[int], n_vocab: int) -> list[int]:
    """``ids`` as a list of ints in 0 … n_vocab-1; ``TokenizerError`` with the position of the first that is not.

    Integers are Python's and NumPy's; a bool or a float is refused, whatever its value.
    """
    if isinstance(ids, (str, bytes, bytearray)) or not isinstance(ids, Iterable):
        raise TypeError(f"ids are a sequence of integers, not {type(ids).__name__}")
    if isinstance(ids, np.ndarray):
        if ids.ndim != 1:
            raise TypeError(f"ids are one-dimensional, not of shape {ids.shape}")
        ids = ids.tolist()
    ids = list(ids)
    if set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) < n_vocab:
        return ids
    return [_check_id(i, position, n_vocab) for position, i in enumerate(ids)]


def _check_id(i, position, n_vocab) -> int:
    try:
        if isinstance(i, (bool, np.bool_)):
            raise TypeError
        number = operator.index(i)
    except TypeError:
        raise TokenizerError("not a token id", field=f"position {position}", found=i,
                             expected=f"a whole number from 0 to {n_vocab - 1}") from None
    if not 0 <= number < n_vocab:
        raise TokenizerError("a token id out of range", field=f"position {position}", found=i,
                             expected=f"0 to {n_vocab - 1}")
    return number
