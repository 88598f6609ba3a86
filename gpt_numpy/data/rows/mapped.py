"""Tokens that are mapped from files: pages that were read stay in memory until they are released."""

from __future__ import annotations

import mmap
from typing import Any


def release(tokens: Any) -> None:
    """Release the pages of ``tokens`` (an array, or ``JoinedTokens``) that are in memory; they can be read again.

    A loop over a whole file calls this now and then, so that memory does not grow with the file. The call does nothing
    for an array in memory, or where the system does not support it.
    """
    for array in getattr(tokens, "arrays", [tokens]):
        owner = array
        while owner is not None and not isinstance(owner, mmap.mmap):
            owner = getattr(owner, "base", None)
        if owner is not None and hasattr(mmap, "MADV_DONTNEED"):
            owner.madvise(mmap.MADV_DONTNEED)
