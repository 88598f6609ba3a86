"""Byte-pair merging of one word: always the pair of lowest rank, the leftmost of several.

The plain twin is in ``gpt_numpy.tokenizer``. Two kernels give the same tokens. Words of ordinary length keep their
symbols in an array and look for the best pair again after every merge, which is quadratic but quick when there are
a dozen. Longer words keep linked lists of symbols and, for every rank, of positions: the time is that of their length.

Merge r turns the pair ``pairs[r]`` into ``new_ids[r]``; its rank is r.
"""

from typing import NamedTuple

import numpy as np

from ...errors import VocabError
from ..runtime.decorators import kernel
from .bits import PAD, SHORT, called, copy_items, hash_pair, inlined, short_key

NO_RANK = np.uint32(0xFFFFFFFF)
SCAN_LIMIT = 48  # bytes up to which searching the whole word for the best pair beats keeping lists

_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_HALF = np.uint64(32)
_MAX_ID = 2**24 - 1  # the tables' memory follows the largest id
_ROW = SHORT + 1  # bytes set aside for the spelling of a token


class MergeTables(NamedTuple):
    """A vocabulary as the kernels read it; built and checked by ``merge_tables``, read-only afterwards."""

    byte_ids: np.ndarray  # (256,) uint32: the token of every byte
    new_ids: np.ndarray  # (n_merges,) uint32
    byte_ranks: np.ndarray  # (65536,) uint32: rank of the pair of bytes first << 8 | second
    pair_slots: np.ndarray  # (2 * n_slots,) uint64: left << 32 | right, rank; open addressing
    word_slots: np.ndarray  # (3 * n_slots,) uint64: the two integers of a short token's bytes, its id
    joins: np.ndarray  # (65536,) uint64: the bytes that may surround a pair of bytes that a merge brings together


class MergeSpace(NamedTuple):
    """Work space for merging words of up to ``ids.size`` bytes."""

    ids: np.ndarray  # (size,) uint32
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
def pair_rank(left, right, pair_slots):
    """Rank of the pair of token ids, or NO_RANK."""
    key = np.uint64(left) << _HALF | np.uint64(right)
    mask = np.int64(pair_slots.size // 2 - 1)
    slot = np.int64(hash_pair(key, key) >> _HALF) & mask
    while True:
        found = pair_slots[2 * slot]
        if found == key:
            return np.uint32(pair_slots[2 * slot + 1])
        if found == _EMPTY:
            return NO_RANK
        slot = (slot + 1) & mask


@inlined
def whole_word(low, high, word_slots):
    """Id of the token with that short key, or -1."""
    mask = np.int64(word_slots.size // 3 - 1)
    slot = np.int64(hash_pair(low, high) >> _HALF) & mask
    while word_slots[3 * slot + 1] != 0:
        if word_slots[3 * slot] == low and word_slots[3 * slot + 1] == high:
            return np.int64(word_slots[3 * slot + 2])
        slot = (slot + 1) & mask
    return -1


@called
def _merge_by_scan(buffer, start, length, tables, ranks, out, at):
    """Merge a word of at most SCAN_LIMIT bytes into ``out`` from ``at`` on; return the position behind."""
    for i in range(length):
        out[at + i] = tables.byte_ids[buffer[start + i]]
    for i in range(length - 1):
        ranks[i] = tables.byte_ranks[np.int64(buffer[start + i]) << 8 | np.int64(buffer[start + i + 1])]
    n = length
    while n > 1:
        best, where = NO_RANK, 0
        for i in range(n - 1):
            if ranks[i] < best:
                best, where = ranks[i], i
        if best == NO_RANK:
            break
        n -= 1
        out[at + where] = tables.new_ids[best]
        for i in range(where + 1, n):
            out[at + i] = out[at + i + 1]
            ranks[i - 1] = ranks[i]
        if where > 0:
            ranks[where - 1] = pair_rank(out[at + where - 1], out[at + where], tables.pair_slots)
        if where + 1 < n:
            ranks[where] = pair_rank(out[at + where], out[at + where + 1], tables.pair_slots)
    return at + n


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
    ids, ranks, _, behind, entries, first, last, heap, sizes = space
    rank = NO_RANK
    if behind[position] < length:
        rank = pair_rank(ids[position], ids[behind[position]], tables.pair_slots)
    ranks[position] = rank
    if rank == NO_RANK:
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
    ids, ranks, before, behind = space.ids, space.ranks, space.before, space.behind
    right = np.int64(behind[left])
    ids[left] = tables.new_ids[ranks[left]]
    ranks[right] = NO_RANK
    behind[left] = behind[right]
    if behind[left] < length:
        before[behind[left]] = left
    _rank_pair(left, length, tables, space)
    if before[left] >= 0:
        _rank_pair(np.int64(before[left]), length, tables, space)


@called
def _merge_by_lists(buffer, start, length, tables, space, out, at):
    """As ``_merge_by_scan``, for a word of any length that ``space`` has room for.

    Every rank keeps a list of the positions of its pair, and a heap tells the lowest rank that has one. What a merge
    makes is of higher rank than the merge, so the whole list can be merged at once: each position is visited a few
    times, and only the ranks, not the positions, need sorting. The order of a list matters where pairs of one token
    with itself overlap (aaa): there the run is merged from its left end.
    """
    ids, ranks, before, behind, entries, first, _, heap, sizes = space
    sizes[0] = sizes[1] = 0
    for i in range(length):
        ids[i] = tables.byte_ids[buffer[start + i]]
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
        out[at] = ids[position]
        at += 1
        position = np.int64(behind[position])
    return at


@called
def merge_word(buffer, start, length, tables, space, out, at):
    """Write the tokens of the word at ``start`` to ``out`` from ``at`` on; return the position behind the last.

    ``out`` and ``space`` need room for ``length`` symbols: while merging, each may hold one symbol a byte.
    """
    if length <= SCAN_LIMIT:
        return _merge_by_scan(buffer, start, length, tables, space.ranks, out, at)
    return _merge_by_lists(buffer, start, length, tables, space, out, at)


@kernel(_nrt=False)
def _fill_pairs(pairs, byte_of_id, pair_slots, byte_ranks):
    """Enter every merge; return the first one whose pair is there already, or -1."""
    mask = np.int64(pair_slots.size // 2 - 1)
    for rank in range(pairs.shape[0]):
        left, right = pairs[rank, 0], pairs[rank, 1]
        if pair_rank(left, right, pair_slots) != NO_RANK:
            return rank
        key = np.uint64(left) << _HALF | np.uint64(right)
        slot = np.int64(hash_pair(key, key) >> _HALF) & mask
        while pair_slots[2 * slot] != _EMPTY:
            slot = (slot + 1) & mask
        pair_slots[2 * slot] = key
        pair_slots[2 * slot + 1] = np.uint64(rank)
        if byte_of_id[left] >= 0 and byte_of_id[right] >= 0:
            byte_ranks[byte_of_id[left] << 8 | byte_of_id[right]] = rank
    return -1


@kernel(_nrt=False)
def _fill_words(pairs, tables, spelling, lengths, space):
    """Enter every short token that its own bytes merge to, so that such a word needs no merging.

    spelling (n_ids * _ROW,) uint8 and lengths (n_ids,) hold the single bytes and receive the bytes of the other tokens;
    the length of one that is too long stays SHORT + 1.
    """
    mask = np.int64(tables.word_slots.size // 3 - 1)
    out = space.ids
    for rank in range(pairs.shape[0]):
        left, right, new = pairs[rank, 0], pairs[rank, 1], np.int64(tables.new_ids[rank])
        length = lengths[left] + lengths[right]
        if length > SHORT:
            lengths[new] = SHORT + 1
            continue
        lengths[new] = length
        row = new * _ROW
        copy_items(spelling, left * _ROW, spelling, row, lengths[left])
        copy_items(spelling, right * _ROW, spelling, row + lengths[left], lengths[right])
        if _merge_by_scan(spelling, row, length, tables, space.ranks, out, 0) != 1 or out[0] != new:
            continue
        low, high = short_key(spelling, row, length)
        slot = np.int64(hash_pair(low, high) >> _HALF) & mask
        while tables.word_slots[3 * slot + 1] != 0:
            slot = (slot + 1) & mask
        tables.word_slots[3 * slot] = low
        tables.word_slots[3 * slot + 1] = high
        tables.word_slots[3 * slot + 2] = np.uint64(new)


@kernel(_nrt=False)
def _fill_joins(pairs, new_ids, ends, joins):
    """Mark what merges join; ends (n_ids, 4) int64: a token's last two bytes and first two, -1 for what it lacks."""
    for rank in range(pairs.shape[0]):
        left, right, new = pairs[rank, 0], pairs[rank, 1], np.int64(new_ids[rank])
        before, last, first, behind = ends[left, 0], ends[left, 1], ends[right, 2], ends[right, 3]
        for bit in range(64):
            if (before < 0 or before & 7 == bit >> 3) and (behind < 0 or behind & 7 == bit & 7):
                joins[last << 8 | first] |= np.uint64(1) << np.uint64(bit)
        ends[new, 0] = ends[left, 1] if ends[right, 0] < 0 else ends[right, 0]
        ends[new, 1] = ends[right, 1]
        ends[new, 2] = ends[left, 2]
        ends[new, 3] = ends[right, 2] if ends[left, 3] < 0 else ends[left, 3]


def _check(byte_ids, pairs, new_ids):
    """Refuse arguments that the kernels cannot index: wrong shapes, ids out of range, parts that no earlier merge made."""
    if byte_ids.shape != (256,):
        raise VocabError("every byte needs its token", field="byte_ids", found=byte_ids.shape, expected="(256,)")
    if pairs.shape != (len(new_ids), 2):
        raise VocabError("one pair for every new token", field="pairs", found=pairs.shape, expected=(len(new_ids), 2))
    made = np.concatenate([byte_ids, new_ids])
    if made.min() < 0 or made.max() > _MAX_ID:
        bad = int(made.min() if made.min() < 0 else made.max())
        raise VocabError("token id out of range", found=bad, expected=f"0 to {_MAX_ID}")
    order = np.argsort(made, kind="stable")
    repeated = np.flatnonzero(np.diff(made[order]) == 0)
    if len(repeated):
        raise VocabError("a token is made twice", found=int(made[order[repeated[0]]]))
    made_at = np.full(int(made.max()) + 1, len(made), dtype=np.int64)
    made_at[made] = np.arange(len(made))
    outside = (pairs < 0) | (pairs >= len(made_at))
    late = outside | (made_at[np.where(outside, 0, pairs)] >= 256 + np.arange(len(pairs))[:, None])
    if late.any():
        rank = int(np.flatnonzero(late.any(axis=1))[0])
        raise VocabError(f"merge {rank} joins a token that no earlier merge has made", found=pairs[rank].tolist())


def merge_tables(byte_ids, pairs, new_ids):
    """Check a vocabulary and lay it out for the kernels.

    byte_ids (256,): the token id of every byte value; pairs (n_merges, 2): the ids that merge r joins, in order of
    rank; new_ids (n_merges,): the id it makes. Ids are below 2**24 and need not be contiguous. Raises VocabError for
    an id made twice, a pair that occurs twice, and a merge of something that is not there yet.
    """
    byte_ids = np.asarray(byte_ids, dtype=np.int64)
    new_ids = np.asarray(new_ids, dtype=np.int64)
    pairs = np.ascontiguousarray(np.asarray(pairs, dtype=np.int64).reshape(-1, 2))
    _check(byte_ids, pairs, new_ids)
    n_ids = int(max(byte_ids.max(), new_ids.max(initial=0))) + 1
    byte_of_id = np.full(n_ids, -1, dtype=np.int64)
    byte_of_id[byte_ids] = np.arange(256)
    n_slots = 1 << (2 * len(pairs) + 16).bit_length()
    tables = MergeTables(
        byte_ids=byte_ids.astype(np.uint32),
        new_ids=new_ids.astype(np.uint32),
        byte_ranks=np.full(65536, NO_RANK, dtype=np.uint32),
        pair_slots=np.full(2 * n_slots, _EMPTY, dtype=np.uint64),
        word_slots=np.zeros(3 * n_slots, dtype=np.uint64),
        joins=np.zeros(65536, dtype=np.uint64),
    )
    repeated = _fill_pairs(pairs, byte_of_id, tables.pair_slots, tables.byte_ranks)
    if repeated >= 0:
        raise VocabError(f"merge {repeated} repeats the pair of an earlier one", found=pairs[repeated].tolist())
    ends = np.full((n_ids, 4), -1, dtype=np.int64)
    ends[byte_ids, 1] = ends[byte_ids, 2] = np.arange(256)
    _fill_joins(pairs, tables.new_ids, ends, tables.joins)
    lengths = np.zeros(n_ids, dtype=np.int64)
    lengths[byte_ids] = 1
    spelling = np.zeros(n_ids * _ROW + PAD, dtype=np.uint8)
    spelling[byte_ids * _ROW] = np.arange(256)
    _fill_words(pairs, tables, spelling, lengths, merge_space(SHORT, 0))
    return tables
