"""Normalising text: named steps, each a pure function from str to str, chosen and recorded by the caller.

No other module of ``data`` changes a character. The steps always run in the order of ``STEPS``: steps that remove
characters come before steps that compose the remaining ones, so that normalising a normalised text changes nothing.
Each step is linear in the length of the text, on hostile text too. ``unicodedata.normalize`` sorts a run of combining
marks by insertion, which takes minutes for one megabyte of marks in the wrong order. ``_sort_marks`` therefore sorts
long runs first; the result is still the exact normal form.
"""

import difflib
import functools
import re
import sys
import unicodedata
from collections.abc import Sequence

import numpy as np

from ...errors import ConfigError

DEFAULT_STEPS = ("bom", "nfc", "newlines")
LONG_RUN = 32  # marks; Unicode's stream-safe format (UAX #15) holds that no real text has more than 30


def normalize(text: str, steps: Sequence[str] = DEFAULT_STEPS) -> str:
    """``text`` after each of ``steps`` (names in ``STEPS``; an empty sequence changes nothing)."""
    for name in check_steps(steps):
        text = STEPS[name](text)
    return text


def check_steps(steps):
    """``steps`` in the order in which they run. Raises ConfigError for an unknown or repeated name, or two Unicode forms."""
    for name in steps:
        if name not in STEPS:
            near = difflib.get_close_matches(str(name), STEPS, 1)
            known = f"{near[0]!r}?" if near else f"some of {', '.join(STEPS)}"
            raise ConfigError("unknown normalising step", field="normalize", found=name, expected=known)
    if len(set(steps)) < len(steps):
        raise ConfigError("a normalising step is named twice", field="normalize", found=", ".join(steps))
    if "nfc" in steps and "nfkc" in steps:
        raise ConfigError("nfc and nfkc are two forms of the same text", field="normalize", expected="one of them")
    return tuple(name for name in STEPS if name in steps)


def _bom(text):
    """Without the byte-order marks that some editors put before a file's first character."""
    return text.lstrip("\ufeff")


def _nfc(text):
    """Canonical composition: one code point for é in every spelling."""
    return _unicode_form("NFC", text)


def _nfkc(text):
    """Compatibility composition: also ligatures, full-width letters and superscripts become plain."""
    return _unicode_form("NFKC", text)


def _newlines(text):
    """CRLF and CR become LF (U+0085, U+2028 and U+2029 stay as they are)."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _controls(text):
    """Without the control characters C0, DEL and C1, except tab, newline, carriage return and U+0085."""
    return _CONTROLS.sub("", text)


def _trailing_space(text):
    """Without the spaces and tabs before a newline and before the end."""
    return _TRAILING_SPACE.sub("", text)


def _blank_lines(text):
    """At most one blank line in a row."""
    return _BLANK_LINES.sub("\n\n", text)


STEPS = {
    "controls": _controls,
    "bom": _bom,
    "nfc": _nfc,
    "nfkc": _nfkc,
    "newlines": _newlines,
    "trailing-space": _trailing_space,
    "blank-lines": _blank_lines,
}

_CONTROLS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]+")
# matches once a run (the lookbehind) and never backtracks (the possessive ++): linear on a line of a million spaces
_TRAILING_SPACE = re.compile(r"(?<![ \t])[ \t]++(?=\n|\Z)")
_BLANK_LINES = re.compile(r"\n{3,}")
_FIRST_MARK = 0x300  # no combining mark, and nothing that decomposes into marks alone, lies before it


def _unicode_form(form, text):
    if text.isascii():
        return text
    is_mark, long_runs = _marks(form)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    places = np.flatnonzero(codes >= _FIRST_MARK)
    places = places[is_mark[codes[places]]]
    run = LONG_RUN - 1
    if (places[run:] - places[:-run] == run).any():  # 32 marks in a row
        text = long_runs.sub(functools.partial(_sort_marks, form), text)
    return unicodedata.normalize(form, text)


def _sort_marks(form, run):
    """A run of marks, decomposed and in canonical order: as ``normalize`` would sort it by insertion."""
    decomposition = form.replace("C", "D")
    marks = "".join([unicodedata.normalize(decomposition, mark) for mark in run[0]])
    return "".join(sorted(marks, key=unicodedata.combining))


@functools.cache
def _marks(form):
    """Which code points decompose into combining marks alone (bool array), and a pattern of long runs of them."""
    decomposition = form.replace("C", "D")
    is_mark = np.zeros(sys.maxunicode + 1, bool)
    for code in range(_FIRST_MARK, sys.maxunicode + 1):
        mark = chr(code)
        if unicodedata.decomposition(mark):
            mark = unicodedata.normalize(decomposition, mark)
        is_mark[code] = all(map(unicodedata.combining, mark))
    marks = "".join(re.escape(chr(code)) for code in np.flatnonzero(is_mark))
    return is_mark, re.compile(f"[{marks}]{{{LONG_RUN},}}")
