"""Tokens that are mapped from files: the pages that were read stay in memory until somebody lets them go."""

from __future__ import annotations

import mmap
from typing import Any


def release(tokens: Any) -> None:
    """Let go of the pages of ``tokens`` (an array, or ``JoinedTokens``) that are in memory; they can be read again.

    Whoever walks through a whole file calls this now and then, so that memory does not grow with the file. Nothing
    happens to an array in memory, or where the system has no such call.
    """
    for array in getattr(tokens, "arrays", [tokens]):
        owner = array
        while owner is not None and not isinstance(owner, mmap.mmap):
            owner = getattr(owner, "base", None)
        if owner is not None and hasattr(mmap, "MADV_DONTNEED"):
            owner.madvise(mmap.MADV_DONTNEED)
