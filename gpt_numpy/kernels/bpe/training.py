"""Learning merges: the most frequent pair of adjacent tokens becomes a token, again and again.

The next pair is the one with the highest count; of equal counts, the lowest pair of ids (first left, then right), or the
pair of the greatest bytes. Bytes are the ids 0 to 255 and merge r makes 256 + r, so the merges depend on the counts of the
words alone.
The plain twin is the trainer of ``gpt_numpy.tokenizer``.

All distinct words lie in one array of cells, a separator between each two. A token's first cell holds its id and the
number of the pair that it starts; its last cell holds the distance to the first. A merge visits only the occurrences of
its pair, and needs no hash table, because of two facts:

- A token is made by a single merge. That merge finds all occurrences of the pairs with the new token, one list for each
  pair, and nothing is added to the list later. An occurrence that a later merge destroys stays in the list. Its cell
  then holds the number of another pair.
- The count of a pair therefore only falls. The heap may hold counts that are too high: the entry on top is
  compared with the present count, and sinks if the present count is lower.
"""

from typing import NamedTuple

import numpy as np

from ...errors import TokenizerError
from ..runtime.decorators import kernel
from .bits import called, inlined

FINISHED, EXHAUSTED, MORE_PAIRS, MORE_OCCURRENCES = range(4)
_SEPARATOR = -(2**31)
_NO_PAIR = -1
_N_PAIRS, _N_OCCURRENCES, _N_HEAP, _N_MERGES = range(4)  # fields of ``state``


class Training(NamedTuple):
    """Everything a run of merges reads and writes; made by ``start_training``."""

    cells: np.ndarray  # (n_cells, 2) int32: token id, or minus a token's length in its last cell; pair number
    word_counts: np.ndarray  # (n_words,) int64
    occurrences: np.ndarray  # (capacity, 2) int32: cell and word of a pair's occurrence; each pair has one stretch
    pair_counts: np.ndarray  # (capacity,) int64
    pair_ids: np.ndarray  # (capacity, 2) int32: left, right
    pair_occurrences: np.ndarray  # (capacity, 2) int64: beginning and end in ``occurrences``
    heap: np.ndarray  # (capacity, 3) int64: count, left << 32 | right, pair number
    lengths: np.ndarray  # (n_tokens,) int32: bytes of a token
    beside: np.ndarray  # (n_tokens, 4) int64 work space, zero between merges: see `_count_beside`
    touched: np.ndarray  # (n_tokens, 2) int32 work space: the tokens left and right of the new one
    merges: np.ndarray  # (n_merges, 2) int32: result
    merge_counts: np.ndarray  # (n_merges,) int64: result
    state: np.ndarray  # (4,) int64
    letters: np.ndarray  # (n_cells + 256,) uint8: the bytes of the cells, then every byte
    samples: np.ndarray  # (n_tokens,) int64: where in ``letters`` a token's bytes are; empty: ties take the lowest ids


@called
def _compare_tokens(training, token, other):
    """-1, 0 or 1: whether the bytes of a token are less than those of the other, equal or greater."""
    start, other_start = training.samples[token], training.samples[other]
    length, other_length = training.lengths[token], training.lengths[other]
    for i in range(min(length, other_length)):
        difference = np.int64(training.letters[start + i]) - np.int64(training.letters[other_start + i])
        if difference != 0:
            return 1 if difference > 0 else -1
    return 1 if length > other_length else -1 if length < other_length else 0


@called
def _wins(training, key, other_key):
    """Whether, of pairs with equal counts, the one of ``key`` (left << 32 | right) is merged before the other."""
    if training.samples.size == 0:
        return key < other_key
    order = _compare_tokens(training, key >> 32, other_key >> 32)
    if order == 0:
        order = _compare_tokens(training, key & 0xFFFFFFFF, other_key & 0xFFFFFFFF)
    return order > 0


@inlined
def _before(training, count, key, other):
    """Whether (count, key) belongs nearer to the top than heap entry ``other``."""
    heap = training.heap
    return count > heap[other, 0] or (count == heap[other, 0] and _wins(training, key, heap[other, 1]))


@called
def _sift_up(training, position, count, key, pair):
    heap = training.heap
    while position > 0:
        parent = (position - 1) >> 1
        if not _before(training, count, key, parent):
            break
        heap[position, 0], heap[position, 1], heap[position, 2] = heap[parent, 0], heap[parent, 1], heap[parent, 2]
        position = parent
    heap[position, 0], heap[position, 1], heap[position, 2] = count, key, pair


@called
def _sift_down(training, size, position, count, key, pair):
    heap = training.heap
    child = 2 * position + 1
    while child < size:
        if child + 1 < size and _before(training, heap[child + 1, 0], heap[child + 1, 1], child):
            child += 1
        if _before(training, count, key, child):
            break
        heap[position, 0], heap[position, 1], heap[position, 2] = heap[child, 0], heap[child, 1], heap[child, 2]
        position = child
        child = 2 * position + 1
    heap[position, 0], heap[position, 1], heap[position, 2] = count, key, pair


@called
def _push(training, count, left, right, pair):
    state = training.state
    _sift_up(training, state[_N_HEAP], count, np.int64(left) << 32 | np.int64(right), pair)
    state[_N_HEAP] += 1


@called
def _drop_top(training):
    heap, state = training.heap, training.state
    state[_N_HEAP] -= 1
    last = state[_N_HEAP]
    _sift_down(training, last, 0, heap[last, 0], heap[last, 1], heap[last, 2])


@called
def _next_pair(training):
    """Number of the most frequent pair, which stays on top of the heap, or _NO_PAIR."""
    heap, state, pair_counts = training.heap, training.state, training.pair_counts
    while state[_N_HEAP] > 0:
        pair = heap[0, 2]
        count = pair_counts[pair]
        if count == heap[0, 0]:
            return pair
        if count > 0:
            _sift_down(training, state[_N_HEAP], 0, count, heap[0, 1], pair)
        else:
            _drop_top(training)
    return _NO_PAIR


@kernel()
def _lay_out(buffer, starts, stops, training):
    """Write the words into cells, count the pairs of bytes, list their occurrences and fill the heap."""
    cells, counts = training.cells, np.zeros(65536, dtype=np.int64)
    n_occurrences = np.zeros(65536, dtype=np.int64)
    at = np.int64(0)
    for word in range(starts.size):
        cells[at, 0], cells[at, 1] = _SEPARATOR, _NO_PAIR
        at += 1
        for i in range(starts[word], stops[word]):
            cells[at, 0], cells[at, 1] = buffer[i], _NO_PAIR
            training.letters[at] = buffer[i]
            at += 1
            if i + 1 < stops[word]:
                pair = np.int64(buffer[i]) << 8 | np.int64(buffer[i + 1])
                counts[pair] += training.word_counts[word]
                n_occurrences[pair] += 1
    cells[at, 0], cells[at, 1] = _SEPARATOR, _NO_PAIR
    numbers = np.empty(65536, dtype=np.int32)
    occurrence = np.int64(0)
    for pair in range(65536):
        if n_occurrences[pair] > 0:
            number = training.state[_N_PAIRS]
            numbers[pair] = number
            training.state[_N_PAIRS] += 1
            training.pair_counts[number] = counts[pair]
            training.pair_ids[number, 0], training.pair_ids[number, 1] = pair >> 8, pair & 255
            training.pair_occurrences[number, 0] = training.pair_occurrences[number, 1] = occurrence
            occurrence += n_occurrences[pair]
            _push(training, counts[pair], pair >> 8, pair & 255, number)
    training.state[_N_OCCURRENCES] = occurrence
    at = np.int64(0)
    for word in range(starts.size):
        for i in range(starts[word], stops[word]):
            at += 1
            if i + 1 < stops[word]:
                number = numbers[np.int64(buffer[i]) << 8 | np.int64(buffer[i + 1])]
                cells[at, 1] = number
                occurrence = training.pair_occurrences[number, 1]
                training.occurrences[occurrence, 0], training.occurrences[occurrence, 1] = at, word
                training.pair_occurrences[number, 1] = occurrence + 1
        at += 1


@inlined
def _token_before(cells, at):
    """First cell of the token that ends right before cell ``at``, or -1 at the beginning of a word."""
    back = np.int64(cells[at - 1, 0])
    if back >= 0:
        return at - 1
    return at + back if back != _SEPARATOR else -1


@called
def _replace(training, pair, new):
    """Replace ``pair`` by token ``new``; move the replaced occurrences to the front of the list, return their number.

    A pair that loses an occurrence loses its count. A neighbour that the same merge has made has no pair yet.
    """
    cells, occurrences, lengths, pair_counts = (
        training.cells,
        training.occurrences,
        training.lengths,
        training.pair_counts,
    )
    beginning, end = training.pair_occurrences[pair, 0], training.pair_occurrences[pair, 1]
    left_length, new_length = lengths[training.pair_ids[pair, 0]], lengths[new]
    kept = beginning
    for occurrence in range(beginning, end):
        at = np.int64(occurrences[occurrence, 0])
        if cells[at, 1] != pair:
            continue
        word = occurrences[occurrence, 1]
        count = training.word_counts[word]
        before = _token_before(cells, at)
        if before >= 0 and cells[before, 1] >= 0:
            pair_counts[cells[before, 1]] -= count
            cells[before, 1] = _NO_PAIR
        right = at + left_length
        if cells[right, 1] >= 0:
            pair_counts[cells[right, 1]] -= count
            cells[right, 1] = _NO_PAIR
        cells[at, 0], cells[at, 1] = new, _NO_PAIR
        cells[at + new_length - 1, 0] = -new_length
        occurrences[kept, 0], occurrences[kept, 1] = at, word
        kept += 1
    pair_counts[pair] = 0
    return kept - beginning


@called
def _count_beside(training, first, n_occurrences, new):
    """Count the pairs of the new token with its neighbours; return the numbers of different left and right neighbours.

    beside[token]: count and occurrences of the pair (token, new), then those of (new, token). A pair of two new tokens
    is counted once, as a right neighbour.
    """
    cells, beside, touched = training.cells, training.beside, training.touched
    new_length = np.int64(training.lengths[new])
    n_left = n_right = 0
    for occurrence in range(first, first + n_occurrences):
        at, count = (
            np.int64(training.occurrences[occurrence, 0]),
            training.word_counts[training.occurrences[occurrence, 1]],
        )
        before = _token_before(cells, at)
        if before >= 0 and cells[before, 0] != new:
            token = cells[before, 0]
            if beside[token, 1] == 0:
                touched[n_left, 0] = token
                n_left += 1
            beside[token, 0] += count
            beside[token, 1] += 1
        token = cells[at + new_length, 0]
        if token >= 0:
            if beside[token, 3] == 0:
                touched[n_right, 1] = token
                n_right += 1
            beside[token, 2] += count
            beside[token, 3] += 1
    return n_left, n_right


@called
def _add_pair(training, left, right, count, n_occurrences):
    """Enter a new pair with room for its occurrences; return its number."""
    number = training.state[_N_PAIRS]
    training.state[_N_PAIRS] += 1
    training.pair_counts[number] = count
    training.pair_ids[number, 0], training.pair_ids[number, 1] = left, right
    training.pair_occurrences[number, 0] = training.pair_occurrences[number, 1] = training.state[_N_OCCURRENCES]
    training.state[_N_OCCURRENCES] += n_occurrences
    _push(training, count, left, right, number)
    return number


@inlined
def _add_occurrence(training, number, at, word):
    occurrence = training.pair_occurrences[number, 1]
    training.occurrences[occurrence, 0], training.occurrences[occurrence, 1] = at, word
    training.pair_occurrences[number, 1] = occurrence + 1
    training.cells[at, 1] = number


@called
def _list_beside(training, first, n_occurrences, new, n_left, n_right):
    """Enter the pairs that ``_count_beside`` found, list their occurrences, and clear the work space."""
    cells, beside, touched = training.cells, training.beside, training.touched
    new_length = np.int64(training.lengths[new])
    for i in range(n_left):
        token = touched[i, 0]
        beside[token, 0] = _add_pair(training, token, new, beside[token, 0], beside[token, 1])
    for i in range(n_right):
        token = touched[i, 1]
        beside[token, 2] = _add_pair(training, new, token, beside[token, 2], beside[token, 3])
    for occurrence in range(first, first + n_occurrences):
        at, word = np.int64(training.occurrences[occurrence, 0]), training.occurrences[occurrence, 1]
        before = _token_before(cells, at)
        if before >= 0 and cells[before, 0] != new:
            _add_occurrence(training, beside[cells[before, 0], 0], before, word)
        token = cells[at + new_length, 0]
        if token >= 0:
            _add_occurrence(training, beside[token, 2], at, word)
    for i in range(n_left):
        beside[touched[i, 0], 0] = beside[touched[i, 0], 1] = 0
    for i in range(n_right):
        beside[touched[i, 1], 2] = beside[touched[i, 1], 3] = 0


@kernel(_nrt=False)
def _merge_some(training, limit):
    """Make up to ``limit`` merges; return the reason for stopping. After MORE_…, no part of the next merge is done."""
    for _ in range(limit):
        if training.state[_N_MERGES] >= training.merges.shape[0]:
            return FINISHED
        pair = _next_pair(training)
        if pair == _NO_PAIR:
            return EXHAUSTED
        first = training.pair_occurrences[pair, 0]
        most = 2 * (training.pair_occurrences[pair, 1] - first)
        if training.state[_N_OCCURRENCES] + most > training.occurrences.shape[0]:
            return MORE_OCCURRENCES
        merge = training.state[_N_MERGES]
        new = np.int32(256 + merge)
        if training.state[_N_PAIRS] + min(most, 2 * np.int64(new) + 2) > training.pair_counts.size:
            return MORE_PAIRS
        left, right = training.pair_ids[pair, 0], training.pair_ids[pair, 1]
        training.merges[merge, 0], training.merges[merge, 1] = left, right
        training.merge_counts[merge] = training.pair_counts[pair]
        training.lengths[new] = training.lengths[left] + training.lengths[right]
        _drop_top(training)
        n_occurrences = _replace(training, pair, new)
        if training.samples.size > 0:
            training.samples[new] = training.occurrences[first, 0]
        n_left, n_right = _count_beside(training, first, n_occurrences, new)
        _list_beside(training, first, n_occurrences, new, n_left, n_right)
        training.state[_N_MERGES] += 1
    return FINISHED


def _start(buffer, starts, stops, counts, n_merges, greatest=False):
    """Lay out the words for ``n_merges`` merges; ``greatest``: of equal counts, the pair of the greatest bytes is next."""
    n_words, n_bytes = len(starts), int((stops - starts).sum())
    n_cells = n_words + n_bytes + 1
    if n_cells > 2**31 - 1:
        raise TokenizerError("too many distinct words to train on", found=f"{n_cells} bytes", expected=f"below {2**31}")
    n_tokens = 256 + n_merges
    n_pairs = 65536 + 4 * n_merges
    training = Training(
        cells=np.empty((n_cells, 2), dtype=np.int32),
        word_counts=counts,
        occurrences=np.empty((2 * n_bytes + 1, 2), dtype=np.int32),
        pair_counts=np.empty(n_pairs, dtype=np.int64),
        pair_ids=np.empty((n_pairs, 2), dtype=np.int32),
        pair_occurrences=np.empty((n_pairs, 2), dtype=np.int64),
        heap=np.empty((n_pairs, 3), dtype=np.int64),
        lengths=np.ones(n_tokens, dtype=np.int32),
        beside=np.zeros((n_tokens, 4), dtype=np.int64),
        touched=np.empty((n_tokens, 2), dtype=np.int32),
        merges=np.empty((n_merges, 2), dtype=np.int32),
        merge_counts=np.empty(n_merges, dtype=np.int64),
        state=np.zeros(4, dtype=np.int64),
        letters=np.concatenate([np.empty(n_cells, dtype=np.uint8), np.arange(256, dtype=np.uint8)]),
        samples=np.zeros(n_tokens if greatest else 0, dtype=np.int64),
    )
    training.samples[:256] = n_cells + np.arange(len(training.samples[:256]))
    _lay_out(buffer, starts, stops, training)
    return training


def _enlarged(array):
    larger = np.empty((2 * array.shape[0] + 1024, *array.shape[1:]), dtype=array.dtype)
    larger[: array.shape[0]] = array
    return larger


def train_merges(words, n_merges, progress=None, chunk=256, greatest=False):
    """Learn up to ``n_merges`` merges from counted words; ``greatest``: see above.

    words: (buffer, starts, stops, counts) as of ``WordCounter.words``; progress, if given, is called with the number of
    merges made so far, every ``chunk`` merges (an exception that it raises, or Ctrl-C, ends the training).
    Returns (pairs (n, 2) int64, counts (n,) int64), n < ``n_merges`` where no pair is left to merge.
    """
    buffer, starts, stops, counts = words
    training = _start(buffer, starts, stops, counts, n_merges, greatest)
    done = status = 0
    while done < n_merges and status != EXHAUSTED:
        status = _merge_some(training, chunk)
        if status == MORE_OCCURRENCES:
            training = training._replace(occurrences=_enlarged(training.occurrences))
        elif status == MORE_PAIRS:
            names = ("pair_counts", "pair_ids", "pair_occurrences", "heap")
            training = training._replace(**{name: _enlarged(getattr(training, name)) for name in names})
        done = int(training.state[_N_MERGES])
        if progress is not None:
            progress(done)
    return training.merges[:done].astype(np.int64), training.merge_counts[:done].copy()
