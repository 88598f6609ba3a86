r"""From a pre-tokenization pattern to tables that a kernel follows, one look-up a character.

``regex`` tries the alternatives of a pattern one after the other and goes back when one fails. The automaton follows all
of them at once, which needs no going back. Its state is the list of places in the pattern that the text so far may have
reached, in the order in which ``regex`` would try them. A place behind which the pattern ends makes a word; the places
after it in the list are dropped, since ``regex`` would try them only if that one failed. The last word that a walk has
seen when the list is empty is the match (Cox, "Regular Expression Matching: the Virtual Machine Approach", 2009).

Assertions look at the next character only. A possessive repetition is a greedy one that ends only before a character
that it cannot take. The tables know a character by its class: characters that no set of the pattern tells apart are of
the same class, and one class more stands for the end of the text.

``automaton_of`` gives None for a pattern that uses more of the syntax or has too many states. ``regex`` divides the texts
of such a pattern.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from ..unicode.classes import N_CODE_POINTS
from .pattern_syntax import Either, End, Next, One, Repeat, Together, Unsupported, parse, single

_MOST_STATES = 1000
_MOST_PLACES = 2000
_MOST_SETS = 60


class Automaton(NamedTuple):
    """``moves[state << shift | class]`` is ``following state << shift << 1 | whether a word ends before the character``.

    State 0 goes nowhere and state 1 begins. The classes are numbered from 0; the last is the end of the text.
    """

    moves: np.ndarray  # (n_states << shift,) int32
    classes: np.ndarray  # (N_CODE_POINTS,) uint8
    end: int  # the class of the end of the text
    shift: int


@functools.lru_cache(maxsize=32)
def automaton_of(pattern: str) -> Automaton | None:
    """The tables of ``pattern``, or None where ``regex`` has to divide the text."""
    try:
        places = _Places(parse(pattern))
        classes, members = _classes(places.sets)
        moves = _States(places, members).moves()
    except (Unsupported, RecursionError):
        return None
    return _packed(moves, classes)


class _Place(NamedTuple):
    """A place in the pattern: takes a character of a set, or only leads on to other places."""

    takes: int | None  # number of a set
    allows: tuple | None  # (number of a set that must hold the next character, whether the end of the text will do)
    leads_to: tuple[int, ...]


class _Places:
    """All places of a pattern; ``first`` is where a match begins, place 0 where it ends."""

    def __init__(self, tree):
        self.sets, self.places = [single("\n")], [_Place(None, None, ())]
        self.numbers = {self.sets[0].tobytes(): 0}
        self.first = self.add(tree, 0)

    def place(self, takes=None, allows=None, leads_to=()):
        if len(self.places) >= _MOST_PLACES:
            raise Unsupported("a long pattern")
        self.places.append(_Place(takes, allows, leads_to))
        return len(self.places) - 1

    def set(self, characters):
        number = self.numbers.setdefault(characters.tobytes(), len(self.sets))
        if number == len(self.sets):
            self.sets.append(characters)
        if number >= _MOST_SETS:
            raise Unsupported("a pattern of many sets")
        return number

    def add(self, tree, after):
        """The place where ``tree`` begins, if place ``after`` follows it."""
        if isinstance(tree, One):
            return self.place(takes=self.set(tree.characters), leads_to=(after,))
        if isinstance(tree, Next):
            return self.place(allows=(self.set(tree.characters), tree.at_end), leads_to=(after,))
        if isinstance(tree, End):
            return self.place(allows=(None, True), leads_to=(after,))
        if isinstance(tree, Either):
            return self.place(leads_to=tuple(self.add(part, after) for part in tree.parts))
        if isinstance(tree, Together):
            for part in reversed(tree.parts):
                after = self.add(part, after)
            return after
        return self.repeat(tree, after)

    def repeat(self, tree, after):
        if _may_be_empty(tree.part):
            raise Unsupported("a repeated part that may be empty")
        leave = after
        if tree.possessive:
            leave = self.add(Next(~tree.part.characters, at_end=True), after)
        if tree.most is None:
            loop = self.place()
            self.places[loop] = _Place(None, None, (self.add(tree.part, loop), leave))
            first = loop
        else:
            first = after
            for _ in range(tree.most - tree.least):
                first = self.place(leads_to=(self.add(tree.part, first), leave))
        for _ in range(tree.least):
            first = self.add(tree.part, first)
        return first


def _may_be_empty(tree):
    if isinstance(tree, Together):
        return all(map(_may_be_empty, tree.parts))
    if isinstance(tree, Either):
        return any(map(_may_be_empty, tree.parts))
    if isinstance(tree, Repeat):
        return tree.least == 0 or _may_be_empty(tree.part)
    return not isinstance(tree, One)


def _classes(sets):
    """((N_CODE_POINTS,) uint8: the class of each code point, (n_sets, n_classes) bool: whether a set holds a class)."""
    membership = np.zeros(N_CODE_POINTS, np.uint64)
    for number, characters in enumerate(sets):
        membership |= characters.astype(np.uint64) << np.uint64(number)
    pages: dict[bytes, int] = {}  # most pages of code points are equal to another one
    numbers = [pages.setdefault(page.tobytes(), len(pages)) for page in membership.reshape(-1, 256)]
    kinds, classes = np.unique(np.frombuffer(b"".join(pages), np.uint64), return_inverse=True)
    if len(kinds) > 254:
        raise Unsupported("a pattern of many classes")
    classes = classes.reshape(-1, 256)[numbers]
    members = np.array([kinds >> np.uint64(number) & np.uint64(1) for number in range(len(sets))], bool)
    return classes.reshape(-1).astype(np.uint8), members


class _States:
    """The states that a walk can reach."""

    def __init__(self, places, members):
        self.places, self.members = places.places, members
        self.end = members.shape[1]
        self.numbers = {(): 0, (places.first,): 1}

    def moves(self):
        """(n_states, n_classes + 1) int32: 2 * the following state + whether a word ends."""
        rows, listed = [], [(), *list(self.numbers)[1:]]
        while len(rows) < len(listed):
            state, row = listed[len(rows)], []
            for kind in range(self.end + 1):
                following, ends = self.move(state, kind)
                if following not in self.numbers:
                    self.numbers[following] = len(listed)
                    listed.append(following)
                row.append(2 * self.numbers[following] + ends)
            rows.append(row)
            if len(listed) > _MOST_STATES:
                raise Unsupported("a pattern of many states")
        return np.array(rows, np.int32)

    def move(self, state, kind):
        """(the state after a character of class ``kind``, whether a word ends before that character)."""
        following, seen = {}, set()
        pending = list(reversed(state))
        while pending:
            number = pending.pop()
            if number == 0:
                return tuple(following), True
            if number in seen:
                continue
            seen.add(number)
            place = self.places[number]
            if place.takes is None:
                if place.allows is None or self.allowed(*place.allows, kind):
                    pending += reversed(place.leads_to)
            elif kind != self.end and self.members[place.takes, kind]:
                following[place.leads_to[0]] = None
        return tuple(following), False

    def allowed(self, number, at_end, kind):
        if kind == self.end:
            return at_end
        if number is None and self.members[0, kind]:
            raise Unsupported("$ before a line feed")
        return number is not None and self.members[number, kind]


def _packed(moves, classes) -> Automaton:
    n_states, n_classes = moves.shape
    shift = (n_classes - 1).bit_length()
    rows = np.zeros((n_states, 1 << shift), np.int32)
    rows[:, :n_classes] = (moves >> 1) << (shift + 1) | moves & 1
    return Automaton(rows.ravel(), classes, n_classes - 1, shift)


def walk(automaton: Automaton, text: str) -> list[int]:
    """Where the words of ``text`` end: the plain twin of the kernel. A list that ends too early stands for no match."""
    moves, classes, end, shift = automaton
    kinds = [*classes[np.frombuffer(text.encode("utf-32-le"), "<u4")].tolist(), end]
    ends, start = [], 0
    while start < len(text):
        state, position, last = 1 << shift, start, start
        while state:
            move = int(moves[state | kinds[position]])
            last = position if move & 1 else last
            state, position = move >> 1, position + 1
        if last == start:
            break
        ends.append(start := last)
    return ends
