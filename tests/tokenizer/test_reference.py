"""The reference against something simpler still: counting everything anew for each merge."""

import random
from collections import Counter

from gpt_numpy.tokenizer import GPT2_PATTERN
from gpt_numpy.tokenizer.reference import count_words, encode_word, merge_pair, merge_table, train_merges


def naive_merges(word_counts, n_merges):
    words = {tuple(word): count for word, count in word_counts.items()}
    merges = []
    while len(merges) < n_merges:
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        words = {tuple(merge_pair(word, best, 256 + len(merges))): count for word, count in words.items()}
        merges.append(best)
    return merges


def random_word_counts(rng):
    alphabet = rng.choice([b"a", b"ab", b"abc", bytes(range(256))])
    words = [bytes(rng.choices(alphabet, k=rng.randrange(1, 12))) for _ in range(rng.randrange(1, 9))]
    return {word: rng.randrange(1, 4) for word in words}


def test_training_is_counting_everything_anew():
    for seed in range(300):
        word_counts = random_word_counts(random.Random(seed))
        n_merges = seed % 40
        assert train_merges(word_counts, n_merges) == naive_merges(word_counts, n_merges), seed


def test_order_of_words_does_not_matter():
    for seed in range(50):
        word_counts = random_word_counts(random.Random(seed))
        shuffled = list(word_counts.items())
        random.Random(-seed).shuffle(shuffled)
        assert train_merges(word_counts, 30) == train_merges(dict(shuffled), 30)


def test_ties_go_to_the_lowest_pair():
    assert train_merges({b"zy": 2, b"ba": 2, b"bz": 2}, 3) == [(98, 97), (98, 122), (122, 121)]


def test_overlapping_runs():
    assert merge_pair([1, 1, 1, 1, 1], (1, 1), 9) == [9, 9, 1]
    assert train_merges({b"aaaa": 1}, 9) == [(97, 97), (256, 256)]


def test_counts_beyond_32_bits():
    assert train_merges({b"ab": 2**31, b"cd": 2**33, b"ef": 2**32}, 3) == [(99, 100), (101, 102), (97, 98)]


def test_a_word_that_training_saw_once_is_one_token_in_the_end():
    merges = train_merges({b"abcdefg": 1}, 100)
    assert len(merges) == 6
    assert encode_word(b"abcdefg", range(256), merge_table(merges, range(256, 262))) == [261]


def test_lower_ranks_merge_first_wherever_they_stand():
    table = merge_table([(98, 99), (97, 98)], [257, 256])
    assert encode_word(b"abc", range(256), table) == [97, 257]
    assert encode_word(b"ab", range(256), table) == [256]


def test_counting_cuts_at_special_tokens():
    counts = count_words(["ab ab<|x|>ab", "c"], GPT2_PATTERN, ["<|x|>"])
    assert counts == {b"ab": 2, b" ab": 1, b"c": 1}


def test_progress_is_told_each_merge():
    seen = []
    train_merges({b"abcd": 1}, 2, progress=seen.append)
    assert seen == [1, 2]
