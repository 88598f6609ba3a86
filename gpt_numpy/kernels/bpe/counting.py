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
from ..runtime.vectors import prefetch, read, write
from .bits import (
    PAD,
    SHORT,
    called,
    choose,
    copy_bytes,
    copy_items,
    hash_bytes,
    hash_pair,
    inlined,
    same_bytes,
    short_key,
)
from .encoder import AHEAD, scan_chunk, walk_chunk
from .pretokenizer import character_classes, long_word_end
from .texts import Texts, balanced, many_texts
from .walker import NO_MATCH, TOO_SLOW, pattern_error, too_slow, walk_tables, walk_word
from .word_cache import BATCH, CHUNK, LENGTH_SHIFT, bench

_HALF = np.uint64(32)
_FIELDS = 3  # integers of an entry for a short word: its key, its count
_BATCH = 1 << 23  # bytes of text that are handed to the threads at once
_DONE, _SHORT_FULL, _LONG_FULL, _POOL_FULL = range(4)
_N_SHORT, _N_LONG, _POOL_USED, _TEXT, _POSITION = range(5)  # fields of the state of a count


@inlined
def _first_slot(low, high, short):
    """Index of the entry where a word is looked for first."""
    return (np.int64(hash_pair(low, high) >> _HALF) & np.int64(short.size // _FIELDS - 1)) * _FIELDS


@inlined
def _short_slot(low, high, slot, short):
    """Index of the word's entry, or of the empty one where it belongs, from the entry at ``slot`` on."""
    while read(short, slot + 1) != 0 and (read(short, slot) != low or read(short, slot + 1) != high):
        slot += _FIELDS
        if slot == short.size:
            slot = 0
    return slot


@inlined
def _add_short(low, high, slot, count, short, state):
    """Add ``count`` to a short word's entry; return _DONE, or what is full, with nothing changed."""
    entry = _short_slot(low, high, slot, short)
    if read(short, entry + 1) == 0:
        if 2 * _FIELDS * state[_N_SHORT] >= short.size:
            return _SHORT_FULL
        state[_N_SHORT] += 1
        write(short, entry, low)
        write(short, entry + 1, high)
    write(short, entry + 2, read(short, entry + 2) + np.uint64(count))
    return _DONE


@called
def _add_word(buffer, start, length, count, short, long, pool, state):
    """Add ``count`` to a word's entry; return _DONE, or what is full, with nothing changed."""
    if length > SHORT:
        return _add_long(buffer, start, length, count, long, pool, state)
    low, high = short_key(buffer, start, length)
    return _add_short(low, high, _first_slot(low, high, short), count, short, state)


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


@called
def _count_batch(bench, first, count, short, long, pool, state):
    """Count ``count`` words of a chunk from word ``first`` on: (how many were counted, _DONE or what is full)."""
    text, starts, words = bench.text, bench.starts, bench.words
    start = np.int64(read(starts, first))
    for i in range(count):
        end = np.int64(read(starts, first + i + 1))
        low, high = short_key(text, start, end - start)
        slot = _first_slot(low, high, short)
        prefetch(short, slot)
        write(words, 4 * i, low)
        write(words, 4 * i + 1, choose(end - start > SHORT, np.uint64(0), high))
        write(words, 4 * i + 2, np.uint64(slot))
        start = end
    for i in range(count):
        low, high = read(words, 4 * i), read(words, 4 * i + 1)
        if high >> LENGTH_SHIFT != 0:
            status = _add_short(low, high, np.int64(read(words, 4 * i + 2)), 1, short, state)
        else:
            start = np.int64(read(starts, first + i))
            length = np.int64(read(starts, first + i + 1)) - start
            status = _add_long(text, start, length, 1, long, pool, state)
        if status != _DONE:
            return i, status
    return count, np.int64(_DONE)


@called
def _count_chunk(bench, chunk, text, position, short, long, pool, state):
    """Count the words of a chunk of the texts from ``text`` on; where something is full, ``state`` says where to go on."""
    for first in range(0, chunk.n_words, BATCH):
        size = min(BATCH, chunk.n_words - first)
        counted, status = _count_batch(bench, first, size, short, long, pool, state)
        if status != _DONE:
            word, passed = first + counted, 0
            while passed < chunk.n_marks and bench.marks[passed] <= word:
                passed += 1
            state[_TEXT], state[_POSITION] = text + passed, position + bench.starts[word]
            return status
    state[_TEXT], state[_POSITION] = text + chunk.n_marks, position + chunk.size
    return np.int64(_DONE)


@called
def _count_single(source, bounds, stop, long, pool, state):
    """Count the very long word that goes from the position in ``state`` to ``stop``."""
    position = state[_POSITION]
    status = _add_long(source, position, stop - position, 1, long, pool, state)
    if status == _DONE:
        state[_POSITION] = stop
        state[_TEXT] += stop == bounds[state[_TEXT] + 1]
    return status


@kernel(_nrt=False)
def _count_texts(source, bounds, classes, joins, bench, short, long, pool, state):
    """Count the words of texts from state[_TEXT], state[_POSITION] on, until the end or until something is full."""
    end = bounds[bounds.size - 1]
    while state[_TEXT] < bounds.size - 1:
        text, position = state[_TEXT], state[_POSITION]
        size = min(end - position, CHUNK + AHEAD)
        copy_bytes(bench.text, 0, source, position, size)
        chunk = scan_chunk(bounds, text, position, size, classes, joins, bench)
        if chunk.n_marks == 0 and chunk.size == 0:
            stop = long_word_end(source, position, bounds[text + 1], classes)
            status = _count_single(source, bounds, stop, long, pool, state)
        else:
            status = _count_chunk(bench, chunk, text, position, short, long, pool, state)
        if status != _DONE:
            return status
    return np.int64(_DONE)


@kernel(_nrt=False)
def _count_texts_by_walk(source, bounds, walk, joins, bench, short, long, pool, state):
    """As ``_count_texts`` with the words of an automaton; NO_MATCH or TOO_SLOW where that cannot go on."""
    end, first, wasted = bounds[bounds.size - 1], state[_POSITION], np.int64(0)
    while state[_TEXT] < bounds.size - 1:
        text, position = state[_TEXT], state[_POSITION]
        size = min(end - position, CHUNK)
        copy_bytes(bench.text, 0, source, position, size)
        chunk, twice = walk_chunk(bounds, text, position, size, walk, joins, bench)
        if chunk.n_marks == 0 and chunk.size == 0:
            limit = bounds[text + 1]
            stop, walked = walk_word(source, position, limit, limit, walk)
            twice = walked - stop
            if stop == position:
                return np.int64(NO_MATCH)
            status = _count_single(source, bounds, stop, long, pool, state)
        else:
            status = _count_chunk(bench, chunk, text, position, short, long, pool, state)
        if status != _DONE:
            return status
        wasted += twice
        if too_slow(wasted, state[_POSITION] - first):
            return np.int64(TOO_SLOW)
    return np.int64(_DONE)


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
            low, high = old[entry], old[entry + 1]
            slot = _short_slot(low, high, _first_slot(low, high, new), new)
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
        length = np.int64(short[entry + 1] >> LENGTH_SHIFT)
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
        self.bench = bench()

    def count(self, kernel, longest, *arguments, position=0):
        """Run a counting kernel to its end; longest: most bytes that a word may have. Returns _DONE or an error."""
        self.state[_TEXT], self.state[_POSITION] = 0, position
        while status := kernel(*arguments, self.short, self.long, self.pool, self.state):
            if status < 0:
                return status
            if status == _SHORT_FULL:
                larger = np.zeros(2 * self.short.size, dtype=np.uint64)
                _grow_short(self.short, larger)
                self.short = larger
            elif status == _LONG_FULL:
                larger = np.zeros((2 * len(self.long), 4), dtype=np.int64)
                _grow_long(self.long, larger)
                self.long = larger
            else:
                self.pool = np.concatenate([self.pool, np.zeros(self.pool.size + longest, dtype=np.uint8)])

    def count_texts(self, texts, finder):
        """Count the words of ``texts`` (a ``Texts``); finder: kernel, what divides texts into words, ``joins``."""
        kernel, *splitting = finder
        longest = int(np.diff(texts.bounds).max(initial=0))
        arguments = texts.source, texts.bounds, *splitting, self.bench
        if status := self.count(kernel, longest, *arguments, position=int(texts.bounds[0])):
            raise pattern_error(status, texts, self.state[_TEXT:], None)

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

    automaton: the ``Automaton`` of another pattern that ``add`` uses.
    """

    def __init__(self, threads=None, automaton=None):
        self._tables = [_Table() for _ in range(threads or thread_count())]
        self._cuts = automaton is None
        everywhere = np.full(
            65536, 2**64 - 1, dtype=np.uint64
        )  # words are not divided where no merge joins their bytes
        self._finder = _count_texts, character_classes(), everywhere
        if automaton is not None:
            self._finder = _count_texts_by_walk, walk_tables(automaton), everywhere

    def add(self, texts):
        """Count the words of every text of an iterable; no word reaches from one text into the next."""
        n_tables = len(self._tables)
        with ThreadPoolExecutor(n_tables) as pool:
            running = []
            for batch in _batches(texts):
                joined = many_texts(batch)
                source, bounds, _ = joined
                size = len(source) // (4 * n_tables) + 1
                groups = balanced(source, bounds[:-1], bounds[1:], size, self._cuts)
                shares = [Texts(source, np.append(first, last[-1:]), joined) for first, last, _ in groups]
                for future in running:
                    future.result()
                running = [
                    pool.submit(self._count_shares, table, shares[number::n_tables])
                    for number, table in enumerate(self._tables)
                ]
            for future in running:
                future.result()

    def _count_shares(self, table, shares):
        for share in shares:
            table.count_texts(share, self._finder)

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
        self._tables[0].count(_count_words, int((stops - starts).max(initial=0)), data, starts, stops, values)

    def words(self):
        """All words so far, in any order: (buffer, starts, stops, counts); word k is ``buffer[starts[k]:stops[k]]``."""
        first, *others = self._tables
        for number, other in enumerate(others, start=1):
            if other.state[_N_SHORT] or other.state[_N_LONG]:
                buffer, starts, stops, counts = other.words()
                first.count(_count_words, int((stops - starts).max()), buffer, starts, stops, counts)
                self._tables[number] = _Table()
        return first.words()


def _batches(texts):
    """Gather texts into lists of about _BATCH characters."""
    batch, size = [], 0
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {number} is {type(text).__name__}; expected str")
        batch.append(text)
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
