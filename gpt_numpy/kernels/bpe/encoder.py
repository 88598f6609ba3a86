"""Encoding kernels: text in UTF-8 to token ids, through a bounded cache of words already merged.

Text goes through three stages, a chunk of some kilobytes at a time, so that what one stage leaves for the next stays
in the first cache:

1. ``scanner`` finds where words begin, 64 bytes at once;
2. for a few hundred words, their keys are cut out and hashed, and the cache lines that may hold them are asked for;
3. if the batch before had many new words, those of this one are merged, four at a time (``misses``);
4. by then the lines have come: keys are compared, and an entry's tokens are copied, of which as many count as the word has.

Natural text repeats its words, so nearly every word is found there (``word_cache``). Words that no entry has room for
are merged every time.
"""

from typing import NamedTuple

import numpy as np

from ..runtime.decorators import kernel
from .bits import called, copy_bytes
from .merging import merge_word
from .misses import MANY, merge_new_words
from .pretokenizer import long_word_end
from .scanner import scan
from .walker import NO_MATCH, TOO_SLOW, divide, too_slow, walk_word
from .word_cache import BATCH, CHUNK, MARKS, emit, prepare

TOO_MANY_WORDS = -3  # the result of a kernel that wants a larger cache, beside those of ``walker``

AHEAD = 2  # bytes behind a chunk that tell whether a quote at its end begins a contraction


class Chunk(NamedTuple):
    """What the scan of one chunk found."""

    n_words: int
    n_marks: int
    size: int  # bytes of these words


@called
def _encode_chunk(bench, chunk, tables, cache, out, at, ends):
    """Stages two and three for the words of one chunk; ``ends`` receives where the tokens of each text end."""
    marks, mark = bench.marks, 0
    for first in range(0, chunk.n_words, BATCH):
        count = min(BATCH, chunk.n_words - first)
        prepare(bench, first, count, cache)
        entered = cache.room[0]
        if cache.room[2] >= MANY:
            merge_new_words(bench, first, count, tables, cache, out.itemsize)
        at = emit(bench, first, count, tables, cache, out, at)
        cache.room[2] = cache.room[0] - entered
        while mark < chunk.n_marks and marks[mark] < first + count:
            ends[mark] = np.int64(bench.words[4 * (marks[mark] - first) + 3])
            mark += 1
    while mark < chunk.n_marks:
        ends[mark] = at
        mark += 1
    return at


@called
def scan_chunk(bounds, text, position, size, classes, joins, bench):
    """Stage one for the texts from number ``text`` on, of which ``size`` bytes from ``position`` on are on the bench.

    A word that the chunk breaks off is left for the next chunk.
    """
    # Integers of one type, no literals: numba would compile ``scan`` anew for each combination.
    starts, count, n_marks, start, most = bench.starts, np.int64(0), 0, np.int64(0), np.int64(CHUNK)
    while text < bounds.size - 1 and n_marks < MARKS:
        stop = bounds[text + 1] - position
        if stop > CHUNK:
            end = scan(bench.text, (start, most, min(size, stop)), classes, joins, starts, count, bench.masks)
            if end > count:
                count = end - 1
                start = np.int64(starts[count])
            break
        count = scan(bench.text, (start, stop, stop), classes, joins, starts, count, bench.masks)
        bench.marks[n_marks] = count
        n_marks += 1
        start = stop
        text += 1
    starts[count] = start
    return Chunk(count, n_marks, start)


@kernel(_nrt=False)
def encode_texts(source, bounds, classes, tables, cache, bench, out, ends, state):
    """Pre-tokenize and encode several texts: text k is ``source[bounds[k]:bounds[k + 1]]``.

    source uint8, valid UTF-8; bounds (n_texts + 1,) int64; out uint16 or uint32 with room for an id a byte and
    OUT_SLACK more; ends (n_texts,) int64 receives the end of every text's tokens in ``out``; state (4,) int64:
    text, position in ``source``, tokens so far, characters read twice; at first 0, bounds[0], 0, 0. Returns 0 when all is
    done, else TOO_MANY_WORDS for the cache, or the length of a word that its work space has no room for: with a larger
    one the next call goes on from there.
    """
    text, position, at = state[0], state[1], state[2]
    end = bounds[bounds.size - 1]
    while text < bounds.size - 1:
        if cache.room[0] > cache.room[1]:
            state[0], state[1], state[2] = text, position, at
            return TOO_MANY_WORDS
        size = min(end - position, CHUNK + AHEAD)
        copy_bytes(bench.text, 0, source, position, size)
        chunk = scan_chunk(bounds, text, position, size, classes, tables.joins, bench)
        if chunk.n_marks == 0 and chunk.size == 0:
            stop = long_word_end(source, position, bounds[text + 1], classes)
            if stop - position > cache.space.ids.size:
                state[0], state[1], state[2] = text, position, at
                return stop - position
            at = merge_word(source, position, stop - position, tables, cache.space, out, at)
            if stop == bounds[text + 1]:
                ends[text] = at
                text += 1
            position = stop
            continue
        at = _encode_chunk(bench, chunk, tables, cache, out, at, ends[text:])
        position += chunk.size
        text += chunk.n_marks
    return 0


@called
def walk_chunk(bounds, text, position, size, walk, joins, bench):
    """As ``scan_chunk``, with an automaton: (what was found, characters read twice)."""
    starts, count, n_marks, start, wasted = bench.starts, 0, 0, np.int64(0), np.int64(0)
    while text < bounds.size - 1 and n_marks < MARKS:
        limit = bounds[text + 1] - position
        stop = min(limit, size)
        while start < stop:
            end, walked = walk_word(bench.text, start, stop, limit, walk)
            if end <= start:
                break
            wasted += walked - end
            count = divide(bench.text, start, end, joins, starts, count)
            start = end
        if start < limit:
            break
        bench.marks[n_marks] = count
        n_marks += 1
        text += 1
    starts[count] = start
    return Chunk(count, n_marks, start), wasted


@kernel(_nrt=False)
def encode_texts_by_walk(source, bounds, walk, tables, cache, bench, out, ends, state):
    """As ``encode_texts`` with the words of an automaton (``walker``).

    Returns NO_MATCH as well, where the pattern leaves out the character at the position in ``state``, and TOO_SLOW.
    """
    text, position, at = state[0], state[1], state[2]
    end = bounds[bounds.size - 1]
    while text < bounds.size - 1:
        state[0], state[1], state[2] = text, position, at
        if cache.room[0] > cache.room[1]:
            return TOO_MANY_WORDS
        size = min(end - position, CHUNK)
        copy_bytes(bench.text, 0, source, position, size)
        chunk, wasted = walk_chunk(bounds, text, position, size, walk, tables.joins, bench)
        if chunk.n_marks == 0 and chunk.size == 0:
            limit = bounds[text + 1]
            stop, walked = walk_word(source, position, limit, limit, walk)
            wasted = walked - stop
            if stop == position:
                return NO_MATCH
            if stop - position > cache.space.ids.size:
                return stop - position
            at = merge_word(source, position, stop - position, tables, cache.space, out, at)
            if stop == limit:
                ends[text] = at
                text += 1
            position = stop
        else:
            at = _encode_chunk(bench, chunk, tables, cache, out, at, ends[text:])
            position += chunk.size
            text += chunk.n_marks
        state[3] += wasted
        if too_slow(state[3], position - bounds[0]):
            return TOO_SLOW
    return 0


@kernel(_nrt=False)
def encode_words(source, bounds, tables, cache, bench, out, ends, state):
    """As ``encode_texts`` for words that another pattern has split already; only the last of ``ends`` is written."""
    word, at, last = state[0], state[2], bounds.size - 1
    while word < last:
        if cache.room[0] > cache.room[1]:
            state[0], state[2] = word, at
            return TOO_MANY_WORDS
        position, count = bounds[word], 0
        size = min(bounds[last] - position, CHUNK)
        copy_bytes(bench.text, 0, source, position, size)
        while word < last and bounds[word + 1] - position <= CHUNK:
            bench.starts[count] = bounds[word] - position
            count += bounds[word + 1] > bounds[word]
            word += 1
            bench.starts[count] = bounds[word] - position
        if count == 0 and word < last:
            length = bounds[word + 1] - bounds[word]
            if length > cache.space.ids.size:
                state[0], state[2] = word, at
                return length
            at = merge_word(source, position, length, tables, cache.space, out, at)
            word += 1
            continue
        at = _encode_chunk(bench, Chunk(count, 0, 0), tables, cache, out, at, ends)
    ends[ends.size - 1] = at
    return 0
