"""Checks of texts and ids that come from outside, shared by both tokenizers."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import numpy as np

from ..errors import TokenizerError


def check_text(text: str) -> None:
    """``TypeError`` unless ``text`` is a str; ``TokenizerError`` with the position of a lone surrogate."""
    if not isinstance(text, str):
        raise TypeError(f"a text to encode is a str, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError("a lone surrogate, which no UTF-8 can hold", offset=error.start,
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
        ids = ids.tolist() if ids.dtype != object else ids
    ids = list(ids)
    for position, i in enumerate(ids):
        if type(i) is not int:
            try:
                if isinstance(i, (bool, np.bool_)):
                    raise TypeError
                ids[position] = i = operator.index(i)
            except TypeError:
                raise TokenizerError("not a token id", field=f"position {position}", found=i,
                                     expected=f"a whole number from 0 to {n_vocab - 1}") from None
        if not 0 <= i < n_vocab:
            raise TokenizerError("a token id out of range", field=f"position {position}", found=i,
                                 expected=f"0 to {n_vocab - 1}")
    return ids
