"""Fast exact byte-level BPE: the engine behind ``gpt_numpy.tokenizer``, whose plain-Python code is its specification.

>>> encoder = BPEEncoder(byte_ids, pairs, new_ids)           # checks the vocabulary once
>>> encoder.encode("hello world")                            # list of int
>>> encoder.encode_to_array("hello world")                   # uint16 or uint32 array
>>> encoder.encode_batch(["hello", "world"])                 # a list for every text, on all cores

``BPEEncoder`` splits with GPT-2's pattern, or with the automaton of another pattern; words of patterns that have none go
through ``encode_words``. One encoder may be used from several threads at once: what they share is read-only, and every
call borrows a word cache of its own.
"""

import functools
import itertools
import threading

import numpy as np
from numba import typeof

from ...errors import TokenizerError
from ..runtime.listing import integers, listed, listed_rows
from ..runtime.threads import count as thread_count
from .encoder import TOO_MANY_WORDS, encode_texts, encode_texts_by_walk, encode_words
from .merging import merge_space
from .pretokenizer import character_classes, split
from .sharing import in_turn
from .texts import Texts, balanced, many_texts, one_text, surrogate_error
from .vocabulary_tables import merge_tables
from .walker import pattern_error, walk_tables
from .word_cache import CHUNK, OUT_SLACK, bench, grown, known_words, new_cache

LONGEST_WORD = 1 << 29  # bytes; merging it takes 40 times as many
_PIECE = 1 << 18  # bytes that are worth a task of their own
_SHORT_TEXT = CHUNK // 8  # characters
_FEW = 1000  # ids of which NumPy makes a list before a table of integers is made
_BLANKS = b" \n\t"


class _Desk:
    """The memory of one encoding thread: a word cache, work space, and the arguments for one short text, made once.

    For a text of some words, making arrays and letting numba find the machine code for their types would take ten
    times as long as encoding. So the code is looked up here, for arguments whose types never change.
    """

    def __init__(self, tables, known, dtype, finder, n_desks):
        self._n_desks = n_desks
        self.cache, self.bench = new_cache(known, merge_space(CHUNK, tables.ids.size - 256)), bench()
        buffer = np.zeros(4 * _SHORT_TEXT, dtype=np.uint8)  # a character has four bytes at most
        self._text = memoryview(buffer)
        self._bounds, self._state = np.zeros(2, dtype=np.int64), np.zeros(4, dtype=np.int64)
        self._end, self._out = np.zeros(1, dtype=np.int64), np.empty(buffer.size + OUT_SLACK, dtype=dtype)
        kernel, splitting = finder
        self._before, self._behind = (buffer, self._bounds, splitting, tables), (self.bench, self._out, self._end)
        signature = tuple(map(typeof, (*self._before, self.cache, *self._behind, self._state)))
        kernel.compile(signature)
        self._kernel = kernel.get_overload(signature)

    def encode(self, data):
        """Token ids of at most 4 * _SHORT_TEXT bytes, or None if the pattern leaves something out.

        None of the words is longer than the cache's work space.
        """
        self._text[: len(data)] = data
        self._bounds[1] = len(data)
        self._state[:] = 0
        while status := self._kernel(*self._before, self.cache, *self._behind, self._state):
            if status != TOO_MANY_WORDS:
                return None
            self.grow()
        return self._out[: self._end[0]].tolist()

    def grow(self):
        """Take a larger cache."""
        self.cache = grown(self.cache, self._n_desks())


class BPEEncoder:
    """Encodes text with a vocabulary of byte tokens and ranked merges.

    byte_ids (256,): the id of every byte value; pairs (n_merges, 2): the ids joined by merge r, in order of rank;
    new_ids (n_merges,): the id that merge r makes, 256 + r by default; automaton: the ``Automaton`` of a pattern that
    is not GPT-2's. Raises VocabError (see ``merge_tables``).

    Memory: the tables of the vocabulary (some 6 MB for GPT-2's), and for every thread that has encoded at the same time
    as others a word cache of 5 MiB. The caches grow with the number of distinct words, to 160 MiB together.
    """

    def __init__(self, byte_ids, pairs, new_ids=None, automaton=None):
        self._pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        self._byte_ids = np.asarray(byte_ids, dtype=np.int64)
        self._new_ids = 256 + np.arange(len(self._pairs)) if new_ids is None else np.asarray(new_ids, dtype=np.int64)
        self._tables, spelling, lengths = merge_tables(self._byte_ids, self._pairs, self._new_ids)
        self._desks, self._n_desks = [], 0
        self._cuts = automaton is None
        self._finder = encode_texts, character_classes()
        if automaton is not None:
            self._finder = encode_texts_by_walk, walk_tables(automaton)
        self._n_ids = int(max(self._byte_ids.max(), self._new_ids.max(initial=0))) + 1
        self.dtype = np.dtype(np.uint16 if self._n_ids <= 1 << 16 else np.uint32)
        self._known = known_words(spelling, lengths, self._tables.ids)

    def encode(self, text):
        """Token ids of ``text`` as a list, on the calling thread."""
        if isinstance(text, str) and len(text) <= _SHORT_TEXT:
            return self._encode_short(text)
        return self._listed(self._run_alone(one_text(text))[0])

    def encode_to_array(self, text, threads=1):
        """Token ids (n_tokens,) of ``text`` in ``self.dtype``; the same for every number of threads."""
        return self._run_all(one_text(text), threads)[0]

    def encode_batch(self, texts, threads=None):
        """Token ids of every text, a list of lists, with ``threads`` threads (all cores by default).

        ``texts`` are str (or bytes in UTF-8), or ``Texts``.
        """
        ids, offsets = self.encode_ragged(texts, threads)
        return listed_rows(ids, offsets, self._integers)

    def encode_batch_to_arrays(self, texts, threads=None):
        """As ``encode_batch``, but arrays of ``self.dtype``."""
        ids, offsets = self.encode_ragged(texts, threads)
        return [ids[start:end].copy() for start, end in itertools.pairwise(offsets.tolist())]

    def encode_ragged(self, texts, threads=None):
        """Token ids of all texts in one array of ``self.dtype``, and where each text's begin and end.

        Returns ids (n_tokens,) and offsets (n_texts + 1,) int64; those of text k are
        ``ids[offsets[k]:offsets[k + 1]]``.
        """
        return self._run_all(texts if isinstance(texts, Texts) else many_texts(list(texts)), threads)

    def encode_words(self, words):
        """Token ids (n_tokens,) of ``words`` (bytes, each merged by itself), one after the other."""
        source = np.frombuffer(bytearray().join(words), dtype=np.uint8)  # writable, as texts are: compiled once
        bounds = np.zeros(len(words) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, words), dtype=np.int64, count=len(words)), out=bounds[1:])
        return self._run_alone(Texts(source, bounds, words), whole_words=True)[0]

    def encode_bytes(self, data):
        """Token ids (n_tokens,) of ``data`` (bytes-like), which need not be valid UTF-8.

        Valid data gives the tokens of its text. Otherwise everything from the last word before the first invalid byte
        on (and from the white-space tokens right before that word, if it is white space) is merged as one word, as
        tiktoken does: a pattern over characters has no say on bytes that are none.
        """
        data = bytes(data)
        try:
            return self.encode_to_array(data.decode())
        except UnicodeDecodeError as error:
            valid = data[: error.start]
        bounds = [0, *split(valid).tolist()]
        start = bounds[-2] if len(bounds) > 1 else 0
        tokens = self.encode_words([valid[a:b] for a, b in itertools.pairwise(bounds[:-1])])
        blank, lengths = self._blank_tokens
        last = self.encode_words([valid[start:]])
        if len(last) and blank[last[0]]:
            while len(tokens) and blank[tokens[-1]]:
                start -= int(lengths[tokens[-1]])
                tokens = tokens[:-1]
        return np.concatenate([tokens, self.encode_words([data[start:]])])

    def _listed(self, ids):
        return ids.tolist() if len(ids) < _FEW else listed(ids, self._integers)

    @functools.cached_property
    def _integers(self):
        return integers(self._n_ids)

    @functools.cached_property
    def _blank_tokens(self):
        """(n_ids,) whether a token is all blanks, tabs and line feeds; (n_ids,) its length in bytes."""
        blank, lengths = [False] * self._n_ids, [0] * self._n_ids
        for value, token in enumerate(self._byte_ids.tolist()):
            blank[token], lengths[token] = value in _BLANKS, 1
        for (left, right), token in zip(self._pairs.tolist(), self._new_ids.tolist(), strict=True):
            blank[token], lengths[token] = blank[left] and blank[right], lengths[left] + lengths[right]
        return blank, lengths

    def forget(self):
        """Empty the word caches and free their memory."""
        self._desks.clear()
        self._n_desks = 0

    def _desk(self):
        """An unused desk; the caller appends it to ``_desks`` when done."""
        try:
            return self._desks.pop()  # not after looking whether there is one: another thread may be quicker
        except IndexError:
            self._n_desks += 1
            return _Desk(self._tables, self._known, self.dtype, self._finder, lambda: self._n_desks)

    def _encode_short(self, text):
        """``encode`` for texts of at most _SHORT_TEXT characters, which uses the desk's arrays instead of new ones."""
        try:
            data = text.encode()
        except UnicodeEncodeError:
            raise surrogate_error([text]) from None
        desk = self._desk()
        tokens = desk.encode(data)
        self._desks.append(desk)
        return (
            tokens if tokens is not None else self._listed(self._run_alone(one_text(text))[0])
        )  # which says what is wrong

    def _run(self, texts, out, numbers=None, whole_words=False):
        """Encode texts (or words) on the calling thread into ``out``: ends of every text's ids; errors name ``numbers``.

        ``out`` has room for ``_room(texts)`` ids.
        """
        source, bounds, _ = texts
        ends = np.zeros(max(len(bounds) - 1, 1), dtype=np.int64)
        state = np.array([0, bounds[0], 0, 0], dtype=np.int64)
        desk = self._desk()
        kernel, *splitting = (encode_words,) if whole_words else self._finder
        cache = desk.cache
        while longest := kernel(source, bounds, *splitting, self._tables, cache, desk.bench, out, ends, state):
            if longest == TOO_MANY_WORDS:
                desk.grow()
                cache = desk.cache
                continue
            if longest < 0:
                raise pattern_error(longest, texts, state, numbers)
            if longest > LONGEST_WORD:
                limit = f"up to {LONGEST_WORD} bytes"
                raise TokenizerError("a word is too long to merge", found=longest, expected=limit)
            cache = desk.cache._replace(space=merge_space(longest, len(self._pairs)))  # dropped after this text
        self._desks.append(desk)
        return ends

    def _run_alone(self, texts, numbers=None, whole_words=False):
        """(ids, ends of every text's ids), encoded on the calling thread."""
        out = np.empty(_room(texts), dtype=self.dtype)
        ends = self._run(texts, out, numbers, whole_words)
        out.resize(ends[-1], refcheck=False)  # gives back what the ids do not need; nothing is copied where it is much
        return out, ends[: len(texts.bounds) - 1]

    def _run_all(self, texts, threads):
        """(ids, offsets of every text's ids), encoded in pieces of similar size."""
        threads = threads or thread_count()
        source, bounds, _ = texts
        offsets = np.zeros(len(bounds), dtype=np.int64)
        if threads == 1 or len(source) < 2 * _PIECE:
            ids, offsets[1:] = self._run_alone(texts, np.arange(len(bounds) - 1) if len(bounds) > 2 else None)
            return ids, offsets
        rounds = min(32, -(-len(source) // (_PIECE * threads)))  # each thread takes about as many pieces
        size = len(source) // (rounds * threads) + 1
        groups = balanced(source, bounds[:-1], bounds[1:], size, self._cuts)
        pieces = [Texts(source, np.append(first, last[-1:]), texts) for first, last, _ in groups]
        out, at, done = np.empty(_room(texts), dtype=self.dtype), 0, 0
        largest, spare, finished, lock = max(map(_room, pieces)), [], {}, threading.Lock()

        def encode(number):
            try:
                ids = spare.pop()
            except IndexError:
                ids = np.empty(largest, dtype=self.dtype)
            finished[number] = ids, self._run(pieces[number], ids, groups[number][2])
            for found, start, count in placed():
                out[start : start + count] = found[:count]
                spare.append(found)

        def placed():
            """The finished pieces whose place in ``out`` is known by now: all those before them are finished."""
            nonlocal at, done
            known = []
            with lock:
                while done in finished:
                    ids, ends = finished.pop(done)
                    offsets[groups[done][2] + 1] = at + ends  # of the pieces of one text the last one's end stays
                    known.append((ids, at, int(ends[-1])))
                    at, done = at + int(ends[-1]), done + 1
            return known

        in_turn(encode, len(pieces), threads)
        out.resize(at, refcheck=False)
        return out, offsets


def _room(texts):
    """The ids that a kernel may write for ``texts``: one a byte at most, and some behind the last."""
    return int(texts.bounds[-1] - texts.bounds[0]) + OUT_SLACK
