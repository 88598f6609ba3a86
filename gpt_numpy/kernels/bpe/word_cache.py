"""The words that a thread has met, with their tokens.

Natural text repeats its words, so nearly every word is found here. The cache is two tables of fixed size, and a new word
replaces an older one:

- words of at most fifteen bytes: two entries in each cache line; an entry that is pushed out of the first position
  moves to the second (so the second is the older). An entry has room for four tokens; that of a word with more names
  a row of the other table, and the stamp that the row must still have;
- words of up to sixty-four bytes: one row for every hash.

Other words are merged every time. A cache belongs to one thread at a time; see ``bpe.BPEEncoder``.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..runtime.emitting import element_pointer
from ..runtime.vectors import prefetch, read, write
from .bits import SHORT, called, copy_items, hash_bytes, hash_key, inlined, same_bytes, short_key
from .masks import BLOCK
from .merging import MergeSpace, merge_space, merge_word, whole_word

LINE_BITS = 16
N_LINES = 1 << LINE_BITS  # of short words, two entries each
N_LONG = 1 << 13
LONG_BYTES = 64
SHORT_TOKENS = 4
OUT_SLACK = 8  # ids behind the last one that may be overwritten
CHUNK = 1 << 13  # bytes that go through all stages together
BATCH = 256  # words whose cache lines are asked for together
MARKS = 1 << 10  # texts that may end in one chunk

_ENTRY, _LINE = 4, 8  # integers of an entry, of a cache line
_LINE_SHIFT = np.uint64(64 - LINE_BITS)
_HALF = np.uint64(32)
_COUNT_SHIFT = np.uint64(56)
_ROW_BITS = np.uint64(0xFFFFFFFF)
_TAG_BITS = np.uint64(0xFFFFFFFFFFFF0000)


class WordCache(NamedTuple):
    """Words and their tokens; all zero when empty. It never grows."""

    short: np.ndarray  # (_LINE * N_LINES,) uint64: entries of low, high, two ids, two ids | n_tokens << 56
    tags: np.ndarray  # (N_LONG,) uint64: hash | n_tokens << 8 | length in the low 16 bits
    spelling: np.ndarray  # (N_LONG * LONG_BYTES + 8,) uint8
    tokens: np.ndarray  # (N_LONG * LONG_BYTES,) uint32
    stamps: np.ndarray  # (N_LONG,) uint64: the number of the writing that filled a row
    written: np.ndarray  # (1,) uint64: how many rows were written so far
    space: MergeSpace  # for merging words


class Bench(NamedTuple):
    """The results that a stage leaves for the next; they are valid for one chunk."""

    text: np.ndarray  # (CHUNK + …,) uint8: the chunk, and bytes that vectors may read behind it
    starts: np.ndarray  # (CHUNK + …,) uint16: where words begin; behind the last, where it ends
    marks: np.ndarray  # (MARKS,) int64: how many words begin before the end of each text
    keys: np.ndarray  # (2 * BATCH,) uint64
    lines: np.ndarray  # (BATCH,) int64: index in ``short`` of the line that may hold a word
    masks: np.ndarray  # (6,) uint64


def word_cache(n_merges):
    """An empty cache: 4 MiB of short words and 2.6 MiB of longer ones, for at most 131,072 and 8,192 words."""
    memory = np.zeros(_LINE * (N_LINES + 1), dtype=np.uint64)
    first = -memory.ctypes.data % 64 // memory.itemsize  # entries never lie across two cache lines
    return WordCache(
        memory[first : first + _LINE * N_LINES],
        np.zeros(N_LONG, dtype=np.uint64),
        np.zeros(N_LONG * LONG_BYTES + 8, dtype=np.uint8),
        np.zeros(N_LONG * LONG_BYTES, dtype=np.uint32),
        np.zeros(N_LONG, dtype=np.uint64),
        np.zeros(1, dtype=np.uint64),
        merge_space(CHUNK, n_merges),
    )


def bench():
    """Work space for one thread."""
    return Bench(
        np.zeros(CHUNK + 2 * BLOCK, dtype=np.uint8),
        np.zeros(CHUNK + 2 * BLOCK, dtype=np.uint16),
        np.zeros(MARKS, dtype=np.int64),
        np.zeros(2 * BATCH, dtype=np.uint64),
        np.zeros(BATCH, dtype=np.int64),
        np.zeros(6, dtype=np.uint64),
    )


def _copier(n_ids):
    """An intrinsic that copies ``n_ids`` ids of 24 bits to ``out`` from ``at`` on, whatever lies in their top bytes."""

    @intrinsic
    def copy(typingctx, source, index, out, at):
        def codegen(context, builder, signature, args):
            wide, narrow = (ir.VectorType(ir.IntType(bits), n_ids) for bits in (32, out.dtype.bitwidth))
            n_items = ir.IntType(64)(n_ids * 32 // source.dtype.bitwidth)
            ids = element_pointer(context, builder, source, args[0], args[1], n_items)
            target = element_pointer(context, builder, out, args[2], args[3], ir.IntType(64)(n_ids))
            vector = builder.load(builder.bitcast(ids, wide.as_pointer()))
            vector.align = 4
            kept = builder.and_(vector, ir.Constant(wide, [0xFFFFFF] * n_ids))
            result = builder.trunc(kept, narrow) if narrow != wide else kept
            builder.store(result, builder.bitcast(target, narrow.as_pointer())).align = out.dtype.bitwidth // 8
            return context.get_dummy_value()

        return types.void(source, types.int64, out, types.int64), codegen

    return copy


_copy_four = _copier(SHORT_TOKENS)
_copy_some = _copier(OUT_SLACK)


@inlined
def _copy_row(cache, row, out, at, count):
    """Write the ``count`` ids of a row of the long table to ``out`` from ``at`` on; returns the end."""
    for i in range(0, count, OUT_SLACK):
        _copy_some(cache.tokens, row * LONG_BYTES + i, out, at + i)
    return at + count


@called
def _encode_long(buffer, start, length, tables, cache, out, at):
    """Tokens of a word of up to LONG_BYTES bytes through the long table: (end, its row there)."""
    mixed = hash_bytes(buffer, start, length)
    row = np.int64(mixed >> _HALF) & (N_LONG - 1)
    tag = cache.tags[row]
    same = (tag ^ mixed) & _TAG_BITS == 0 and np.int64(tag & np.uint64(0xFF)) == length
    if same and same_bytes(buffer, start, cache.spelling, row * LONG_BYTES, length):
        return _copy_row(cache, row, out, at, np.int64(tag >> np.uint64(8) & np.uint64(0xFF))), row
    end = merge_word(buffer, start, length, tables, cache.space, out, at)
    cache.tags[row] = mixed & _TAG_BITS | np.uint64((end - at) << 8 | length)
    copy_items(buffer, start, cache.spelling, row * LONG_BYTES, length)
    copy_items(out, at, cache.tokens, row * LONG_BYTES, end - at)
    cache.written[0] += 1
    cache.stamps[row] = cache.written[0]
    return end, row


@called
def _encode_new(buffer, word, key, line, tables, cache, out, at):
    """Tokens of a word that its line does not hold; enter a short word there."""
    start, length = word
    if length > LONG_BYTES:
        return merge_word(buffer, start, length, tables, cache.space, out, at)
    low, high = key
    row = np.int64(-1)
    token = whole_word(low, high, tables.word_slots) if length <= SHORT else -1
    if token >= 0:
        out[at] = token
        end = at + 1
    else:
        end, row = _encode_long(buffer, start, length, tables, cache, out, at)
    if length > SHORT:
        return end
    short, count = cache.short, end - at
    for i in range(_ENTRY):
        short[line + _ENTRY + i] = short[line + i]
    short[line] = low
    short[line + 1] = high
    if count <= SHORT_TOKENS:
        for i in range(count, SHORT_TOKENS):
            out[at + i] = 0
        short[line + 2] = np.uint64(out[at]) | np.uint64(out[at + 1]) << _HALF
        short[line + 3] = np.uint64(out[at + 2]) | np.uint64(out[at + 3]) << _HALF
    else:
        short[line + 2] = cache.stamps[row]
        short[line + 3] = np.uint64(row)
    short[line + 3] |= np.uint64(count) << _COUNT_SHIFT
    return end


@called
def _encode_linked(buffer, word, entry, tables, cache, out, at):
    """Tokens of a word whose entry names a row of the long table; the row may hold another word by now."""
    short = cache.short
    count = np.int64(short[entry + 3] >> _COUNT_SHIFT)
    row = np.int64(short[entry + 3] & _ROW_BITS)
    if cache.stamps[row] == short[entry + 2]:
        return _copy_row(cache, row, out, at, count)
    end, row = _encode_long(buffer, word[0], word[1], tables, cache, out, at)
    short[entry + 2] = cache.stamps[row]
    return end


@called
def prepare(bench, first, count, short):
    """Cut out and hash the keys of ``count`` words from word ``first`` on; ask for their cache lines."""
    text, starts, keys, lines = bench.text, bench.starts, bench.keys, bench.lines
    start = np.int64(read(starts, first))
    for i in range(count):
        end = np.int64(read(starts, first + i + 1))
        low, high = short_key(text, start, end - start)
        line = np.int64(hash_key(low, high) >> _LINE_SHIFT) * _LINE
        prefetch(short, line)
        write(keys, 2 * i, low)
        write(keys, 2 * i + 1, high)
        write(lines, i, line)
        start = end


@called
def emit(bench, first, count, tables, cache, out, at):
    """Write the tokens of the ``count`` words that ``prepare`` left on the bench; returns the end.

    ``bench.lines`` receives where the tokens of each begin.
    """
    short, keys, lines = cache.short, bench.keys, bench.lines
    for i in range(count):
        low, high, line = read(keys, 2 * i), read(keys, 2 * i + 1), read(lines, i)
        write(lines, i, at)
        newer = read(short, line) ^ low | read(short, line + 1) ^ high
        older = read(short, line + _ENTRY) ^ low | read(short, line + _ENTRY + 1) ^ high
        entry = line + (np.int64(newer != 0) << 2)
        _copy_four(short, entry + 2, out, at)
        n_tokens = np.int64(read(short, entry + 3) >> _COUNT_SHIFT)
        if (newer != 0) & (older != 0) | (n_tokens > SHORT_TOKENS):
            start = np.int64(read(bench.starts, first + i))
            word = start, np.int64(read(bench.starts, first + i + 1)) - start
            if newer != 0 and older != 0:
                at = _encode_new(bench.text, word, (low, high), line, tables, cache, out, at)
            else:
                at = _encode_linked(bench.text, word, entry, tables, cache, out, at)
        else:
            at += n_tokens
    return at
