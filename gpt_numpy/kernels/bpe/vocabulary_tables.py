"""A vocabulary laid out for the kernels: ranks of pairs, spelling of short tokens, and which bytes no merge joins."""

import numpy as np

from ...errors import VocabError
from ..runtime.decorators import kernel
from .bits import PAD, SHORT, copy_items
from .key_lanes import BUCKET
from .merging import (
    EMPTY_SLOT,
    JOINED_LEADS,
    JOINED_TABLE,
    MAX_ID,
    MAX_MERGES,
    NO_KEY,
    NO_RANK,
    OVERFULL,
    POSITION_BITS,
    MergeTables,
    first_slot,
    merge_space,
    merge_word,
    pair_key,
    pair_rank,
)

_ONE = np.uint64(1)
ROW = SHORT + 1  # bytes set aside for the spelling of a token


@kernel(_nrt=False)
def _fill_pairs(pairs, pair_slots, byte_keys):
    """Enter every merge; return the first one whose pair is there already, or -1."""
    for rank in range(pairs.shape[0]):
        left, right = pairs[rank, 0], pairs[rank, 1]
        if pair_rank(left, right, pair_slots) < NO_RANK:
            return rank
        key = pair_key(left, right)
        slot = first_slot(key, pair_slots)
        while pair_slots[slot] & ~OVERFULL != EMPTY_SLOT:
            if slot % BUCKET == BUCKET - 1:
                pair_slots[slot] |= OVERFULL
            slot = (slot + 1) & (pair_slots.size - 1)
        pair_slots[slot] = key | np.uint64(rank) | pair_slots[slot] & OVERFULL
        if left < 256 and right < 256:
            byte_keys[left << 8 | right] = np.uint32(rank) << POSITION_BITS
    return -1


@kernel(_nrt=False)
def _spell_words(pairs, out, tables, spelling, lengths, space):
    """Spell every short token, and set the length to 0 of those that their own bytes do not merge to.

    The ids of ``tables`` are the symbols themselves. spelling (ROW * n_symbols + PAD,) uint8 and lengths (n_symbols,)
    hold the single bytes and receive the rest; out: room for a word.
    """
    for rank in range(pairs.shape[0]):
        left, right, new = pairs[rank, 0], pairs[rank, 1], 256 + rank
        length = lengths[left] + lengths[right]
        lengths[new] = min(length, SHORT + 1)
        if length <= SHORT:
            copy_items(spelling, left * ROW, spelling, new * ROW, lengths[left])
            copy_items(spelling, right * ROW, spelling, new * ROW + lengths[left], lengths[right])
    for rank in range(pairs.shape[0]):
        new = 256 + rank
        if lengths[new] <= SHORT:
            end = merge_word(spelling, new * ROW, lengths[new], tables, space, out, 0)
            if end != 1 or out[0] != new:
                lengths[new] = 0
        else:
            lengths[new] = 0


@kernel(_nrt=False)
def _fill_joins(pairs, ends, joins):
    """Mark what merges join; ends (n_symbols, 4) int64: a token's last two bytes and first two, -1 for what it lacks."""
    for rank in range(pairs.shape[0]):
        left, right, new = pairs[rank, 0], pairs[rank, 1], 256 + rank
        before, last, first, behind = ends[left, 0], ends[left, 1], ends[right, 2], ends[right, 3]
        for bit in range(64):
            if (before < 0 or before & 7 == bit >> 3) and (behind < 0 or behind & 7 == bit & 7):
                joins[last << 8 | first] |= np.uint64(1) << np.uint64(bit)
        ends[new, 0] = ends[left, 1] if ends[right, 0] < 0 else ends[right, 0]
        ends[new, 1] = ends[right, 1]
        ends[new, 2] = ends[left, 2]
        ends[new, 3] = ends[right, 2] if ends[left, 3] < 0 else ends[left, 3]


def _note_leads(joins):
    """Fill in what stands in ``joins`` at JOINED_TABLE and JOINED_LEADS."""
    joined = joins.reshape(4, 64, 256).any(axis=0)[:, 0xE0:]  # by the low six bits of the first byte; the lead byte
    bits = _ONE << np.arange(64, dtype=np.uint64)
    table = np.packbits(joined.reshape(64, 4, 8).any(axis=1), axis=1, bitorder="little")
    joins[JOINED_LEADS | 0xE0 :] |= np.bitwise_or.reduce(joined * bits[:, None])
    joins[JOINED_TABLE : JOINED_TABLE + 8] |= table.ravel().view(np.uint64)


def _symbols(byte_ids, pairs, new_ids):
    """The ``pairs`` as symbols: byte values, and 256 + the number of a merge.

    Raises VocabError for wrong shapes, ids out of range, and parts that no earlier merge made.
    """
    if byte_ids.shape != (256,):
        raise VocabError("every byte needs its token", field="byte_ids", found=byte_ids.shape, expected="(256,)")
    if pairs.shape != (len(new_ids), 2):
        raise VocabError("one pair for every new token", field="pairs", found=pairs.shape, expected=(len(new_ids), 2))
    if len(pairs) > MAX_MERGES:
        raise VocabError("too many merges", field="pairs", found=len(pairs), expected=f"at most {MAX_MERGES}")
    made = np.concatenate([byte_ids, new_ids])
    if made.min() < 0 or made.max() > MAX_ID:
        bad = int(made.min() if made.min() < 0 else made.max())
        raise VocabError("token id out of range", found=bad, expected=f"0 to {MAX_ID}")
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
    return made_at[pairs]


def merge_tables(byte_ids, pairs, new_ids):
    """Check a vocabulary and lay it out for the kernels: (``MergeTables``, spelling, lengths).

    byte_ids (256,): the token id of every byte value; pairs (n_merges, 2): the ids that merge r joins, in order of
    rank; new_ids (n_merges,): the id it makes. Ids are below 2**24 and need not be contiguous. Raises VocabError for
    an id made twice, a pair that occurs twice, a merge of something that is not there yet, and more than MAX_MERGES.
    The bytes of symbol s are ``spelling[ROW * s : ROW * s + lengths[s]]``; lengths[s] is 0 where those bytes alone are not
    encoded as one token, and for tokens of more than SHORT bytes.
    """
    byte_ids = np.asarray(byte_ids, dtype=np.int64)
    new_ids = np.asarray(new_ids, dtype=np.int64)
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    symbols = np.ascontiguousarray(_symbols(byte_ids, pairs, new_ids))
    tables = MergeTables(
        ids=np.concatenate([byte_ids, new_ids]).astype(np.uint32),
        byte_keys=np.full(65536, NO_KEY, dtype=np.uint32),
        pair_slots=np.full(1 << (2 * len(pairs) + 16).bit_length(), EMPTY_SLOT, dtype=np.uint64),
        joins=np.zeros(65536, dtype=np.uint64),
    )
    repeated = _fill_pairs(symbols, tables.pair_slots, tables.byte_keys)
    if repeated >= 0:
        raise VocabError(f"merge {repeated} repeats the pair of an earlier one", found=pairs[repeated].tolist())
    n_symbols = 256 + len(pairs)
    ends = np.full((n_symbols, 4), -1, dtype=np.int64)
    ends[:256, 1] = ends[:256, 2] = np.arange(256)
    _fill_joins(symbols, ends, tables.joins)
    _note_leads(tables.joins)
    lengths = np.ones(n_symbols, dtype=np.int64)
    spelling = np.zeros(n_symbols * ROW + PAD, dtype=np.uint8)
    spelling[: 256 * ROW : ROW] = np.arange(256)
    numbers = np.arange(n_symbols, dtype=np.uint32)
    _spell_words(
        symbols, np.zeros(ROW, np.uint32), tables._replace(ids=numbers), spelling, lengths, merge_space(SHORT, 0)
    )
    return tables, spelling, lengths
