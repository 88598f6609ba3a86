"""Words of more than fifteen bytes, and shorter ones of many tokens, with their tokens.

Each has a record, one behind the other in one array: how many tokens, how many bytes, the bytes, then the tokens. An index
says which records may be a word's: buckets of eight slots, each with a part of a word's hash and the record's position, all
compared at once. What decides is the comparison of the bytes. When the array is full, the cache becomes larger
(``word_cache``); one that may not grow any more forgets its records.
"""

import numpy as np

from ..runtime.decorators import kernel
from ..runtime.vectors import prefetch, read, write
from .bits import ENTRY_BYTES, LINE_BYTES, called, choose, copy_bytes, copy_entry, copy_line, inlined, leading_zeros
from .key_lanes import BUCKET, nearest
from .masks import BLOCK, equal_bytes, hash_block
from .merging import merge_word

LONG_BYTES = 62  # of the longest word that has a record

_UNIT = ENTRY_BYTES  # bytes: records and their tokens begin at multiples of it
_HEAD = 3  # bytes before the word's: the numbers of its tokens, of its bytes, and of the record's units
_RESERVE = 6 * BLOCK  # bytes of the largest record, and behind the last that may be read
_POSITION_BITS = np.uint64(24)
_SLOT = np.uint64(2**63 - 1)  # bits of a slot that ``nearest`` compares


@inlined
def _bucket_of(hash, slots):
    """The first slot of the bucket of a word."""
    return np.int64(hash >> np.uint64(leading_zeros(np.uint64(slots.size // BUCKET - 1)))) * BUCKET


@inlined
def _mark_of(hash):
    """A slot's bits above the record's position."""
    return hash << _POSITION_BITS & _SLOT


@inlined
def _rounded(n_bytes):
    """``n_bytes``, rounded up to whole units."""
    return (n_bytes + _UNIT - 1) // _UNIT * _UNIT


@inlined
def find_record(buffer, start, length, cache):
    """Where the record of a word of at most LONG_BYTES bytes would be; 0 for a word that the index does not have."""
    hash = hash_block(buffer, start, length)
    found = nearest(cache.slots, _bucket_of(hash, cache.slots), _mark_of(hash))
    return np.int64(choose(found < np.uint64(cache.room[3]), found, np.uint64(0))) * _UNIT


@inlined
def _index(hash, record, slots):
    """Write a record's position to the front of its word's bucket; the bucket's last slot is forgotten."""
    bucket = _bucket_of(hash, slots)
    for i in range(bucket + BUCKET - 1, bucket, -1):
        write(slots, i, read(slots, i - 1))
    write(slots, bucket, _mark_of(hash) | np.uint64(record // _UNIT))


@inlined
def _is_full(cache):
    return cache.room[3] * _UNIT + _RESERVE > cache.records.size


@called
def _forget(cache):
    """Begin again with the first record."""
    cache.room[3] = 0
    for i in range(cache.slots.size):
        write(cache.slots, i, np.uint64(0))
    write(cache.records, 1, np.uint8(0))  # no word has this length


@called
def _enter(buffer, start, length, cache, out, at, end):
    """Make the record of a word whose tokens are ``out[at:end]``, if there is room; otherwise ask for a larger cache."""
    record, step = cache.room[3] * _UNIT, ENTRY_BYTES // out.itemsize
    if _is_full(cache):
        cache.room[0] += cache.records.size
        return
    tokens_at = record + _rounded(_HEAD + length)
    copy_bytes(cache.records, record + _HEAD, buffer, start, length)
    write(cache.records, record, np.uint8(end - at))
    write(cache.records, record + 1, np.uint8(length))
    for i in range(0, end - at, step):
        copy_entry(out, at + i, cache.records, tokens_at + i * out.itemsize)
    size = tokens_at + _rounded((end - at) * out.itemsize) - record
    write(cache.records, record + 2, np.uint8(size // _UNIT))
    cache.room[3] += size // _UNIT
    _index(hash_block(buffer, start, length), record, cache.slots)


@inlined
def copy_long(buffer, start, length, record, cache, out, at):
    """Copy the tokens of a record, if it is the word's: their number, 0 if it is not. ``length`` may be of any word."""
    left_out = np.uint64(BLOCK - min(length, BLOCK))
    different = ~equal_bytes(buffer, start, cache.records, record + _HEAD) << left_out
    if (read(cache.records, record + 1) != length) | (different != 0):
        return np.int64(0)
    count, step = np.int64(read(cache.records, record)), LINE_BYTES // out.itemsize
    tokens_at = record + _rounded(_HEAD + length)
    copy_line(cache.records, tokens_at, out, at)
    for i in range(step, count, step):
        copy_line(cache.records, tokens_at + i * out.itemsize, out, at + i)
    return count


@called
def merge_long(buffer, start, length, tables, cache, out, at):
    """Tokens of a word that has no record; it gets one if it is short enough. Returns the end."""
    end = merge_word(buffer, start, length, tables, cache.space, out, at)
    if length <= LONG_BYTES:
        _enter(buffer, start, length, cache, out, at, end)
    return end


@called
def prepare_long(bench, first, count, cache):
    """Replace the keys of ``count`` long words by where their records would be, and ask for the cache lines of these.

    The numbers of the words are in ``bench.words``, every fourth integer.
    """
    text, starts, words = bench.text, bench.starts, bench.words
    if _is_full(cache) and cache.room[0] <= cache.room[1]:  # it cannot grow; only here does no word wait for a record
        _forget(cache)
    for i in range(count):
        number = np.int64(read(words, 4 * i + 3))
        start = np.int64(read(starts, first + number))
        length = np.int64(read(starts, first + number + 1)) - start
        record = np.int64(0)
        if length <= LONG_BYTES:
            record = find_record(text, start, length, cache)
            prefetch(cache.records, record)
            prefetch(cache.records, record + LINE_BYTES)
        write(words, 4 * number, np.uint64(0))
        write(words, 4 * number + 1, np.uint64(record))


@kernel(_nrt=False)
def index_records(records, slots, n_units):
    """Enter all records, ``n_units`` in length, into the empty index ``slots``."""
    unit = np.int64(0)
    while unit < n_units:
        record = unit * _UNIT
        _index(hash_block(records, record + _HEAD, np.int64(records[record + 1])), record, slots)
        unit += np.int64(records[record + 2])
