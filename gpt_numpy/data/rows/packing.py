"""From token documents to one array of tokens, whose ids are checked once, here.

An end-of-text token follows every document, the last one too. Arrays that were packed separately can therefore be
joined, and the model learns where a text ends.
"""

import numpy as np

from ...errors import DataError
from .mapped import release

TOKEN_DTYPES = (np.uint16, np.uint32)


def token_dtype(vocab_size: int) -> np.dtype:
    """The smaller of uint16 and uint32 that holds every id below ``vocab_size``."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def pack(documents_of_ids, eot_id, dtype=np.uint16):
    """Join documents (sequences of ids) into one 1-D array of ``dtype``, ``eot_id`` after each.

    An empty document leaves nothing. Raises DataError with document and position for an id that ``dtype`` cannot
    hold, so that no id is ever stored modulo 2¹⁶.
    """
    dtype = np.dtype(dtype)
    end = as_tokens([eot_id], dtype, "eot_id")
    parts = []
    for number, ids in enumerate(documents_of_ids):
        if len(ids):
            parts += [as_tokens(ids, dtype, f"document {number}"), end]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def as_tokens(ids, dtype, where):
    """``ids`` as a 1-D array of ``dtype``; ``where`` names the ids in the DataError for an id that ``dtype`` cannot hold."""
    array = np.asarray(ids)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError("not a sequence of integer ids", field=where, found=f"{array.dtype} of shape {array.shape}")
    check_tokens(array, np.iinfo(dtype).max + 1, where, f"an id that {np.dtype(dtype)} can hold")
    return array.astype(dtype)


def check_tokens(tokens, vocab_size, where="tokens", expected=None):
    """Raise DataError, with the position, for the first id of ``tokens`` that is not in [0, ``vocab_size``).

    Call this before ids reach an embedding: a kernel has no bounds checks. A memory-mapped array is read in
    stretches.
    """
    for start in range(0, len(tokens), 1 << 22):
        stretch = tokens[start : start + (1 << 22)]
        if stretch.max() >= vocab_size or stretch.min() < 0:
            place = int(np.argmax((stretch >= vocab_size) | (stretch < 0)))
            raise DataError(
                f"position {start + place} holds an id out of range",
                field=where,
                found=int(stretch[place]),
                expected=expected or f"an id below the vocabulary's {vocab_size}",
            )
        release(tokens)
