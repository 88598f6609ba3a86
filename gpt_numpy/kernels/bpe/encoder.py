"""Encoding kernels: text in UTF-8 to token ids, word by word, through a bounded cache of words already merged.

Natural text repeats its words, so nearly every word costs one hash and one comparison of 32 bytes. The cache is two
tables of fixed size, and a new word takes the place of an older one:

- words of at most fifteen bytes and four tokens: buckets of two neighbouring entries, one cache line; an entry that
  is pushed out of the first place moves to the second (so the second is the older);
- words of up to sixty-four bytes: one entry for every hash.

Other words are merged every time. A cache belongs to one thread at a time; see ``bpe.BPEEncoder``.
"""

from typing import NamedTuple

import numpy as np

from ..runtime.decorators import kernel
from .bits import SHORT, called, copy_items, hash_bytes, hash_pair, inlined, same_bytes, short_key
from .merging import MergeSpace, merge_space, merge_word, whole_word
from .pretokenizer import word_end

N_BUCKETS = 1 << 15  # of short words, two entries each
N_LONG = 1 << 13
LONG_BYTES = 64
SHORT_TOKENS = 4
SPACE = 1 << 12  # bytes of the longest word that can be merged at first

_HALF = np.uint64(32)
_COUNT_SHIFT = np.uint64(60)
_KEY_BITS = np.uint64((1 << 60) - 1)
_TAG_BITS = np.uint64(0xFFFFFFFFFFFF0000)


class WordCache(NamedTuple):
    """Words and their tokens; all zero when empty. It never grows."""

    short: np.ndarray  # (8 * N_BUCKETS,) uint64: entries of low, high | n_tokens << 60, two times two ids
    tags: np.ndarray  # (N_LONG,) uint64: hash | n_tokens << 8 | length in the low 16 bits
    spelling: np.ndarray  # (N_LONG * LONG_BYTES + 8,) uint8
    tokens: np.ndarray  # (N_LONG * LONG_BYTES,) uint32
    space: MergeSpace  # for merging words


def word_cache(n_merges):
    """An empty cache: 2 MiB of short words and 2.5 MiB of longer ones, for at most 65,536 and 8,192 words."""
    return WordCache(
        np.zeros(8 * N_BUCKETS, dtype=np.uint64),
        np.zeros(N_LONG, dtype=np.uint64),
        np.zeros(N_LONG * LONG_BYTES + 8, dtype=np.uint8),
        np.zeros(N_LONG * LONG_BYTES, dtype=np.uint32),
        merge_space(SPACE, n_merges),
    )


@called
def _encode_long(buffer, start, length, tables, cache, out, at):
    """Tokens of a word that the short table does not hold, through the other table where it fits."""
    if length > LONG_BYTES:
        return merge_word(buffer, start, length, tables, cache.space, out, at)
    mixed = hash_bytes(buffer, start, length)
    slot = np.int64(mixed >> _HALF) & (N_LONG - 1)
    tag = cache.tags[slot]
    count = np.int64(tag >> np.uint64(8) & np.uint64(0xFF))
    same = (tag ^ mixed) & _TAG_BITS == 0 and np.int64(tag & np.uint64(0xFF)) == length
    if same and same_bytes(buffer, start, cache.spelling, slot * LONG_BYTES, length):
        copy_items(cache.tokens, slot * LONG_BYTES, out, at, count)
        return at + count
    end = merge_word(buffer, start, length, tables, cache.space, out, at)
    count = end - at
    cache.tags[slot] = mixed & _TAG_BITS | np.uint64(count << 8 | length)
    copy_items(buffer, start, cache.spelling, slot * LONG_BYTES, length)
    copy_items(out, at, cache.tokens, slot * LONG_BYTES, count)
    return end


@called
def _encode_new(buffer, start, length, low, high, bucket, tables, cache, out, at):
    """Tokens of a short word that its bucket does not hold; enter it there if it has few."""
    token = whole_word(low, high, tables.word_slots)
    if token >= 0:
        out[at] = token
        end = at + 1
    else:
        end = _encode_long(buffer, start, length, tables, cache, out, at)
    count = end - at
    if count <= SHORT_TOKENS:
        short = cache.short
        for i in range(4):
            short[bucket + 4 + i] = short[bucket + i]
        short[bucket] = low
        short[bucket + 1] = high | np.uint64(count) << _COUNT_SHIFT
        for i in range(count, SHORT_TOKENS):
            out[at + i] = 0
        short[bucket + 2] = np.uint64(out[at]) | np.uint64(out[at + 1]) << _HALF
        short[bucket + 3] = np.uint64(out[at + 2]) | np.uint64(out[at + 3]) << _HALF
    return end


@inlined
def _encode_word(buffer, start, end, tables, cache, out, at):
    """Write the tokens of one word to ``out`` from ``at`` on; return the position behind the last."""
    length = end - start
    if length > SHORT:
        return _encode_long(buffer, start, length, tables, cache, out, at)
    low, high = short_key(buffer, start, length)
    short = cache.short
    bucket = (np.int64(hash_pair(low, high) >> _HALF) & (N_BUCKETS - 1)) << 3
    if short[bucket] != low or short[bucket + 1] & _KEY_BITS != high:
        bucket += 4
        if short[bucket] != low or short[bucket + 1] & _KEY_BITS != high:
            return _encode_new(buffer, start, length, low, high, bucket - 4, tables, cache, out, at)
    first, second = short[bucket + 2], short[bucket + 3]
    out[at] = np.uint32(first)
    out[at + 1] = np.uint32(first >> _HALF)
    out[at + 2] = np.uint32(second)
    out[at + 3] = np.uint32(second >> _HALF)
    return at + np.int64(short[bucket + 1] >> _COUNT_SHIFT)


@kernel(_nrt=False)
def encode_texts(buffer, starts, stops, classes, tables, cache, out, ends, state):
    """Pre-tokenize and encode several texts: text k is ``buffer[starts[k]:stops[k]]``.

    buffer uint8 with PAD zero bytes behind the last text; starts, stops (n_texts,) int64, where every stop is followed
    by a zero byte or is a cut position (see ``pretokenize``); out uint32 with room for an id a byte and SHORT_TOKENS
    more; ends (n_texts,) int64 receives the end of every text's tokens in ``out``; state (3,) int64: text, position in
    it and tokens so far, zero at first. Returns 0 when all is done, else the length of a word that the cache's work
    space has no room for: with a larger one the next call goes on from there.
    """
    at = state[2]
    for text in range(state[0], starts.size):
        position, stop = max(starts[text], state[1]), stops[text]
        while position < stop:
            end = word_end(buffer, position, stop, classes)
            if end - position > cache.space.ids.size:
                state[0], state[1], state[2] = text, position, at
                return end - position
            at = _encode_word(buffer, position, end, tables, cache, out, at)
            position = end
        ends[text] = at
    return 0


@kernel(_nrt=False)
def encode_words(buffer, starts, stops, tables, cache, out, ends, state):
    """As ``encode_texts`` for words that another pattern has split already: nothing is asked of what follows them."""
    at = state[2]
    for word in range(state[0], starts.size):
        length = stops[word] - starts[word]
        if length > cache.space.ids.size:
            state[0], state[2] = word, at
            return length
        if length > 0:
            at = _encode_word(buffer, starts[word], stops[word], tables, cache, out, at)
        ends[word] = at
    return 0
