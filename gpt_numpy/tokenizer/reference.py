"""Byte-level byte-pair encoding in plain Python: the specification; tests compare the fast twin with this module.

BPE (Gage 1994; Sennrich et al. 2016) begins with one token a byte. Training finds the pair of
neighbouring tokens that occurs most often, makes that pair a new token, and repeats this. Encoding repeats
the same merges in the same order. By hand, with the bytes a b c d = 97 98 99 100 and ids from 256 on:

    a a a b d a a a b a c     'aa' 4 times (overlaps counted): 256 = aa
    256 a b d 256 a b a c     'ab' and 'aa'+'a' twice each; (97, 98) is the lower pair: 257 = ab
    256 257 d 256 257 a c     'aa'+'ab' twice: 258 = aaab
    258 d 258 a c

>>> merges = train_merges({b"aaabdaaabac": 1}, 3)
>>> merges
[(97, 97), (97, 98), (256, 257)]
>>> table = merge_table(merges, range(256, 259))
>>> encode_word(b"aaabdaaabac", range(256), table)
[258, 100, 258, 97, 99]

The tie rule: among pairs of equal count the lowest pair is taken, comparing left ids, then right ids.
Merges therefore depend on the words and their counts only, not on the order of the words. Two other rules are in use
(``TIES``): ``tokenizers`` takes the lowest pair as well, but numbers the bytes by their characters (``byte_alphabet``), and
Stanford's CS336 takes the pair of the greatest bytes.

Its fast twins are in ``kernels/bpe/``; ``tokenizer`` uses those.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from .byte_alphabet import GPT2_BYTE_ORDER
from .pretokenize import split
from .specials import split_specials
from .vocabulary import Vocabulary

Pair = tuple[int, int]
TIES = ("lowest", "huggingface", "greatest")
NEVER = (float("inf"), -1)  # the rank of a pair that no merge makes


def count_words(texts: Iterable[str], pattern: str, special_tokens: Sequence[str] = ()) -> Counter[bytes]:
    """How often each pre-token occurs in ``texts``; special tokens cut the text and are not counted."""
    counts = Counter()
    for text in texts:
        for part, special in split_specials(text, special_tokens):
            if not special:
                counts.update(word.encode("utf-8") for word in split(part, pattern))
    return counts


def merge_pair(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """``ids`` with every ``pair`` replaced by ``new_id``, from left to right: a a a → aa a."""
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


class _Greatest:
    """The bytes of a pair's two tokens, in the reverse of their order."""

    def __init__(self, tokens):
        self.tokens = tokens

    def __lt__(self, other):
        return self.tokens > other.tokens

    def __eq__(self, other):
        return self.tokens == other.tokens


def train_merges(word_counts: Mapping[bytes, int], n_merges: int, progress=None, ties: str = "lowest") -> list[Pair]:
    """The first ``n_merges`` merges of words that occur ``word_counts`` times (fewer if pairs run out).

    Merge ``k`` makes the token 256 + k. ``progress(k)``, if given, is called after each. Among pairs of equal count comes
    first, by ``ties``: ``"lowest"`` the lowest pair of ids, ``"huggingface"`` the same with the bytes numbered in the order
    of their characters, ``"greatest"`` the pair of the greatest bytes.

    The result equals that of counting every pair again before each merge, but only the words that hold the
    merged pair are counted again. The heap holds every pair with its count at some earlier time. A count only
    falls once the pair's tokens exist, so an outdated entry is too high, never too low. An outdated entry goes
    back into the heap with its true count when it comes up.
    """
    words = [list(word) for word in word_counts]
    counts = list(word_counts.values())
    pair_counts: Counter[Pair] = Counter()
    holders: defaultdict[Pair, set[int]] = defaultdict(set)  # pair → the words that (may) hold it

    def count_pairs(w: int, sign: int) -> None:
        for pair in zip(words[w], words[w][1:]):
            pair_counts[pair] += sign * counts[w]
            holders[pair].add(w)

    for w in range(len(words)):
        count_pairs(w, +1)
    tokens = {byte: bytes([byte]) for byte in range(256)}
    ids = {byte: i for i, byte in enumerate(GPT2_BYTE_ORDER)} if ties == "huggingface" else {}

    def order(pair: Pair):
        if ties == "greatest":
            return _Greatest((tokens[pair[0]], tokens[pair[1]]))
        return ids.get(pair[0], pair[0]), ids.get(pair[1], pair[1])

    heap = [(-count, order(pair), pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < n_merges:
        negative_count, place, best = heapq.heappop(heap)
        if -negative_count != pair_counts[best]:
            if pair_counts[best] > 0:
                heapq.heappush(heap, (-pair_counts[best], place, best))
            continue
        new_id = 256 + len(merges)
        tokens[new_id] = tokens[best[0]] + tokens[best[1]]
        new_pairs = set()
        for w in holders.pop(best):
            count_pairs(w, -1)
            words[w] = merge_pair(words[w], best, new_id)
            count_pairs(w, +1)
            new_pairs.update(pair for pair in zip(words[w], words[w][1:]) if new_id in pair)
        for pair in new_pairs:
            heapq.heappush(heap, (-pair_counts[pair], order(pair), pair))
        merges.append(best)
        if progress:
            progress(len(merges))
    return merges


def merge_table(merges: Iterable[Pair], new_ids: Iterable[int]) -> dict[Pair, tuple[int, int]]:
    """pair → (rank, id of the merged token), where the rank is the merge's position in the order."""
    return {pair: (rank, new_id) for rank, (pair, new_id) in enumerate(zip(merges, new_ids))}


def encode_text(text: str, vocabulary: Vocabulary) -> list[int]:
    """The token ids of ``text``, word by word of the pattern; special tokens are ordinary text."""
    table = merge_table(vocabulary.merges, vocabulary.merged_ids)
    words = (word.encode("utf-8") for word in split(text, vocabulary.pattern))
    return [i for word in words for i in encode_word(word, vocabulary.byte_ids, table)]


def encode_word(word: bytes, byte_ids: Sequence[int], table: Mapping[Pair, tuple[int, int]]) -> list[int]:
    """The token ids of one word: its bytes' ids, merged by the lowest rank until no merge applies.

    Time grows with the square of the word's length.
    """
    ids = [byte_ids[byte] for byte in word]
    while len(ids) > 1:
        pair = min(zip(ids, ids[1:]), key=lambda pair: table.get(pair, NEVER))
        if pair not in table:
            break
        ids = merge_pair(ids, pair, table[pair][1])
    return ids


def last_pair(word: bytes, byte_ids: Sequence[int], table: Mapping[Pair, tuple[int, int]]) -> Pair | None:
    """The two tokens that ``encode_word`` has of ``word`` at some time; None if there is no such time."""
    ids = [byte_ids[byte] for byte in word]
    while len(ids) > 2:
        pair = min(zip(ids, ids[1:]), key=lambda pair: table.get(pair, NEVER))
        if pair not in table:
            return None
        ids = merge_pair(ids, pair, table[pair][1])
    return (ids[0], ids[1]) if len(ids) == 2 else None
