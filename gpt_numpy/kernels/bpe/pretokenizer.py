r"""GPT-2's pre-tokenizer as a scanner over UTF-8: the numba twin of ``gpt_numpy.tokenizer.pretokenize``.

The pattern (``GPT2_PATTERN`` there) is an alternation that is tried from left to right at the end of the last match:

    '(?:[sdmt]|ll|ve|re) |  ?\p{L}+ |  ?\p{N}+ |  ?[^\s\p{L}\p{N}]+ | \s+(?!\S) | \s+

Every character is a letter, a number, white space or something else, and the classes exclude each other. So one
look at the first character (the second, after a space) chooses the alternative, and a word ends where the class
changes; the only look-ahead is that a run of white space leaves its last character to the word behind it. The
classes are those of ``gpt_numpy.unicode``, which the plain twin uses too.

Positions at which a text may be cut without changing any word are those where a letter or a number is followed by
another class, or anything by white space: no word of the pattern holds such a step inside, and none looks across it.
"""

import functools
from typing import NamedTuple

import numpy as np

from ...unicode import classes as unicode_classes
from ..runtime.decorators import kernel
from .bits import called, inlined, load_u64, padded, trailing_zeros
from .masks import KNOWN_LETTERS, KNOWN_OTHERS

OTHER, LETTER, NUMBER, SPACE = 0, 1, 2, 3
_BLANK, _QUOTE = 0x20, 0x27
_S, _D, _M, _T, _L, _V, _R, _E = b"sdmtlvre"  # numbers: numba would compile ``ord``
_PAGE = 256

_HIGH_BITS = np.uint64(0x8080808080808080)
_LOW_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_TO_LOWER = np.uint64(0x2020202020202020)
_FROM_A = np.uint64(0x1F1F1F1F1F1F1F1F)  # 0x80 - 'a' in every byte: sets the top bit from 'a' on
_PAST_Z = np.uint64(0x0505050505050505)  # 0x80 - 'z' - 1: sets the top bit behind 'z'


class CharacterClasses(NamedTuple):
    """Two-stage table: ``classes[pages[c >> 8], c & 255]`` is the class of code point c."""

    ascii: np.ndarray  # (128,) uint8
    pages: np.ndarray  # (8192,) uint16; more than Unicode has, so that no four bytes index past it
    classes: np.ndarray  # (n_pages, 256) uint8


@functools.cache
def character_classes():
    """The classes of all code points by the package's own version of Unicode; made once, in some milliseconds."""
    table = np.zeros(unicode_classes.N_CODE_POINTS, dtype=np.uint8)
    table[unicode_classes.letters()] = LETTER
    table[unicode_classes.numbers()] = NUMBER
    table[unicode_classes.spaces()] = SPACE
    for kind, ranges in ((LETTER, KNOWN_LETTERS), (OTHER, KNOWN_OTHERS)):
        for first, stop in ranges:
            assert (table[first:stop] == kind).all(), f"the scanner takes U+{first:04X} to {stop - 1:04X} for {kind}"
    return in_pages(table)


def in_pages(table):
    """A table of all code points (N_CODE_POINTS,) uint8 as one of pages, equal pages stored once."""
    numbers = {}
    pages = np.zeros(8192, dtype=np.uint16)
    for page, row in enumerate(table.reshape(-1, _PAGE)):
        pages[page] = numbers.setdefault(row.tobytes(), len(numbers))
    unique = np.frombuffer(b"".join(numbers), dtype=np.uint8).reshape(-1, _PAGE)
    return CharacterClasses(table[:128].copy(), pages, unique.copy())


@inlined
def wide_character(buffer, position, table):
    """(class, end) of the character of two to four bytes at ``position``."""
    lead = np.int64(buffer[position])
    second = np.int64(buffer[position + 1]) & 0x3F
    if lead < 0xE0:
        code = (lead & 0x1F) << 6 | second
        end = position + 2
    else:
        third = np.int64(buffer[position + 2]) & 0x3F
        if lead < 0xF0:
            code = (lead & 0x0F) << 12 | second << 6 | third
            end = position + 3
        else:
            code = (lead & 0x07) << 18 | second << 12 | third << 6 | np.int64(buffer[position + 3]) & 0x3F
            end = position + 4
    return table.classes[table.pages[code >> 8], code & 0xFF], end


@inlined
def _character(buffer, position, table):
    """(class, end) of the character at ``position``."""
    lead = buffer[position]
    if lead < 0x80:
        return table.ascii[lead], position + 1
    return wide_character(buffer, position, table)


@inlined
def _skip_ascii_letters(buffer, position):
    """First position from ``position`` on that holds no ASCII letter; eight bytes at a time."""
    while True:
        word = load_u64(buffer, position)
        folded = (word | _TO_LOWER) & _LOW_BITS
        letters = (folded + _FROM_A) & ~(folded + _PAST_Z) & ~word
        others = ~letters & _HIGH_BITS
        if others != 0:
            return position + (trailing_zeros(others) >> 3)
        position += 8


@inlined
def _run_end(buffer, position, size, kind, table):
    """End of the run of class ``kind`` that goes on at ``position``."""
    while True:
        if kind == LETTER:
            position = _skip_ascii_letters(buffer, position)
        while position < size and buffer[position] < 0x80 and table.ascii[buffer[position]] == kind:
            position += 1
        if position >= size or buffer[position] < 0x80:
            return position
        found, end = wide_character(buffer, position, table)
        if found != kind:
            return position
        position = end


@called
def _white_space_end(buffer, start, size, table):
    """End of the word that a run of white space makes: all of it at the end of the text, else all but the last."""
    last = position = start
    while position < size:
        kind, end = _character(buffer, position, table)
        if kind != SPACE:
            return position if last == start else last
        last = position
        position = end
    return size


@inlined
def _contraction_end(buffer, start):
    """End of the contraction that starts with the quote at ``start``, or ``start`` if there is none."""
    first, second = buffer[start + 1], buffer[start + 2]
    # Not ``in``, for which numba would compile a search.
    if first == _S or first == _D or first == _M or first == _T:  # noqa: SIM109
        return start + 2
    if first == _L and second == _L or (first == _V or first == _R) and second == _E:  # noqa: SIM109
        return start + 3
    return start


@inlined
def word_end(buffer, start, size, table):
    """End of the word (pre-token) that starts at ``start`` < ``size``.

    buffer uint8: valid UTF-8, then a zero byte or a cut at ``size``, and PAD bytes or more; table:
    ``character_classes()``.
    """
    lead = buffer[start]
    position = start + 1 if lead == _BLANK else start
    kind, end = _character(buffer, position, table)
    if kind == SPACE or position == size:
        return _white_space_end(buffer, start, size, table)
    if lead == _QUOTE:
        short = _contraction_end(buffer, start)
        if short != start:
            return short
    return _run_end(buffer, end, size, kind, table)


@called
def long_word_end(buffer, start, size, table):
    """As ``word_end``, a character at a time, which reads no byte from ``size`` on; for very long words."""
    position = start + 1 if buffer[start] == _BLANK else start
    kind = -1
    while position < size:
        found, end = _character(buffer, position, table)
        if found == SPACE and kind < 0:
            return _white_space_end(buffer, start, size, table)
        if kind >= 0 and found != kind:
            break
        kind = np.int64(found)
        position = end
    return position


@kernel(_nrt=False)
def _split(buffer, size, table, ends):
    """Write the end of every word to ``ends`` (size,); return how many there are."""
    count = 0
    position = 0
    while position < size:
        position = word_end(buffer, position, size, table)
        ends[count] = position
        count += 1
    return count


@kernel(_nrt=False)
def _last_cut(buffer, start, size, table):
    """Greatest cut position in (start, size], or ``start``. The text before ``size`` may end inside a character."""
    position = size
    following = -1  # class of the character behind, unknown at first
    while position > start:
        end = position
        position -= 1
        while position > start and buffer[position] & 0xC0 == 0x80:
            position -= 1
        kind, expected_end = _character(buffer, position, table)
        if expected_end != end:  # the character that the prefix breaks off in
            following = -1
            continue
        boundary = kind != SPACE if following == SPACE else kind in (LETTER, NUMBER) and kind != following
        if following >= 0 and boundary:
            return end
        following = np.int64(kind)
    return start


@kernel(_nrt=False)
def _find_cuts(buffer, start, stop, length, table, positions):
    """Write the cuts of ``cuts`` to ``positions``; return how many there are."""
    count, last = 0, start
    for target in range(start + length, stop, length):
        cut = _last_cut(buffer, last, target, table)
        if cut > last:
            positions[count] = last = cut
            count += 1
    return count


def split(data):
    """End offsets (n_words,) int64 of the pre-tokens of ``data`` (bytes, valid UTF-8) under GPT-2's pattern."""
    ends = np.empty(len(data), dtype=np.int64)
    return ends[: _split(padded(data), len(data), character_classes(), ends)].copy()


def cuts(buffer, start, stop, length):
    """Positions that cut ``buffer[start:stop]`` (padded, valid UTF-8) into pieces of about ``length`` bytes.

    Returns a list from ``start`` to ``stop``; the pieces' words, one piece after the other, are those of the whole.
    """
    positions = np.empty(max(stop - start, 0) // length + 1, dtype=np.int64)
    count = _find_cuts(buffer, start, stop, length, character_classes(), positions)
    return [start, *positions[:count].tolist(), stop]
