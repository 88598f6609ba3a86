"""The counter and the trainer against the plain ones."""

import random
from collections import Counter

import pytest

from gpt_numpy.errors import TokenizerError
from gpt_numpy.kernels.bpe import counting, training
from gpt_numpy.kernels.bpe.counting import WordCounter
from gpt_numpy.kernels.bpe.training import train_merges
from gpt_numpy.tokenizer import GPT2_PATTERN, reference
from gpt_numpy.tokenizer.automaton import automaton_of
from tests.tokenizer.test_automaton import PATTERNS, hard_texts


def as_dict(words):
    buffer, starts, stops, counts = words
    return {buffer[a:b].tobytes(): n for a, b, n in zip(starts.tolist(), stops.tolist(), counts.tolist(), strict=True)}


def train(word_counts, n_merges):
    counter = WordCounter(1)
    counter.add_counts(word_counts)
    return train_merges(counter.words(), n_merges)


def pairs_of(word_counts, n_merges):
    return [tuple(pair) for pair in train(word_counts, n_merges)[0].tolist()]


def random_corpus(seed):
    """Words of few letters, so that runs overlap and counts tie."""
    rng = random.Random(seed)
    alphabet = [b"a", b"ab", b"abc", bytes([0, 255]), bytes(range(40))][seed % 5]
    words = {}
    for _ in range(rng.randrange(1, 40)):
        word = bytes(rng.choices(alphabet, k=rng.randrange(1, rng.choice([4, 12, 60]))))
        words[word] = rng.choice([1, 1, 2, 3, 5])
    return words


@pytest.mark.parametrize("part", range(10))
def test_merges_are_those_of_the_plain_trainer(part):
    for seed in range(100 * part, 100 * part + 100):
        corpus = random_corpus(seed)
        assert pairs_of(corpus, 50) == reference.train_merges(corpus, 50), seed


def test_counts_are_those_of_the_merged_pairs():
    pairs, counts = train({b"aaabdaaabac": 1}, 3)
    assert pairs.tolist() == [[97, 97], [97, 98], [256, 257]]
    assert counts.tolist() == [4, 2, 2]


def test_ties_take_the_lowest_pair():
    assert pairs_of({b"zy": 2, b"ba": 2, b"bb": 2, b"ab": 2}, 4) == [(97, 98), (98, 97), (98, 98), (122, 121)]


def test_counts_past_32_bits():
    large = 3 << 32
    pairs, counts = train({b"ab": large, b"abc": large, b"cc": large + 1}, 3)
    assert pairs.tolist() == [[97, 98], [99, 99], [256, 99]]
    assert counts.tolist() == [2 * large, large + 1, large]


def test_training_ends_when_no_pair_is_left():
    assert pairs_of({b"abc": 1, b"d": 9}, 100) == [(97, 98), (256, 99)]
    assert pairs_of({}, 5) == []
    assert pairs_of({b"abc": 1}, 0) == []


def test_arrays_that_start_too_small_grow(monkeypatch):
    corpus = random_corpus(4)
    expected = reference.train_merges(corpus, 80)
    enlarged = []
    original = training._enlarged
    monkeypatch.setattr(training, "_enlarged", lambda array: enlarged.append(array) or original(array))
    start = training._start

    def start_small(*arguments):
        training = start(*arguments)
        used = training.state.tolist()
        names = ("pair_counts", "pair_ids", "pair_occurrences", "heap")
        small = {name: getattr(training, name)[: used[0] + 1].copy() for name in names}
        return training._replace(occurrences=training.occurrences[: used[1] + 1].copy(), **small)

    monkeypatch.setattr(training, "_start", start_small)
    assert pairs_of(corpus, 80) == expected
    assert len(enlarged) >= 5


def test_progress_is_told_and_may_stop_the_training():
    counter = WordCounter(1)
    counter.add_counts(random_corpus(9))
    told = []
    pairs, _ = train_merges(counter.words(), 60, told.append, chunk=25)
    assert told == [25, 50, 60] and len(pairs) == 60

    def interrupt(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_merges(counter.words(), 60, interrupt, chunk=25)


def test_words_are_counted_as_the_plain_counter_does(hard_strings):
    texts = hard_strings(3000, 6)
    expected = reference.count_words(texts, GPT2_PATTERN)
    for threads in (1, 2, 5):
        counter = WordCounter(threads)
        counter.add(iter(texts))
        assert as_dict(counter.words()) == expected


def test_threads_batches_and_order_change_nothing(hard_strings, monkeypatch):
    monkeypatch.setattr(counting, "_BATCH", 3000)
    texts = hard_strings(1500, 7) + ["".join(hard_strings(500, 8))]
    expected = reference.count_words(texts, GPT2_PATTERN)
    merges = reference.train_merges(expected, 300)
    for threads, order in ((1, texts), (2, texts[::-1]), (3, sorted(texts))):
        counter = WordCounter(threads)
        counter.add(order)
        words = counter.words()
        assert as_dict(words) == expected
        assert [tuple(pair) for pair in train_merges(words, 300)[0].tolist()] == merges


def test_many_words_outgrow_the_tables():
    rng = random.Random(10)
    words = Counter(rng.randbytes(rng.choice([3, 7, 15, 16, 40, 200])) for _ in range(40_000))
    counter = WordCounter(2)
    counter.add_counts(words)
    counter.add_counts(words)
    assert as_dict(counter.words()) == {word: 2 * n for word, n in words.items()}


def test_one_word_larger_than_the_pool():
    counter = WordCounter(2)
    counter.add(["x" * 300_000, "y" * 300_000, "x" * 300_000])
    assert as_dict(counter.words()) == {b"x" * 300_000: 2, b"y" * 300_000: 1}
    pairs, counts = train_merges(counter.words(), 4)
    assert pairs.tolist() == [[120, 120], [121, 121], [256, 256], [257, 257]]
    assert counts.tolist() == [599_998, 299_999, 299_998, 149_999]


def test_what_is_no_word_is_refused():
    with pytest.raises(TypeError, match="expected bytes"):
        WordCounter(1).add_counts({"text": 1})
    with pytest.raises(ValueError, match="expected 0 or more"):
        WordCounter(1).add_counts({b"word": -1})
    with pytest.raises(TypeError, match="expected str"):
        WordCounter(1).add([b"bytes"])
    with pytest.raises(TokenizerError, match="surrogate"):
        WordCounter(1).add(["\ud800"])


def test_words_of_another_pattern_are_counted_as_regex_finds_them():
    automaton = automaton_of(PATTERNS["llama3"])
    for threads in (1, 2):
        texts = [*hard_texts(3000, 6), "a" * 20_000, " " * 9000 + "x", "", "中" * 5000]
        counter = WordCounter(threads, automaton)
        counter.add(texts)
        counter.add(texts[:5])
        assert as_dict(counter.words()) == reference.count_words([*texts, *texts[:5]], PATTERNS["llama3"])


def test_words_at_every_border_of_a_chunk_are_counted_once():
    rng = random.Random(9)
    units = ["'s", "'ll", " the", "  ", "\n", "é", "中文", " 12", "words", "\u3000", "a" * 17, "b" * 40]
    for _ in range(20):
        text = "".join(rng.choices(units, k=9000))
        counter = WordCounter(1)
        counter.add([text, "", text[5:]])
        assert as_dict(counter.words()) == reference.count_words([text, text[5:]], GPT2_PATTERN)


def test_a_pattern_that_skips_characters_is_refused():
    counter = WordCounter(1, automaton_of(PATTERNS["skips"]))
    with pytest.raises(TokenizerError, match="matches nothing here"):
        counter.add(["ab 12345", "ab!"])
