"""Cutting text into words before any merge; a merge never crosses a cut.

GPT-2's pattern keeps letters, numbers and everything else apart, lets one space lead a word, splits
off the English contractions, and leaves the last space of a run to the word after it:

>>> split("It's  12 o'clock", GPT2_PATTERN)
['It', "'s", ' ', ' 12', ' o', "'", 'clock']

Letters and numbers are those of the pinned table ``gpt_numpy.unicode``. The tables of the installed ``regex`` package
follow the newest Unicode and are not used. The fast twins are ``kernels/bpe/scanner.py`` for GPT-2's
pattern and ``automaton`` for others.
"""

from __future__ import annotations

import functools

import regex

from ..errors import TokenizerError
from ..unicode.classes import seen_by_regex

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

TIME_LIMIT = 2.0  # seconds for cutting any text
SLOWEST = 20_000  # characters a second; patterns in use are many times as fast


@functools.lru_cache(maxsize=32)
def compile_pattern(pattern: str) -> regex.Pattern:
    """The compiled ``pattern``; ``TokenizerError`` if it is not a pattern."""
    if not isinstance(pattern, str):
        raise TypeError(f"a pre-tokenization pattern is a str, not {type(pattern).__name__}")
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise TokenizerError(
            f"the pre-tokenization pattern does not compile ({error or type(error).__name__})", found=pattern[:200]
        ) from None


def split(text: str, pattern: str) -> list[str]:
    """The words of ``text``, in order; joined, they are ``text`` again.

    Raises ``TokenizerError`` with the position of the first character that ``pattern`` leaves out, because a
    pattern that skips characters would lose them silently. A hostile pattern can take unlimited time: the same error,
    naming the pattern, is raised after ``TIME_LIMIT`` seconds and one second more for each ``SLOWEST`` characters.
    """
    words, end = [], 0
    try:
        for match in compile_pattern(pattern).finditer(seen_by_regex(text), timeout=TIME_LIMIT + len(text) / SLOWEST):
            start, stop = match.span()
            if start != end:
                break
            end = stop
            if stop > start:
                words.append(text[start:stop])
    except TimeoutError:
        raise TokenizerError(
            "the pre-tokenization pattern takes too long on this text", offset=end, found=pattern[:200]
        ) from None
    if end != len(text):
        raise TokenizerError(
            "the pre-tokenization pattern matches nothing here", offset=end, found=text[end : end + 10]
        )
    return words
