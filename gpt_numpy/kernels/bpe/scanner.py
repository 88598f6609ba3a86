"""Where GPT-2's words begin, sixty-four bytes at a time: the fast twin of ``pretokenizer.word_end``.

A word begins where the class of characters changes (letter, number, white space, other), with three exceptions:

- one blank belongs to the word behind it: what follows a blank begins no word;
- the last character of a run of white space begins a word of its own (if it is a blank, together with what follows).
  This is decided when the character behind the run has been seen; at the end of a text the run stays whole;
- a contraction ('s, 'll) ends after its letters, and begins only at a quote that itself begins a word.

A word of Han, kana or Hangul is long, seldom repeated, and of many tokens. The scan divides it wherever no merge joins
the two bytes that meet (``joins``): merging the pieces one by one gives the same tokens, and the pieces repeat.

Blocks with wide characters get their masks from the table of classes, and go through the same algebra. A block that
breaks off inside a character is cut short before that character.
"""

import numpy as np

from ..runtime.vectors import read, write
from .bits import called, inlined, trailing_zeros
from .masks import BLOCK, LOOKS_UP, ascii_masks, contraction_masks, far_leads, joined_leads, lead_masks, write_positions
from .merging import JOINED_LEADS, JOINED_TABLE
from .pretokenizer import LETTER, NUMBER, SPACE, wide_character

_ONE, _TWO, _THREE = np.uint64(1), np.uint64(2), np.uint64(3)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@inlined
def _first(count):
    """The mask of the first ``count`` bits, for any count: none below 1, all from 64 on."""
    if count >= BLOCK:
        return _ALL
    return (_ONE << np.uint64(max(count, 0))) - _ONE


@inlined
def _wide_masks(text, position, n_bytes, table, masks):
    """Add the wide characters of the block's first ``n_bytes`` to ``masks``; returns the bytes of whole characters.

    masks (6,) uint64: letters, numbers, white space with all their bytes; then the lead bytes of white characters of
    two and of three bytes, and those of characters from U+3000 on.
    """
    valid = _first(n_bytes)
    leads, two, three, others = lead_masks(text, position)
    leads &= valid
    two &= valid >> _ONE
    three &= valid >> _TWO
    others &= valid >> _THREE
    letters = two | two << _ONE | three | three << _ONE | three << _TWO
    numbers, white, white_two, white_three = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
    rest = leads & ~(two | three | others)
    whole = n_bytes
    while rest != 0:
        index = trailing_zeros(rest)
        lead = read(text, position + index)
        length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        if index + length > n_bytes:
            whole = index
            break
        kind, _ = wide_character(text, position + index, table)
        spread = _first(length) << np.uint64(index)
        if kind == LETTER:
            letters |= spread
        elif kind == NUMBER:
            numbers |= spread
        elif kind == SPACE:
            white |= spread
            white_two |= rest & (~rest + _ONE) if length == 2 else np.uint64(0)
            white_three |= rest & (~rest + _ONE) if length == 3 else np.uint64(0)
        rest &= rest - _ONE
    masks[0], masks[1], masks[2], masks[3], masks[4] = letters, numbers, white, white_two, white_three
    masks[5] = leads & far_leads(text, position)
    return whole


@inlined
def joins_nothing(text, at, joins):
    """Whether no merge joins the byte at ``at`` ≥ 1 to the one before it, as 1 or 0; ``text`` goes on behind ``at``.

    Their neighbours on both sides count as well, of which a few share a bit of ``joins``.
    """
    pair = np.int64(read(text, at - 1)) << 8 | np.int64(read(text, at))
    around = np.uint64(read(text, max(at - 2, 0)) & 7) << _THREE | np.uint64(read(text, at + 1) & 7)
    return ~read(joins, pair) >> around & _ONE


if LOOKS_UP:

    @inlined
    def _doubtful(text, position, candidates, joins):
        """Those of ``candidates``, lead bytes of the block at ``position``, that a merge may join to the byte before."""
        return candidates & (joined_leads(text, position, joins, JOINED_TABLE) << _ONE | _ONE)

else:

    @inlined
    def _doubtful(text, position, candidates, joins):
        doubtful = np.uint64(0)
        while candidates != 0:
            index = trailing_zeros(candidates)
            joined = read(joins, JOINED_LEADS | np.int64(read(text, position + index)))
            doubtful |= (joined >> np.uint64(read(text, position + index - 1) & 63) & _ONE) << np.uint64(index)
            candidates &= candidates - _ONE
        return doubtful


@inlined
def _divisions(text, position, candidates, joins):
    """Those of ``candidates``, lead bytes of the block at ``position``, where no merge joins a byte to the one before.

    Most pairs of bytes are in no merge at all, which one bit says. The others take a look at their neighbours.
    """
    doubtful = _doubtful(text, position, candidates, joins)
    found = candidates ^ doubtful
    while doubtful != 0:
        index = trailing_zeros(doubtful)
        found |= joins_nothing(text, position + index, joins) << np.uint64(index)
        doubtful &= doubtful - _ONE
    return found


@called
def scan(text, extent, table, joins, starts, count, masks):
    """Write where the words of ``text[start:stop]`` begin to ``starts`` from ``count`` on; returns the end.

    extent: start, where a word begins; stop; limit ≥ stop, the end of the text's bytes. Reads 66 bytes past
    ``stop``. Where the text goes on behind ``stop``, all starts but the last are final. starts: uint16, with room for
    64 more than there are words. masks: work space of 6 uint64. joins: see ``MergeTables``; where two wide
    characters of a word meet and no merge can join them, another word is taken to begin.
    """
    start, stop, limit = extent
    was_letter = was_number = was_other = was_blank = was_white = np.uint64(0)
    late_start = late_stop = np.uint64(0)  # bits of the next block: starts behind a contraction, and no start inside
    last_white = np.int64(-1)  # lead byte of white space that ends the block and begins a word if nothing white follows
    position = start
    while position < stop:
        n_bytes = min(stop - position, BLOCK)
        letters, numbers, blanks, white, quotes, wide = ascii_masks(text, position)
        white_two = white_three = divisible = np.uint64(0)
        valid = _first(n_bytes)
        single = white
        if wide & valid != 0:
            n_bytes = _wide_masks(text, position, n_bytes, table, masks)
            if n_bytes == 0:
                break
            valid = _first(n_bytes)
            letters |= masks[0]
            numbers |= masks[1]
            white |= masks[2]
            white_two, white_three, divisible = masks[3], masks[4], masks[5]
        letters &= valid
        numbers &= valid
        white &= valid
        others = valid & ~(letters | numbers | white)
        before_white = white << _ONE | was_white
        visible = (
            letters & ~(letters << _ONE | was_letter)
            | numbers & ~(numbers << _ONE | was_number)
            | others & ~(others << _ONE | was_other)
        )
        begins = visible & ~(blanks << _ONE | was_blank) | white & ~before_white
        run_end = white & ~(white >> _ONE) & (valid >> _ONE)
        begins |= run_end & single | (run_end >> _ONE) & white_two | (run_end >> _TWO) & white_three
        if last_white >= 0 and white & _ONE == 0:
            write(starts, count, np.uint16(last_white))
            count += 1
        begins = (begins | late_start) & ~late_stop
        late_start = late_stop = np.uint64(0)
        apostrophes = begins & quotes
        if apostrophes != 0:
            two, three = contraction_masks(text, position)
            two &= apostrophes & _first(limit - position - 1)
            three &= apostrophes & _first(limit - position - 2)
            begins = (begins | two << _TWO | three << _THREE) & ~((two | three) << _ONE)
            over = np.uint64(max(n_bytes, 3) - 1)
            late_stop = (two | three) >> over
            late_start = two >> (over - _ONE) | three >> (over - _TWO)
        begins &= valid
        divisible &= valid & ~(begins | white)
        if divisible != 0:
            divisible = _divisions(text, position, divisible, joins)
        count = write_positions(starts, count, position, begins | divisible)
        top = np.uint64(n_bytes - 1)
        was_letter, was_number, was_other = letters >> top & _ONE, numbers >> top & _ONE, others >> top & _ONE
        was_blank, was_white = blanks >> top & _ONE, white >> top & _ONE
        last_white = np.int64(-1)
        if was_white != 0:
            length = 2 if (white_two << _ONE) >> top & _ONE else 3 if (white_three << _TWO) >> top & _ONE else 1
            lead = n_bytes - length
            if begins >> np.uint64(lead) & _ONE == 0:
                last_white = position + lead
        position += n_bytes
    return count
