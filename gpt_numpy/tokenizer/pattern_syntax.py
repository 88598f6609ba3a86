r"""The part of the ``regex`` syntax that pre-tokenization patterns use, read into a tree.

>>> parse(r" ?\p{N}{1,3}")
Together(parts=(Repeat(part=One(characters={' '}), least=0, most=1, possessive=False), Repeat(...)))

Literals, sets of characters, categories of Unicode, groups, ``|``, greedy and possessive quantifiers, and assertions about
the next character. ``Unsupported`` is raised for the rest of the syntax: such a pattern is left to ``regex``. Characters
are those of the pinned tables of ``gpt_numpy.unicode``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..unicode import classes

_QUANTIFIERS = {"?": (0, 1), "*": (0, None), "+": (1, None)}
_ESCAPED = {"r": "\r", "n": "\n", "t": "\t", "f": "\f", "v": "\v"}
_NOT_LITERAL = frozenset("\\^$.|?*+()[]{}")
_SAME_LETTER = {"s": "ſ", "k": "\u212a"}  # the characters beyond ASCII that equal an ASCII letter without case
_MOST_COPIES = 64  # of the part of a counted repetition


class Unsupported(Exception):
    """A part of a pattern that has no place in an automaton."""


class One(NamedTuple):
    """One character of a set."""

    characters: np.ndarray  # (N_CODE_POINTS,) bool


class Next(NamedTuple):
    """An assertion: the next character is in the set. ``at_end`` says whether it holds at the end of the text."""

    characters: np.ndarray  # (N_CODE_POINTS,) bool
    at_end: bool


class End(NamedTuple):
    """The assertion ``$``."""


class Together(NamedTuple):
    """Parts, one after the other."""

    parts: tuple


class Either(NamedTuple):
    """Alternatives; an earlier one goes before a later one."""

    parts: tuple


class Repeat(NamedTuple):
    """A part, as often as possible; a possessive one never gives a repetition back."""

    part: NamedTuple
    least: int
    most: int | None
    possessive: bool


def parse(pattern: str) -> NamedTuple:
    """The tree of ``pattern``; ``Unsupported`` if it uses more of the syntax than this module knows."""
    reader = _Reader(pattern)
    tree = reader.either(without_case=False)
    if reader.rest:
        raise Unsupported(reader.rest[:10])
    return tree


def single(character: str) -> np.ndarray:
    """The set of one character."""
    found = np.zeros(classes.N_CODE_POINTS, bool)
    found[ord(character)] = True
    return found


class _Reader:
    """Reads a pattern from the left; ``rest`` is what has not been read."""

    def __init__(self, pattern):
        self.rest = pattern

    def take(self, *choices):
        """The first of ``choices`` that comes next, which is then read; else an empty string."""
        for choice in choices:
            if self.rest.startswith(choice):
                self.rest = self.rest[len(choice) :]
                return choice
        return ""

    def character(self):
        if not self.rest:
            raise Unsupported("the end of the pattern")
        first, self.rest = self.rest[0], self.rest[1:]
        return first

    def until(self, end):
        found, separator, self.rest = self.rest.partition(end)
        if not separator:
            raise Unsupported(found)
        return found

    def either(self, without_case):
        parts = [self.together(without_case)]
        while self.take("|"):
            parts.append(self.together(without_case))
        return Either(tuple(parts)) if len(parts) > 1 else parts[0]

    def together(self, without_case):
        parts = []
        while self.rest and self.rest[0] not in "|)":
            parts.append(self.repeated(self.atom(without_case)))
        return Together(tuple(parts))

    def repeated(self, part):
        least, most = 1, 1
        if sign := self.take(*_QUANTIFIERS):
            least, most = _QUANTIFIERS[sign]
        elif self.take("{"):
            numbers = self.until("}").split(",")
            if len(numbers) > 2 or not all(number.isdecimal() and number.isascii() for number in numbers):
                raise Unsupported("an open or unusual count")
            least, most = int(numbers[0]), int(numbers[-1])
            if not least <= most <= _MOST_COPIES:
                raise Unsupported("a large count")
        else:
            return part
        if self.rest[:1] in ("?", "*", "{"):
            raise Unsupported("a lazy or second quantifier")
        if isinstance(part, (Next, End)):
            raise Unsupported("a repeated assertion")
        possessive = bool(self.take("+"))
        if self.rest[:1] in tuple("?*+{"):
            raise Unsupported("a third quantifier")
        if possessive and not isinstance(part, One):
            raise Unsupported("a possessive group")
        return Repeat(part, least, most, possessive)

    def atom(self, without_case):
        if kind := self.take("(?:", "(?i:", "(?!", "(?=", "("):
            if kind == "(" and self.rest.startswith(("?", "*")):
                raise Unsupported("an unknown group")
            inside = self.either(without_case or kind == "(?i:")
            if not self.take(")"):
                raise Unsupported("a group without an end")
            return inside if kind not in ("(?!", "(?=") else _assertion(inside, kind == "(?!")
        if self.take("$"):
            return End()
        if self.take("["):
            return One(self.set(without_case))
        if self.rest.startswith("\\"):
            return One(self.escape(without_case))
        character = self.character()
        if character in _NOT_LITERAL:
            raise Unsupported(character)
        return One(_literal(character, without_case))

    def set(self, without_case):
        """The characters of ``[…]``, whose first bracket has been read."""
        negated, found, first = bool(self.take("^")), np.zeros(classes.N_CODE_POINTS, bool), True
        while first or not self.take("]"):
            first = False
            if self.rest.startswith(("[", "--", "&&", "||", "~~")):
                raise Unsupported("a set of sets")
            if self.rest.startswith("\\"):
                begins, characters = self.rest[1:2], self.escape(without_case)
                begins = _ESCAPED.get(begins, begins)
            else:
                begins = self.character()
                characters = _literal(begins, without_case)
            if self.rest.startswith("-") and self.rest[1:2] != "]":
                self.take("-")
                last = self.character()
                if last in "\\[" or without_case or characters.sum() != 1 or last < begins:
                    raise Unsupported("an unusual range")
                found[ord(begins) : ord(last) + 1] = True
            found |= characters
        if negated and without_case:
            raise Unsupported("the complement of a set without case")
        return ~found if negated else found

    def escape(self, without_case):
        """The characters of an escape, whose backslash comes next."""
        self.take("\\")
        name = self.character()
        if name in "sS":
            return classes.spaces() if name == "s" else ~classes.spaces()
        if name in "pP":
            return self.category(name == "P", without_case)
        if name in _ESCAPED:
            return single(_ESCAPED[name])
        if name.isalnum() or not name.isascii():
            raise Unsupported("\\" + name)
        return single(name)

    def category(self, negated, without_case):
        name = self.until("}") if self.take("{") else self.character()
        if without_case or name not in classes.CATEGORY_NAMES:
            raise Unsupported(f"category {name}")
        found = classes.category(name)
        return ~found if negated else found


def _literal(character, without_case):
    found = single(character)
    if without_case and character.isalpha():
        if not character.isascii():
            raise Unsupported("letters beyond ASCII without case")
        lower = character.lower()
        for same in (lower, lower.upper(), *_SAME_LETTER.get(lower, "")):
            found[ord(same)] = True
    elif without_case and not character.isascii():
        raise Unsupported("characters beyond ASCII without case")
    return found


def _assertion(inside, negated):
    """The assertion about the next character that a group of one set makes."""
    while isinstance(inside, Together) and len(inside.parts) == 1:
        inside = inside.parts[0]
    if not isinstance(inside, One):
        raise Unsupported("an assertion about more than one character")
    return Next(~inside.characters if negated else inside.characters, at_end=negated)
