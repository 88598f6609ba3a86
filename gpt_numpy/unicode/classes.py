"""The pinned table as arrays, and texts changed so that ``regex`` follows that table."""

from __future__ import annotations

import functools

import numpy as np
import regex

from .data import CATEGORIES, SPACES

N_CODE_POINTS = 0x110000
# A character of each category that has been in it since Unicode 5.0, and that no pattern names. Noncharacters (U+FFFE)
# are in no category of these.
_STAND_INS = {
    "Lu": 0xC0,
    "Ll": 0xE0,
    "Lt": 0x1C5,
    "Lm": 0x2B0,
    "Lo": 0x1BB,
    "M": 0x300,
    "N": 0x2160,
    "P": 0x2020,
    "S": 0xA9,
    "": 0xFFFE,
}
_NAMES = tuple(_STAND_INS)
CATEGORY_NAMES = ("L", *filter(None, _NAMES))


def _fill(table, ranges, value):
    for item in ranges.split():
        first, _, last = item.partition("-")
        table[int(first, 16) : int(last or first, 16) + 1] = value


@functools.cache
def _categories() -> np.ndarray:
    """(N_CODE_POINTS,) uint8: the index in ``_NAMES`` of each code point's category."""
    table = np.full(N_CODE_POINTS, _NAMES.index(""), np.uint8)
    for name, ranges in CATEGORIES.items():
        _fill(table, ranges, _NAMES.index(name))
    return table


def category(name: str) -> np.ndarray:
    """(N_CODE_POINTS,) bool: the code points of a category of ``CATEGORY_NAMES``, such as ``\\p{Lu}``."""
    return np.isin(_categories(), [number for number, other in enumerate(_NAMES) if other and other.startswith(name)])


def letters() -> np.ndarray:
    """(N_CODE_POINTS,) bool: the code points that are letters, ``\\p{L}``."""
    return category("L")


def numbers() -> np.ndarray:
    """(N_CODE_POINTS,) bool: the code points that are numbers, ``\\p{N}``."""
    return category("N")


def spaces() -> np.ndarray:
    """(N_CODE_POINTS,) bool: the code points that are white space, ``\\s``."""
    table = np.zeros(N_CODE_POINTS, bool)
    _fill(table, SPACES, True)
    return table


@functools.cache
def _replacements() -> np.ndarray:
    """(N_CODE_POINTS,) uint32: each code point, or its stand-in where the installed ``regex`` has another category."""
    codes = np.arange(N_CODE_POINTS, dtype="<u4")
    codes[0xD800:0xE000] = 0
    everything = codes.tobytes().decode("utf-32-le")
    theirs = np.full(N_CODE_POINTS, _NAMES.index(""), np.uint8)
    for number, name in enumerate(_NAMES):
        if name:
            for run in regex.finditer(rf"\p{{{name}}}+", everything):
                theirs[run.start() : run.end()] = number
    stand_ins = np.array(list(_STAND_INS.values()), "<u4")
    codes = np.arange(N_CODE_POINTS, dtype="<u4")
    ours = _categories()
    differs = theirs != ours
    codes[differs] = stand_ins[ours[differs]]
    return codes


def seen_by_regex(text: str) -> str:
    """``text`` with a stand-in for each character whose category in ``regex`` is not the pinned one.

    The result is as long as ``text``, and patterns divide both at the same positions. A stand-in has the pinned category.
    """
    if text.isascii():
        return text
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return _replacements()[codes].tobytes().decode("utf-32-le", "surrogatepass")
