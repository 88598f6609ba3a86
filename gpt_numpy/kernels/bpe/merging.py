"""Byte-pair merging of one word: always the pair of lowest rank, the leftmost of several.

The plain twin is in ``gpt_numpy.tokenizer``. Two kernels give the same tokens. Words of up to sixty-four bytes keep their
symbols in an array and one bit for each, and the best pair is the least of sixteen integers at a time. Longer words keep
linked lists of symbols and, for every rank, of positions: the time is that of their length.

Within the kernels a symbol is numbered by what makes it: a byte by its value, the result of merge r by 256 + r. The tokens'
own ids are looked up at the end.
"""

from typing import NamedTuple

import numpy as np

from ..runtime.vectors import read, write
from .bits import called, inlined, leading_zeros, trailing_zeros
from .key_lanes import BUCKET, LANES, least_key, load_keys, nearest, with_key

MAX_ID = 2**24 - 1  # the tables' memory follows the largest id
MAX_MERGES = 2**21 - 258  # a pair and its rank share 63 bits, and one symbol is in no pair
SCAN_LIMIT = 64  # bytes of the longest word whose symbols have a bit each
SYMBOL_BITS = np.uint64(21)
NO_SYMBOL = np.uint32(2**21 - 1)  # is in no pair
NO_RANK = np.uint32(2**21)  # ranks of pairs that no merge makes are not below this one
POSITION_BITS = np.uint32(6)
NO_KEY = np.uint32(2**27)  # keys of positions whose pair has no rank are not below this one
EMPTY_SLOT = np.uint64(2**63 - 1)
OVERFULL = np.uint64(2**63)  # bit of a bucket's last slot: the bucket behind has some of its pairs

# Indices in ``joins`` of pairs with byte 255, which is in no UTF-8. From JOINED_TABLE on there are 64 bytes, by the low six
# bits of a byte: the lead bytes that a merge may join to it. At JOINED_LEADS and a lead byte: the low six bits of the bytes
# in front of it that a merge may join to it.
JOINED_TABLE, JOINED_LEADS = 0xFF00, 0xFF00

_ONE = np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_POSITION = np.uint32(63)
_LAST_RANK = np.uint64(2**26 - 1)  # with a position behind it, still 32 bits
_MIX = np.uint64(0x9E3779B97F4A7C15)


class MergeTables(NamedTuple):
    """A vocabulary as the kernels read it; built and checked by ``merge_tables``, read-only afterwards."""

    ids: np.ndarray  # (256 + n_merges,) uint32: the token of every byte, then of every merge
    byte_keys: np.ndarray  # (65536,) uint32: rank << 6 of the pair of bytes first << 8 | second, or NO_KEY
    pair_slots: np.ndarray  # (n_slots,) uint64: left << 42 | right << 21 | rank; buckets of BUCKET
    # (65536,) uint64: the bytes that may surround a pair of bytes that a merge brings together; and what ``scanner`` asks
    # first, at JOINED_TABLE and JOINED_LEADS
    joins: np.ndarray


class MergeSpace(NamedTuple):
    """Work space for merging words of up to ``ids.size`` bytes."""

    ids: np.ndarray  # (size,) uint32: symbols
    ranks: np.ndarray  # (size,) uint32: rank of the pair that begins at a symbol
    before: np.ndarray  # (size,) int32: position of the symbol before, -1 for the first
    behind: np.ndarray  # (size,) int32: position of the symbol behind, the word's length for the last
    entries: np.ndarray  # (3 * size, 2) int32: position, next entry of the same rank
    first: np.ndarray  # (n_merges,) int32: first entry of a rank, -1 between words
    last: np.ndarray  # (n_merges,) int32
    heap: np.ndarray  # (n_merges,) uint32: the ranks that have entries
    sizes: np.ndarray  # (2,) int64: how many entries, how many ranks in the heap


def merge_space(size, n_merges):
    """Work space for words of up to ``size`` bytes: 40 bytes for each, and 12 for each merge."""
    size = max(size, 2 * SCAN_LIMIT)
    return MergeSpace(
        np.empty(size, dtype=np.uint32),
        np.empty(size, dtype=np.uint32),
        np.empty(size, dtype=np.int32),
        np.empty(size, dtype=np.int32),
        np.empty((3 * size, 2), dtype=np.int32),
        np.full(n_merges, -1, dtype=np.int32),
        np.empty(n_merges, dtype=np.int32),
        np.empty(n_merges, dtype=np.uint32),
        np.zeros(2, dtype=np.int64),
    )


@inlined
def pair_key(left, right):
    """What a slot holds of a pair of symbols, beside its rank."""
    return np.uint64(left) << (SYMBOL_BITS + SYMBOL_BITS) | np.uint64(right) << SYMBOL_BITS


@inlined
def first_slot(key, pair_slots):
    """The first of the slots where a pair is looked for."""
    n_buckets = pair_slots.size // BUCKET
    return np.int64(key * _MIX >> np.uint64(leading_zeros(np.uint64(n_buckets - 1)))) * BUCKET


@inlined
def pair_rank(left, right, pair_slots):
    """Rank of the pair of symbols; NO_RANK or more if it has none. All slots of a bucket are compared at once."""
    key = pair_key(left, right)
    slot = first_slot(key, pair_slots)
    found = nearest(pair_slots, slot, key)
    while read(pair_slots, slot + BUCKET - 1) & OVERFULL != 0:
        slot = (slot + BUCKET) & (pair_slots.size - 1)
        found = min(found, nearest(pair_slots, slot, key))
    return np.uint32(min(found, _LAST_RANK))


@inlined
def _pair_key(left, right, position, pair_slots):
    """The key of the pair that begins at ``position``: rank, then position, so that the least key is merged next."""
    return np.uint32(pair_rank(left, right, pair_slots) << POSITION_BITS | np.uint32(position))


@inlined
def _lay_out(buffer, start, length, tables, symbols, keys):
    """Write the symbols and keys of a word's bytes, those of position i as numbers i + 1.

    In front of the first symbol and at SCAN_LIMIT stands one that no pair contains.
    """
    last = np.int64(read(buffer, start))
    write(symbols, 0, NO_SYMBOL)
    write(symbols, SCAN_LIMIT + 1, NO_SYMBOL)
    write(symbols, 1, np.uint32(last))
    for i in range(1, length):
        byte = np.int64(read(buffer, start + i))
        write(symbols, i + 1, np.uint32(byte))
        write(keys, i, read(tables.byte_keys, last << 8 | byte) | np.uint32(i - 1))
        last = byte
    for i in range(length, max(LANES, length) + 1):
        write(keys, i, NO_KEY)


@inlined
def _merge_key(key, alive, symbols, slots):
    """Merge the pair of ``key``, the least; alive: a bit for each position that holds a symbol.

    Returns (positions before, left and right of the merge, keys before and at the left, alive), before = -1 for none.
    """
    left = np.int64(key & _POSITION)
    at_left = _ONE << np.uint64(left)
    above = alive & ~(at_left | (at_left - _ONE))
    right = trailing_zeros(above)
    behind = trailing_zeros(above & (above - _ONE))
    before = 63 - leading_zeros(alive & (at_left - _ONE))
    new = np.uint32(np.uint32(256) + (key >> POSITION_BITS))
    write(symbols, left + 1, new)
    key_left = _pair_key(new, read(symbols, behind + 1), left, slots)
    key_before = _pair_key(read(symbols, before + 1), new, before & 63, slots)
    return before, left, right, key_before, key_left, alive ^ _ONE << np.uint64(right)


@inlined
def _write_tokens(symbols, alive, tables, out, at):
    """Write the tokens of the symbols whose bits are in ``alive``; returns the end."""
    while alive != 0:
        out[at] = read(tables.ids, np.int64(read(symbols, trailing_zeros(alive) + 1)))
        at += 1
        alive &= alive - _ONE
    return at


@called
def _merge_in_lanes(buffer, start, length, tables, space, out, at):
    """Merge a word of at most LANES bytes into ``out`` from ``at`` on; return the position behind."""
    _lay_out(buffer, start, length, tables, space.ids, space.ranks)
    keys = load_keys(space.ranks, 1)
    alive = _ALL >> np.uint64(SCAN_LIMIT - length)
    while True:
        key = least_key(keys)
        if key >= NO_KEY:
            return _write_tokens(space.ids, alive, tables, out, at)
        before, left, right, key_before, key_left, alive = _merge_key(key, alive, space.ids, tables.pair_slots)
        keys = with_key(with_key(with_key(keys, right, NO_KEY), left, key_left), before, key_before)


@called
def _merge_by_bits(buffer, start, length, tables, space, out, at):
    """As ``_merge_in_lanes``, for words of at most SCAN_LIMIT bytes."""
    keys = space.ranks
    _lay_out(buffer, start, length, tables, space.ids, keys)
    alive = _ALL >> np.uint64(SCAN_LIMIT - length)
    while True:
        key = NO_KEY
        for position in range(1, length):
            key = min(key, read(keys, position))
        if key >= NO_KEY:
            return _write_tokens(space.ids, alive, tables, out, at)
        before, left, right, key_before, key_left, alive = _merge_key(key, alive, space.ids, tables.pair_slots)
        write(keys, right + 1, NO_KEY)
        write(keys, left + 1, key_left)
        write(keys, before + 1, key_before)


@called
def _push(heap, size, item):
    """Add ``item`` to the min-heap of ``size`` items."""
    position = size
    while position > 0:
        parent = (position - 1) >> 1
        if heap[parent] <= item:
            break
        heap[position] = heap[parent]
        position = parent
    heap[position] = item


@called
def _pop(heap, size):
    """Remove and return the least of ``size`` items."""
    least, item = heap[0], heap[size - 1]
    position, child = 0, 1
    while child < size:
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if item <= heap[child]:
            break
        heap[position] = heap[child]
        position = child
        child = 2 * position + 1
    heap[position] = item
    return least


@inlined
def _rank_pair(position, length, tables, space):
    """Find the rank of the pair that begins at ``position`` and put the position on the rank's list.

    A position whose pair changes stays on the old list, and is known there by its rank. Each merge changes two pairs
    at most, and there are fewer merges than bytes: 3 * length entries are enough.
    """
    symbols, ranks, _, behind, entries, first, last, heap, sizes = space
    rank = NO_RANK
    if behind[position] < length:
        rank = pair_rank(symbols[position], symbols[behind[position]], tables.pair_slots)
    ranks[position] = rank
    if rank >= NO_RANK:
        return
    entry = sizes[0]
    sizes[0] += 1
    entries[entry, 0], entries[entry, 1] = position, -1
    if first[rank] < 0:
        first[rank] = entry
        _push(heap, sizes[1], rank)
        sizes[1] += 1
    else:
        entries[last[rank], 1] = entry
    last[rank] = entry


@inlined
def _merge_at(left, length, tables, space):
    """Merge the pair that begins at ``left``; rank the two pairs that this makes."""
    symbols, ranks, before, behind = space.ids, space.ranks, space.before, space.behind
    right = np.int64(behind[left])
    symbols[left] = np.uint32(256) + ranks[left]
    ranks[right] = NO_RANK
    behind[left] = behind[right]
    if behind[left] < length:
        before[behind[left]] = left
    _rank_pair(left, length, tables, space)
    if before[left] >= 0:
        _rank_pair(np.int64(before[left]), length, tables, space)


@called
def _merge_by_lists(buffer, start, length, tables, space, out, at):
    """As ``_merge_by_bits``, for a word of any length that ``space`` has room for.

    Every rank keeps a list of the positions of its pair, and a heap tells the lowest rank that has one. What a merge
    makes is of higher rank than the merge, so the whole list can be merged at once: each position is visited a few
    times, and only the ranks, not the positions, need sorting. The order of a list matters where pairs of one token
    with itself overlap (aaa): there the run is merged from its left end.
    """
    symbols, ranks, before, behind, entries, first, _, heap, sizes = space
    sizes[0] = sizes[1] = 0
    for i in range(length):
        symbols[i] = buffer[start + i]
        before[i], behind[i] = i - 1, i + 1
    for i in range(length):
        _rank_pair(i, length, tables, space)
    while sizes[1] > 0:
        rank = _pop(heap, sizes[1])
        sizes[1] -= 1
        entry = np.int64(first[rank])
        first[rank] = -1
        while entry >= 0:
            position = np.int64(entries[entry, 0])
            entry = np.int64(entries[entry, 1])
            if ranks[position] != rank:
                continue
            while before[position] >= 0 and ranks[before[position]] == rank:
                position = np.int64(before[position])
            while position < length and ranks[position] == rank:
                _merge_at(position, length, tables, space)
                position = np.int64(behind[position])
    position = np.int64(0)
    while position < length:
        out[at] = tables.ids[symbols[position]]
        at += 1
        position = np.int64(behind[position])
    return at


@called
def merge_word(buffer, start, length, tables, space, out, at):
    """Write the tokens of the word at ``start`` to ``out`` from ``at`` on; return the position behind the last.

    ``out`` and ``space`` need room for ``length`` symbols: while merging, each may hold one symbol a byte.
    """
    if length <= LANES:
        return _merge_in_lanes(buffer, start, length, tables, space, out, at)
    if length <= SCAN_LIMIT:
        return _merge_by_bits(buffer, start, length, tables, space, out, at)
    return _merge_by_lists(buffer, start, length, tables, space, out, at)
