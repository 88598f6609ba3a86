"""New words of a batch, merged four at a time.

Merging a word is a chain of look-ups, each of which waits for the one before. Four words side by side keep the processor
busy while each of them waits. Nothing branches on a word: one that is finished goes on without a change until all four are.
"""

import numpy as np

from ..runtime.vectors import read, write
from .bits import ENTRY_BYTES, called, choose, count_bits, inlined, leading_zeros, trailing_zeros
from .key_lanes import LANES, keep_keys, least_key, load_keys, same_entries, with_key
from .merging import NO_KEY, NO_SYMBOL, POSITION_BITS, pair_rank
from .word_cache import COUNT_SHIFT, LENGTH_SHIFT, enter

MANY = 4  # new words of a batch that make it worth while to merge those of the next batch together

_ONE = np.uint64(1)
_POSITION = np.uint32(63)
_ENDS = np.uint64(3 << LANES)  # bits of the two symbols behind a word, which no pair contains
_LAST = np.uint64(2 << LANES)
_TOKENS = np.uint64((1 << LANES) - 1)
_WIDTH = LANES + 8  # symbols set aside for a word: one in front, LANES, two behind
_NO_LANE = np.int64(LANES)


@called
def _new_words(bench, count, short):
    """Write the numbers of the batch's short words that ``short`` does not hold to ``bench.misses``; returns how many."""
    words, n = bench.words, 0
    for i in range(count):
        same = same_entries(short, np.int64(read(words, 4 * i + 2)), words, 4 * i)
        write(bench.misses, n, np.int64(i))
        n += (same == 0) & (read(words, 4 * i + 1) >> LENGTH_SHIFT != 0)
    return n


@inlined
def _begin(bench, word, tables, symbols, base):
    """Lay out a word from ``base`` on: (keys of its pairs, bits of its symbols)."""
    start = np.int64(read(bench.starts, word))
    length = np.int64(read(bench.starts, word + 1)) - start
    last = np.int64(read(bench.text, start))
    for i in range(LANES):
        byte = np.int64(read(bench.text, start + i + 1))
        write(symbols, base + 1 + i, np.uint32(last))
        write(bench.pair_keys, base + i, read(tables.byte_keys, last << 8 | byte) | np.uint32(i))
        last = byte
    for i in (0, LANES + 1, LANES + 2):
        write(symbols, base + i, NO_SYMBOL)
    keys = keep_keys(load_keys(bench.pair_keys, base), length - 1, NO_KEY)
    return keys, ((_ONE << np.uint64(length)) - _ONE) | _ENDS


@inlined
def _step(keys, alive, symbols, base, slots):
    """Merge the pair of the least key, if there is one: (keys, bits of the symbols, whether there was one)."""
    key = least_key(keys)
    going = key < NO_KEY
    left = np.int64(key & _POSITION)
    at_left = _ONE << np.uint64(left)
    above = alive & ~(at_left | (at_left - _ONE))
    right, behind = trailing_zeros(above), trailing_zeros(above & (above - _ONE))
    before = 63 - leading_zeros(alive & (at_left - _ONE))
    merged = np.uint32(np.uint32(256) + (key >> POSITION_BITS))
    new = choose(going, merged, read(symbols, base + 1 + left))
    write(symbols, base + 1 + left, new)
    rank_left = pair_rank(new, read(symbols, base + 1 + behind), slots)
    rank_before = pair_rank(read(symbols, base + 1 + before), new, slots)
    key_left = np.uint32(rank_left << POSITION_BITS | np.uint32(left))
    key_before = np.uint32(rank_before << POSITION_BITS | np.uint32(before & 63))
    keys = with_key(keys, choose(going, right, _NO_LANE), NO_KEY)
    keys = with_key(keys, choose(going, left, _NO_LANE), key_left)
    keys = with_key(keys, choose(going, before, _NO_LANE), key_before)
    return keys, alive ^ choose(going, _ONE << np.uint64(right), np.uint64(0)), going


@inlined
def _half_entry(symbols, base, alive, ids, itemsize):
    """The next tokens of a word, as many as eight bytes hold: (them, bits of the symbols that are left)."""
    tokens = np.uint64(0)
    for i in range(8 // itemsize):
        symbol = read(symbols, base + 1 + trailing_zeros(alive))
        token = read(ids, np.int64(choose(symbol != NO_SYMBOL, symbol, np.uint32(0))))
        tokens |= np.uint64(token) << np.uint64(8 * itemsize * i)
        alive = alive & (alive - _ONE) | _LAST
    return tokens, alive


@inlined
def _finish(bench, number, alive, base, tables, cache, itemsize):
    """Enter the word ``number`` of the batch, unless it is there by now or has more tokens than an entry."""
    symbols, words = bench.symbols, bench.words
    low, high, line = read(words, 4 * number), read(words, 4 * number + 1), np.int64(read(words, 4 * number + 2))
    count = count_bits(alive & _TOKENS)
    first, rest = _half_entry(symbols, base, alive, tables.ids, itemsize)
    second, rest = _half_entry(symbols, base, rest, tables.ids, itemsize)
    if same_entries(cache.short, line, words, 4 * number) & _ONE == 0 and count <= ENTRY_BYTES // itemsize:
        enter(cache.short, line, low, high | np.uint64(count) << COUNT_SHIFT, first, second)
        cache.room[0] += 1


@called
def merge_new_words(bench, first, count, tables, cache, itemsize):
    """Enter the short words that are new among the ``count`` words of the batch that begins with word ``first``.

    itemsize: bytes of a token.
    """
    n = _new_words(bench, count, cache.short)
    symbols, slots, misses = bench.symbols, tables.pair_slots, bench.misses
    for i in range(3):  # fill up the last four words
        write(misses, n + i, read(misses, max(n - 1, 0)))
    for i in range(0, n, 4):
        a, b, c, d = read(misses, i), read(misses, i + 1), read(misses, i + 2), read(misses, i + 3)
        keys_a, alive_a = _begin(bench, first + a, tables, symbols, 0)
        keys_b, alive_b = _begin(bench, first + b, tables, symbols, _WIDTH)
        keys_c, alive_c = _begin(bench, first + c, tables, symbols, 2 * _WIDTH)
        keys_d, alive_d = _begin(bench, first + d, tables, symbols, 3 * _WIDTH)
        going = True
        while going:
            keys_a, alive_a, going_a = _step(keys_a, alive_a, symbols, 0, slots)
            keys_b, alive_b, going_b = _step(keys_b, alive_b, symbols, _WIDTH, slots)
            keys_c, alive_c, going_c = _step(keys_c, alive_c, symbols, 2 * _WIDTH, slots)
            keys_d, alive_d, going_d = _step(keys_d, alive_d, symbols, 3 * _WIDTH, slots)
            going = going_a | going_b | going_c | going_d
        _finish(bench, a, alive_a, 0, tables, cache, itemsize)
        _finish(bench, b, alive_b, _WIDTH, tables, cache, itemsize)
        _finish(bench, c, alive_c, 2 * _WIDTH, tables, cache, itemsize)
        _finish(bench, d, alive_d, 3 * _WIDTH, tables, cache, itemsize)
