r"""The words of any pattern that an automaton can follow: one table look-up a character.

``gpt_numpy.tokenizer.automaton`` makes the tables from the pattern, and its ``walk`` is the plain twin. GPT-2's own pattern
has a scanner of its own (``scanner``), which is several times as fast.
"""

from typing import NamedTuple

import numpy as np

from ...errors import TokenizerError
from ..runtime.decorators import kernel
from ..runtime.vectors import read, write
from .bits import SHORT, called, inlined
from .pretokenizer import CharacterClasses, in_pages, wide_character
from .scanner import joins_nothing

NO_MATCH, TOO_SLOW = -1, -2  # results of a kernel that stops inside a text
_FREE, _FREE_A_BYTE = 1 << 24, 64  # characters that a walk may read twice
_WIDE = 0xE3  # least lead byte of the characters between which a long word is divided


class Walk(NamedTuple):
    """An automaton as kernels read it: ``moves[state << shift | class]``, see ``Automaton``."""

    characters: CharacterClasses
    moves: np.ndarray  # (n_states << shift,) int32
    end: int
    shift: int


def walk_tables(automaton):
    """The ``Walk`` of an ``Automaton``."""
    return Walk(in_pages(automaton.classes), automaton.moves, automaton.end, automaton.shift)


@inlined
def walk_word(text, start, stop, limit, walk):
    """(end of the word that begins at ``start``, where the walk ended).

    The end is ``start`` if no word begins there, and -1 if what lies behind ``stop`` decides it. text: valid UTF-8, of
    which bytes up to ``stop`` may be read; limit ≥ stop: where the text ends.
    """
    state = np.int64(1) << walk.shift
    position = last = start
    while True:
        if position >= stop:
            if stop < limit:
                return np.int64(-1), position
            kind, behind = np.int64(walk.end), position
        else:
            lead = read(text, position)
            if lead < 0x80:
                kind, behind = np.int64(read(walk.characters.ascii, lead)), position + 1
            else:
                behind = position + (2 if lead < 0xE0 else 3 if lead < 0xF0 else 4)
                if behind > stop:
                    return np.int64(-1), position
                kind = np.int64(wide_character(text, position, walk.characters)[0])
        move = np.int64(read(walk.moves, state | kind))
        last = position if move & 1 else last
        state = move >> 1
        if state == 0:
            return last, position
        position = behind


@called
def divide(text, start, end, joins, starts, count):
    """Write where the word ``text[start:end]`` begins to ``starts``, and where no merge can join two wide characters."""
    write(starts, count, np.uint16(start))
    count += 1
    if end - start > SHORT:
        for at in range(start + 1, end):
            if read(text, at) >= _WIDE and joins_nothing(text, at, joins) != 0:
                write(starts, count, np.uint16(at))
                count += 1
    return count


@inlined
def too_slow(wasted, size):
    """Whether a walk reads so many characters twice that the time grows with the square of the text."""
    return wasted > _FREE + _FREE_A_BYTE * size


@kernel(_nrt=False)
def _list_words(source, bounds, walk, ends, words):
    """Write the end of every word to ``ends`` and the number of words before each text's end to ``words``."""
    count, wasted = 0, 0
    for text in range(bounds.size - 1):
        position, stop = bounds[text], bounds[text + 1]
        while position < stop:
            end, walked = walk_word(source, position, stop, stop, walk)
            wasted += walked - end
            if end == position:
                return NO_MATCH
            if too_slow(wasted, stop - bounds[0]):
                return TOO_SLOW
            ends[count] = end
            count += 1
            position = end
        words[text] = count
    return count


def list_words(texts, walk):
    """Where words end in ``texts`` (a ``Texts``), (n_words,) int64, and how many begin before each text's end (n_texts,).

    None for both if the pattern leaves a part of a text out or takes quadratic time.
    """
    ends = np.empty(len(texts.source), dtype=np.int64)
    words = np.zeros(len(texts.bounds) - 1, dtype=np.int64)
    count = _list_words(texts.source, texts.bounds, walk, ends, words)
    return (ends[:count].copy(), words) if count >= 0 else (None, None)


def pattern_error(status, texts, state, numbers):
    """The error for a text that the pattern does not divide; state: text and position where the kernel stopped.

    ``numbers`` are those of ``texts`` that the error names; None: it names none.
    """
    number, position = int(state[0]), int(state[1])
    before = texts.source[texts.bounds[number] : position].tobytes().decode()
    here = texts.source[position : min(position + 40, texts.bounds[number + 1])].tobytes().decode(errors="ignore")
    return TokenizerError(
        "the pre-tokenization pattern matches nothing here"
        if status == NO_MATCH
        else "the pre-tokenization pattern takes too long on this text",
        field=None if numbers is None else f"text {numbers[number]}",
        offset=len(before),
        found=here[:10],
    )
