"""Counting the distinct words of a corpus, the first half of training a vocabulary.

``WordCounter`` keeps each word once, with its count in 64 bits, so its memory follows the number of distinct words,
not the corpus. Every thread counts into tables of its own, which are added up at the end: sums do not depend on the
number of threads, nor on the order of the texts.

Words of at most fifteen bytes are two integers in an open-addressing table; longer ones are bytes in a pool that a
second table points into. A kernel that runs out of room stops at a word, the table is doubled, and the kernel goes
on.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..runtime.decorators import kernel
from ..runtime.threads import count as thread_count
from .bits import PAD, SHORT, called, copy_items, hash_bytes, hash_pair, inlined, same_bytes, short_key
from .pretokenizer import character_classes, word_end
from .texts import balanced, utf8_buffer

_HALF = np.uint64(32)
_BATCH = 1 << 23  # bytes of text that are handed to the threads at once
_DONE, _SHORT_FULL, _LONG_FULL, _POOL_FULL = range(4)
_N_SHORT, _N_LONG, _POOL_USED, _TEXT, _POSITION = range(5)  # fields of the state of a count


@inlined
def _short_slot(low, high, short):
    """Index of the word's entry, or of the empty one where it belongs."""
    mask = np.int64(short.size // 3 - 1)
    slot = np.int64(hash_pair(low, high) >> _HALF) & mask
    while short[3 * slot + 1] != 0 and (short[3 * slot] != low or short[3 * slot + 1] != high):
        slot = (slot + 1) & mask
    return 3 * slot


@inlined
def _add_word(buffer, start, length, count, short, long, pool, state):
    """Add ``count`` to a word's entry; return _DONE, or what is full, with nothing changed."""
    if length <= SHORT:
        low, high = short_key(buffer, start, length)
        entry = _short_slot(low, high, short)
        if short[entry + 1] == 0:
            if 6 * state[_N_SHORT] >= short.size:
                return _SHORT_FULL
            state[_N_SHORT] += 1
            short[entry], short[entry + 1] = low, high
        short[entry + 2] += np.uint64(count)
        return _DONE
    return _add_long(buffer, start, length, count, long, pool, state)


@called
def _add_long(buffer, start, length, count, long, pool, state):
    mixed = hash_bytes(buffer, start, length)
    mask = np.int64(long.shape[0] - 1)
    slot = np.int64(mixed >> _HALF) & mask
    while long[slot, 2] != 0:
        same = np.uint64(long[slot, 0]) == mixed and long[slot, 2] == length
        if same and same_bytes(buffer, start, pool, long[slot, 1], length):
            long[slot, 3] += count
            return _DONE
        slot = (slot + 1) & mask
    if 2 * state[_N_LONG] >= long.shape[0]:
        return _LONG_FULL
    if state[_POOL_USED] + length + PAD > pool.size:
        return _POOL_FULL
    copy_items(buffer, start, pool, state[_POOL_USED], length)
    long[slot, 0], long[slot, 1] = np.int64(mixed), state[_POOL_USED]
    long[slot, 2], long[slot, 3] = length, count
    state[_N_LONG] += 1
    state[_POOL_USED] += length
    return _DONE


@kernel(_nrt=False)
def _count_texts(buffer, starts, stops, classes, short, long, pool, state):
    """Count the words of the texts from state[_TEXT], state[_POSITION] on, until the end or until something is full."""
    for text in range(state[_TEXT], starts.size):
        position = max(starts[text], state[_POSITION])
        while position < stops[text]:
            end = word_end(buffer, position, stops[text], classes)
            status = _add_word(buffer, position, end - position, np.int64(1), short, long, pool, state)
            if status != _DONE:
                state[_TEXT], state[_POSITION] = text, position
                return status
            position = end
    return _DONE


@kernel(_nrt=False)
def _count_words(buffer, starts, stops, counts, short, long, pool, state):
    """Add words that are split and counted already, from number state[_TEXT] on."""
    for word in range(state[_TEXT], starts.size):
        if counts[word] > 0 and stops[word] > starts[word]:
            status = _add_word(buffer, starts[word], stops[word] - starts[word], counts[word], short, long, pool, state)
            if status != _DONE:
                state[_TEXT] = word
                return status
    return _DONE


@kernel(_nrt=False)
def _grow_short(old, new):
    for entry in range(0, old.size, 3):
        if old[entry + 1] != 0:
            slot = _short_slot(old[entry], old[entry + 1], new)
            new[slot], new[slot + 1], new[slot + 2] = old[entry], old[entry + 1], old[entry + 2]


@kernel(_nrt=False)
def _grow_long(old, new):
    mask = np.int64(new.shape[0] - 1)
    for entry in range(old.shape[0]):
        if old[entry, 2] != 0:
            slot = np.int64(np.uint64(old[entry, 0]) >> _HALF) & mask
            while new[slot, 2] != 0:
                slot = (slot + 1) & mask
            for field in range(4):
                new[slot, field] = old[entry, field]


@kernel(_nrt=False)
def _list_words(short, long, pool, buffer, starts, stops, counts):
    """Write every word and its count; return how many bytes ``buffer`` received."""
    word = 0
    at = np.int64(0)
    for entry in range(0, short.size, 3):
        if short[entry + 1] == 0:
            continue
        length = np.int64(short[entry + 1] >> np.uint64(56))
        for i in range(length):
            part = short[entry] if i < 8 else short[entry + 1]
            buffer[at + i] = np.uint8(part >> np.uint64(8 * (i & 7)) & np.uint64(0xFF))
        starts[word], stops[word], counts[word] = at, at + length, np.int64(short[entry + 2])
        at += length
        word += 1
    for entry in range(long.shape[0]):
        length = long[entry, 2]
        if length == 0:
            continue
        copy_items(pool, long[entry, 1], buffer, at, length)
        starts[word], stops[word], counts[word] = at, at + length, long[entry, 3]
        at += length
        word += 1
    return at


class _Table:
    """The two tables of one thread, and the loop that enlarges them when a kernel asks for it."""

    def __init__(self):
        self.short = np.zeros(3 << 14, dtype=np.uint64)
        self.long = np.zeros((1 << 10, 4), dtype=np.int64)
        self.pool = np.zeros(1 << 16, dtype=np.uint8)
        self.state = np.zeros(5, dtype=np.int64)

    def count(self, kernel, *arguments):
        """Run a counting kernel to its end."""
        self.state[_TEXT] = self.state[_POSITION] = 0
        while status := kernel(*arguments, self.short, self.long, self.pool, self.state):
            if status == _SHORT_FULL:
                larger = np.zeros(2 * self.short.size, dtype=np.uint64)
                _grow_short(self.short, larger)
                self.short = larger
            elif status == _LONG_FULL:
                larger = np.zeros((2 * len(self.long), 4), dtype=np.int64)
                _grow_long(self.long, larger)
                self.long = larger
            else:
                needed = int(max(np.subtract(arguments[2], arguments[1]), default=0))
                self.pool = np.concatenate([self.pool, np.zeros(self.pool.size + needed, dtype=np.uint8)])

    def count_shares(self, buffer, shares):
        """Count the words of the texts in ``shares``, (starts, stops, …) each."""
        for starts, stops, *_ in shares:
            self.count(_count_texts, buffer, starts, stops, character_classes())

    def words(self):
        """(buffer, starts, stops, counts) of all words, in no particular order."""
        n_words = int(self.state[_N_SHORT] + self.state[_N_LONG])
        size = SHORT * int(self.state[_N_SHORT]) + int(self.state[_POOL_USED])
        buffer = np.zeros(size + PAD, dtype=np.uint8)
        starts, stops, counts = (np.empty(n_words, dtype=np.int64) for _ in range(3))
        used = _list_words(self.short, self.long, self.pool, buffer, starts, stops, counts)
        return buffer[: used + PAD], starts, stops, counts


class WordCounter:
    """Counts the words (pre-tokens) of texts.

    >>> counter = WordCounter()
    >>> counter.add(["to be, or", "not to be"])       # any iterable of str; split with GPT-2's pattern
    >>> counter.add_counts({b" question": 2})         # words that another pattern split
    >>> buffer, starts, stops, counts = counter.words()
    """

    def __init__(self, threads=None):
        self._tables = [_Table() for _ in range(threads or thread_count())]

    def add(self, texts):
        """Count the words of every text of an iterable; no word reaches from one text into the next."""
        n_tables = len(self._tables)
        with ThreadPoolExecutor(n_tables) as pool:
            running = []
            for batch in _batches(texts):
                buffer, starts, stops = utf8_buffer(batch)
                shares = balanced(buffer, starts, stops, len(buffer) // (4 * n_tables) + 1)
                for future in running:
                    future.result()
                running = [
                    pool.submit(table.count_shares, buffer, shares[number::n_tables])
                    for number, table in enumerate(self._tables)
                ]
            for future in running:
                future.result()

    def add_counts(self, counts):
        """Add to the count of words, a mapping of bytes to int."""
        for word, count in counts.items():
            if not isinstance(word, bytes):
                raise TypeError(f"a word is {type(word).__name__}; expected bytes")
            if count < 0:
                raise ValueError(f"the count of {word!r} is {count}; expected 0 or more")
        data = np.frombuffer(bytearray().join(counts) + bytes(PAD), dtype=np.uint8)
        stops = np.cumsum(np.fromiter(map(len, counts), dtype=np.int64, count=len(counts)))
        starts = stops - np.fromiter(map(len, counts), dtype=np.int64, count=len(counts))
        values = np.fromiter(counts.values(), dtype=np.int64, count=len(counts))
        self._tables[0].count(_count_words, data, starts, stops, values)

    def words(self):
        """All words so far, in any order: (buffer, starts, stops, counts); word k is ``buffer[starts[k]:stops[k]]``."""
        first, *others = self._tables
        for number, other in enumerate(others, start=1):
            if other.state[_N_SHORT] or other.state[_N_LONG]:
                first.count(_count_words, *other.words())
                self._tables[number] = _Table()
        return first.words()


def _batches(texts):
    """Gather texts into lists of about _BATCH characters."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text) if isinstance(text, str) else _BATCH
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
