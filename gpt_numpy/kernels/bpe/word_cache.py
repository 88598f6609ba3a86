"""The words that a thread has met, with their tokens.

Natural text repeats its words, so nearly every word is found here. The cache has two tables, and a new word replaces an
older one:

- words of at most fifteen bytes: two entries in each cache line, of a word and sixteen bytes of tokens. An entry that is
  pushed out of the first position moves to the second (so the second is the older). A new cache holds the vocabulary's
  tokens, which are words as well;
- words of up to ``LONG_BYTES``, and shorter ones of more tokens than fit into an entry, have records (``long_words``).

Other words are merged every time. Where many words have come that the cache does not hold, the kernels stop and ask for a
larger one (``grown``), up to MAX_LINES. A cache belongs to one thread at a time; see ``bpe.BPEEncoder``.
"""

from typing import NamedTuple

import numpy as np

from ...host.pages import large_zeros
from ..runtime.decorators import kernel
from ..runtime.vectors import prefetch, read, write
from .bits import ENTRY_BYTES, SHORT, called, choose, copy_entry, hash_key, inlined, leading_zeros, short_key
from .key_lanes import same_entries
from .long_words import copy_long, find_record, index_records, merge_long, prepare_long
from .masks import BLOCK
from .merging import MergeSpace, merge_word
from .vocabulary_tables import ROW

N_LINES, MAX_LINES = 1 << 16, 1 << 21  # of short words, two entries each, in a new cache and in the largest
OUT_SLACK = 32  # ids behind the last one that may be overwritten
CHUNK = 1 << 13  # bytes that go through all stages together
BATCH = 128  # words whose cache lines are asked for together
MARKS = 1 << 10  # texts that may end in one chunk
LENGTH_SHIFT = np.uint64(56)  # of the length in a key's second integer; 0 there: a long word
COUNT_SHIFT = np.uint64(60)  # the number of tokens in an entry's second integer; 0: a record has them

_ENTRY, _LINE = 4, 8  # integers of an entry, of a cache line
_GROWTH = 4
_ABOVE = np.uint64(4)
_ONE = np.uint64(1)
_ENDLESS = 2**62
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


class WordCache(NamedTuple):
    """Words and their tokens."""

    short: np.ndarray  # (_LINE * n_lines,) uint64: entries of low, high | n_tokens << 60, two integers of tokens
    slots: np.ndarray  # (BUCKET * n_buckets,) uint64: which records may be a word's
    records: np.ndarray  # uint8: those of long words
    room: np.ndarray  # (4,) int64: words entered; how many make the cache grow; entered by the last batch; units in use
    space: MergeSpace  # for merging words


class Bench(NamedTuple):
    """The results that a stage leaves for the next; they are valid for one chunk."""

    text: np.ndarray  # (CHUNK + …,) uint8: the chunk, and bytes that vectors may read behind it
    starts: np.ndarray  # (CHUNK + …,) uint16: where words begin; behind the last, where it ends
    marks: np.ndarray  # (MARKS,) int64: how many words begin before the end of each text
    words: np.ndarray  # (4 * BATCH,) uint64: a word's key, the index of its line in ``short``, where its tokens begin
    masks: np.ndarray  # (6,) uint64
    misses: np.ndarray  # (BATCH + …,) int64: numbers of new words
    symbols: np.ndarray  # (128,) uint32: those of four words that are merged
    pair_keys: np.ndarray  # (128,) uint32


def bench():
    """Work space for one thread."""
    return Bench(
        np.zeros(CHUNK + 2 * BLOCK, dtype=np.uint8),
        np.zeros(CHUNK + 2 * BLOCK, dtype=np.uint16),
        np.zeros(MARKS, dtype=np.int64),
        np.zeros(4 * BATCH, dtype=np.uint64),
        np.zeros(6, dtype=np.uint64),
        np.zeros(BATCH + 4, dtype=np.int64),
        np.zeros(128, dtype=np.uint32),
        np.zeros(128, dtype=np.uint32),
    )


def _lines(n_lines):
    """An empty table of short words. Its entries never lie across two cache lines."""
    return large_zeros(n_lines * 64).view(np.uint64)


def known_words(spelling, lengths, ids):
    """The table of short words of a new cache: the tokens of ``merge_tables``. 4 MiB."""
    short = _lines(N_LINES)
    _enter_tokens(spelling, lengths, ids, short)
    return short


def new_cache(known, space):
    """A new cache, of 5 MiB, that holds the words of ``known``."""
    short = _lines(N_LINES)
    short[:] = known
    return _with_records(short, space)


def _with_records(short, space):
    n_lines = short.size // _LINE
    return WordCache(
        short,
        large_zeros(n_lines * 2).view(np.uint64),
        large_zeros(n_lines * 14),  # with their index a quarter of the lines' memory
        np.array([0, n_lines // 2, BATCH, 0], dtype=np.int64),  # half: few lines then have three words
        space,
    )


def grown(cache, n_caches=1):
    """A larger cache with the words of ``cache``, or ``cache`` itself if it may not grow any more.

    Together, ``n_caches`` caches take at most some 160 MiB.
    """
    n_lines = cache.short.size // _LINE
    most = max(MAX_LINES >> (n_caches - 1).bit_length(), N_LINES)
    if n_lines >= most:
        cache.room[1] = _ENDLESS
        return cache
    short = _lines(min(_GROWTH * n_lines, most))
    _move_words(cache.short, short)
    larger = _with_records(short, cache.space)
    larger.records[: cache.records.size] = cache.records
    larger.room[3] = cache.room[3]
    index_records(larger.records, larger.slots, cache.room[3])
    return larger


@inlined
def _line_of(low, high, shift):
    """Index of the cache line that may hold a word; shift: 64 less the bits of a line's number."""
    return np.int64(hash_key(low, high) >> shift) * _LINE


@inlined
def _line_shift(short):
    return np.uint64(leading_zeros(np.uint64(short.size // _LINE - 1)))


@inlined
def enter(short, line, low, high, first, second):
    """Write an entry in front of the newer one, which becomes the older one."""
    for i in range(_ENTRY):
        write(short, line + _ENTRY + i, read(short, line + i))
    write(short, line, low)
    write(short, line + 1, high)
    write(short, line + 2, first)
    write(short, line + 3, second)


@kernel(_nrt=False)
def _enter_tokens(spelling, lengths, ids, short):
    """Enter every token that its own bytes are merged to."""
    for symbol in range(lengths.size):
        if lengths[symbol] > 0:
            low, high = short_key(spelling, symbol * ROW, lengths[symbol])
            line = _line_of(low, high, _line_shift(short))
            enter(short, line, low, high | np.uint64(1) << COUNT_SHIFT, np.uint64(ids[symbol]), np.uint64(0))


@kernel(_nrt=False)
def _move_words(old, new):
    shift = _line_shift(new)
    for entry in range(old.size - _ENTRY, -1, -_ENTRY):  # backwards: in a line the newer entry is in front
        low, high = old[entry], old[entry + 1]
        if high != 0:
            line = _line_of(low, high & (_ALL >> _ABOVE), shift)
            enter(new, line, low, high, old[entry + 2], old[entry + 3])


@called
def _encode_new(buffer, word, line, tables, cache, out, at):
    """Tokens of a short word that has no entry with all of them; it is entered. Returns the end."""
    start, length = word
    low, high = short_key(buffer, start, length)
    short = cache.short
    for entry in range(line, line + _LINE, _ENTRY):
        if read(short, entry) == low and read(short, entry + 1) == high:  # too many for an entry
            record = find_record(buffer, start, length, cache)
            count = copy_long(buffer, start, length, record, cache, out, at)
            return at + count if count > 0 else merge_long(buffer, start, length, tables, cache, out, at)
    cache.room[0] += 1
    end = merge_word(buffer, start, length, tables, cache.space, out, at)
    enter(short, line, low, high, np.uint64(0), np.uint64(0))
    if end - at <= ENTRY_BYTES // out.itemsize:
        copy_entry(out, at, short, line + 2)
        write(short, line + 1, high | np.uint64(end - at) << COUNT_SHIFT)
    return end


@called
def prepare(bench, first, count, cache):
    """Cut out and hash the keys of ``count`` words from word ``first`` on; ask for their cache lines."""
    text, starts, words, short = bench.text, bench.starts, bench.words, cache.short
    shift, n_long = _line_shift(short), np.int64(0)
    start = np.int64(read(starts, first))
    for i in range(count):
        end = np.int64(read(starts, first + i + 1))
        low, high = short_key(text, start, end - start)
        line = _line_of(low, high, shift)
        prefetch(short, line)
        write(words, 4 * i, low)
        write(words, 4 * i + 1, high)
        write(words, 4 * i + 2, np.uint64(line))
        write(words, 4 * n_long + 3, np.uint64(i))
        n_long += end - start > SHORT
        start = end
    prepare_long(bench, first, n_long, cache)


@called
def emit(bench, first, count, tables, cache, out, at):
    """Write the tokens of the ``count`` words that ``prepare`` left on the bench; returns the end."""
    short, words = cache.short, bench.words
    for i in range(count):
        line = np.int64(read(words, 4 * i + 2))
        write(words, 4 * i + 3, np.uint64(at))
        same = same_entries(short, line, words, 4 * i)
        entry = line + _ENTRY - (np.int64(same & _ONE) << 2)
        copy_entry(short, entry + 2, out, at)
        n_tokens = np.int64(choose(same != 0, read(short, entry + 1) >> COUNT_SHIFT, np.uint64(0)))
        if n_tokens == 0:
            start, high = np.int64(read(bench.starts, first + i)), read(words, 4 * i + 1)
            length = np.int64(read(bench.starts, first + i + 1)) - start
            if high >> LENGTH_SHIFT != 0:
                n_tokens = _encode_new(bench.text, (start, length), line, tables, cache, out, at) - at
            else:
                n_tokens = copy_long(bench.text, start, length, np.int64(high), cache, out, at)
                if n_tokens == 0:
                    n_tokens = merge_long(bench.text, start, length, tables, cache, out, at) - at
        at += n_tokens
    return at
