"""The encoder against the plain one and against tiktoken; its cache, its threads and what it refuses."""

import random
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
import pytest

from gpt_numpy.errors import TokenizerError, VocabError
from gpt_numpy.kernels import bpe
from gpt_numpy.kernels.bpe import BPEEncoder, texts, word_cache
from gpt_numpy.kernels.bpe.long_words import LONG_BYTES
from gpt_numpy.kernels.bpe.merging import SCAN_LIMIT
from gpt_numpy.tokenizer import GPT2_PATTERN, reference
from gpt_numpy.tokenizer.pretokenize import split as split_by_pattern

BYTES = range(256)
AAA = [(97, 97), (97, 98), (256, 257)]  # aa, ab, aaab


def plain(byte_ids, merges, new_ids, words):
    table = reference.merge_table(merges, new_ids)
    return [token for word in words for token in reference.encode_word(word, byte_ids, table)]


def random_vocabulary(seed):
    """Bytes in any order and merges that were never trained: overlaps, and tokens that no text leads to."""
    rng = random.Random(seed)
    byte_ids = rng.sample(range(400), 256)
    known = [byte_ids[byte] for byte in b"abc \xc3\xa9"]
    merges, new_ids = [], []
    for new in rng.sample(range(400, 600), 40):
        pair = (rng.choice(known), rng.choice(known))
        if pair not in merges:
            merges.append(pair)
            new_ids.append(new)
            known.append(new)
    return byte_ids, merges, new_ids


def test_the_example_of_the_specification():
    assert BPEEncoder(BYTES, AAA).encode("aaabdaaabac") == [258, 100, 258, 97, 99]


@pytest.mark.parametrize("seed", range(60))
def test_any_vocabulary_merges_as_the_plain_encoder_does(seed):
    byte_ids, merges, new_ids = random_vocabulary(seed)
    encoder = BPEEncoder(byte_ids, merges, new_ids)
    rng = random.Random(seed)
    for _ in range(20):
        text = "".join(rng.choices("abc é", weights=[9, 4, 3, 2, 2], k=rng.randrange(1, 2 * SCAN_LIMIT)))
        words = [word.encode() for word in split_by_pattern(text, GPT2_PATTERN)]
        expected = plain(byte_ids, merges, new_ids, words)
        assert encoder.encode(text) == encoder.encode(text) == expected  # the second from the cache
        assert encoder.encode_words(words).tolist() == expected
        assert encoder.encode_words([text.encode()]).tolist() == plain(byte_ids, merges, new_ids, [text.encode()])


def test_known_tokens_of_gpt2(encoder):
    assert encoder.encode("hello world") == [31373, 995]
    zeros = [
        [15],
        [405],
        [830],
        [2388],
        [20483],
        [10535],
        [24598],
        [8269],
        [10535, 830],
        [8269, 405],
        [8269, 830],
        [8269, 2388],
        [8269, 20483],
        [8269, 10535],
        [8269, 24598],
        [25645],
        [8269, 10535, 830],
    ]
    assert encoder.encode_batch(["0" * n for n in range(1, 18)]) == zeros


def compare_with_tiktoken(encoder, theirs, texts):
    expected = theirs.encode_ordinary_batch(texts, num_threads=2)
    assert encoder.encode_batch(texts) == expected


def test_strings_encode_as_with_tiktoken(encoder, tiktoken_gpt2, hard_strings, characters):
    compare_with_tiktoken(encoder, tiktoken_gpt2, hard_strings(20_000, 0))


def mangled(texts, seed, characters):
    """The texts' UTF-8 with some bytes changed, taken out or put in; what is valid of it is of ``characters``."""
    rng, known = random.Random(seed), set(characters)
    for text in texts:
        data = bytearray(text.encode())
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data)) if data else 0
            data[at : at + rng.randrange(2)] = rng.randbytes(rng.randrange(2))
        if known.issuperset(data.decode(errors="ignore")):
            yield bytes(data)


def compare_bytes_with_tiktoken(encoder, theirs, blobs):
    n_invalid = 0
    for data in blobs:
        assert encoder.encode_bytes(data).tolist() == theirs._encode_bytes(data), data
        n_invalid += data.decode(errors="ignore").encode() != data
    return n_invalid


def test_bytes_encode_as_with_tiktoken(encoder, tiktoken_gpt2, hard_strings, characters):
    blobs = mangled(hard_strings(3000, 1, characters), 1, characters)
    assert compare_bytes_with_tiktoken(encoder, tiktoken_gpt2, blobs) > 1000


@pytest.mark.campaign
def test_a_million_strings_encode_as_with_tiktoken(encoder, tiktoken_gpt2, hard_strings, characters):
    for seed in range(95):
        compare_with_tiktoken(encoder, tiktoken_gpt2, hard_strings(10_000, 100 + seed, characters))
    for seed in range(10):
        blobs = mangled(hard_strings(10_000, 200 + seed, characters), seed, characters)
        compare_bytes_with_tiktoken(encoder, tiktoken_gpt2, blobs)


@pytest.mark.parametrize("unit", ["a", "^", " ", "\n", "ab"])
def test_a_million_repetitions_take_less_than_two_seconds(encoder, tiktoken_gpt2, unit):
    """Time that grew with the square would be hours. ``benchmarks tokenizer runs`` measures the growth."""
    assert encoder.encode(unit * 3000) == tiktoken_gpt2.encode_ordinary(unit * 3000)
    start = perf_counter()
    tokens = encoder.encode_to_array(unit * 1_000_000)
    assert perf_counter() - start < 2
    assert encoder.encode_to_array(unit * 1_001_000)[: len(tokens) // 2].tolist() == tokens[: len(tokens) // 2].tolist()


def check_words(encoder, words):
    """Encode the words twice, in both orders, and compare with the plain encoder."""
    for text in (" ".join(words), " ".join(reversed(words))):
        expected = plain(BYTES, AAA, [256, 257, 258], [word.encode() for word in split_by_pattern(text, GPT2_PATTERN)])
        assert encoder.encode(text) == expected


@pytest.fixture
def small_caches(monkeypatch):
    """New caches of 1,024 lines, which may grow to 8,192."""
    monkeypatch.setattr(word_cache, "N_LINES", 1 << 10)
    monkeypatch.setattr(word_cache, "MAX_LINES", 1 << 13)


def many_words():
    rng = random.Random(0)
    words = ["".join(rng.choices("ab", k=20)) for _ in range(300)]  # more than the long table has rows at first
    # Hundreds of the lines of two entries get a third word. Of the words below 16 bytes many have more than eight
    # tokens, so that the long table has them, where other words replace them.
    return words + [f"{n:b}".replace("0", "a").replace("1", "b") for n in range(1 << 12)]


def test_a_full_cache_forgets_and_stays_right(small_caches, monkeypatch):
    monkeypatch.setattr(word_cache, "MAX_LINES", 1 << 10)
    encoder = BPEEncoder(BYTES, AAA)
    check_words(encoder, many_words())
    assert encoder._desks[0].cache.short.nbytes == 64 << 10


def test_a_cache_grows_with_the_words_up_to_its_limit(small_caches):
    encoder = BPEEncoder(BYTES, AAA)
    encoder.encode(" ".join(["ab"] * 300_000))
    assert encoder._desks[0].cache.short.nbytes == 64 << 10
    check_words(encoder, many_words())
    assert 64 << 10 < encoder._desks[0].cache.short.nbytes
    check_words(encoder, many_words())
    assert encoder._desks[0].cache.short.nbytes == 512 << 10


def long_words(n_words, seed=0):
    rng = random.Random(seed)
    return ["".join(rng.choices("abc", k=rng.randrange(16, LONG_BYTES + 1))) for _ in range(n_words)]


def test_a_larger_cache_keeps_the_long_words(encoder):
    encoder.forget()
    words = long_words(200)
    expected = encoder.encode_batch(words, threads=1)
    desk = encoder._desks[0]
    desk.grow()
    used = desk.cache.room[3]
    assert encoder.encode_batch(words, threads=1) == expected
    assert desk.cache.room[3] == used > 200


def test_records_of_long_words_are_forgotten_when_they_are_too_many(small_caches, monkeypatch):
    monkeypatch.setattr(word_cache, "MAX_LINES", 1 << 10)
    encoder = BPEEncoder(BYTES, AAA)
    words = long_words(2000)  # of some hundreds of bytes each with their tokens, where 14 KiB are set aside
    for seed in range(3):
        random.Random(seed).shuffle(words)
        check_words(encoder, words)
    cache = encoder._desks[0].cache
    assert cache.records.nbytes == 14 << 10 and 0 < cache.room[3] * 16 < cache.records.nbytes


def test_caches_take_little_memory_at_first_and_160_mib_together_at_most(encoder):
    encoder.forget()
    encoder.encode("a text")
    first = encoder._desks[0].cache
    assert sum(array.nbytes for array in (*first[:-1], *first.space)) < 7 << 20
    for n_caches in (1, 3):
        cache = first
        while (larger := word_cache.grown(cache, n_caches)) is not cache:
            cache = larger
        assert n_caches * sum(array.nbytes for array in cache[:-1]) <= 161 << 20


def test_every_number_of_threads_gives_the_same_tokens(encoder, hard_strings, monkeypatch):
    monkeypatch.setattr(bpe, "_PIECE", 1000)
    texts = hard_strings(400, 5)
    whole = "".join(texts)
    alone, batch = encoder.encode_to_array(whole), encoder.encode_batch(texts, threads=1)
    for threads in (2, 3, 7):
        assert np.array_equal(encoder.encode_to_array(whole, threads=threads), alone)
        assert encoder.encode_batch(texts, threads=threads) == batch
        assert encoder.encode_batch([whole, *texts, whole], threads=threads) == [alone.tolist(), *batch, alone.tolist()]
        arrays = encoder.encode_batch_to_arrays([whole, "", *texts], threads=threads)
        assert [a.tolist() for a in arrays] == [alone.tolist(), [], *batch]


@pytest.mark.parametrize(("n_texts", "most"), [(1, 1.2), (300, 1.6)])
def test_threads_get_shares_of_similar_size(n_texts, most):
    """The first share is no larger than the others, though each begins a little before a multiple of the size."""
    text = "some words of a text, " * 5000
    joined = texts.many_texts([text[i * len(text) // n_texts : (i + 1) * len(text) // n_texts] for i in range(n_texts)])
    groups = texts.balanced(joined.source, joined.bounds[:-1], joined.bounds[1:], len(text) // 6 + 1)
    sizes = [sum(stops - starts) for starts, stops, _ in groups]
    assert sum(sizes) == len(text) and max(sizes) < most * len(text) / 6


def test_several_python_threads_share_one_encoder(encoder, hard_strings):
    texts = ["".join(hard_strings(50, seed)) for seed in range(16)]
    expected = [encoder.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(encoder.encode, texts)) == expected


def test_texts_side_by_side_do_not_touch(encoder):
    assert encoder.encode_batch(["a", "'", "s", "", " ", "x", "\n"]) == [
        encoder.encode(text) for text in ["a", "'", "s", "", " ", "x", "\n"]
    ]
    assert encoder.encode_batch([]) == []


@pytest.mark.parametrize("size", [0, 1, bpe._SHORT_TEXT - 1, bpe._SHORT_TEXT, bpe._SHORT_TEXT + 1])
def test_short_and_long_texts_end_where_they_end(encoder, tiktoken_gpt2, size):
    for character in ("a", " ", "é", "中", "🙂", "'"):
        encoder.encode("x" * bpe._SHORT_TEXT)  # leaves its letters behind
        assert encoder.encode(character * size) == tiktoken_gpt2.encode_ordinary(character * size)


def test_ids_come_in_the_smallest_type_that_holds_them(encoder):
    assert encoder.encode_to_array("hello").dtype == np.uint16
    large = BPEEncoder(BYTES, [(104, 105)], [70_000])
    assert large.encode_to_array("hi").dtype == np.uint32
    assert large.encode("hi") == [70_000]


@pytest.mark.parametrize("text", [b"bytes", None, 3, ["a"]])
def test_only_strings_are_texts(text):
    with pytest.raises(TypeError, match="expected str"):
        BPEEncoder(BYTES, AAA).encode(text)


def test_a_lone_surrogate_is_named_with_its_place():
    encoder = BPEEncoder(BYTES, AAA)
    with pytest.raises(TokenizerError, match="offset 2") as caught:
        encoder.encode("ab\ud800c")
    assert caught.value.offset == 2 and caught.value.found == "\ud800"
    with pytest.raises(TokenizerError, match="text 1"):
        encoder.encode_batch(["fine", "\udfff"])


@pytest.mark.parametrize(
    ("byte_ids", "pairs", "new_ids", "message"),
    [
        (range(255), [], None, "every byte"),
        ([0, *range(255)], [], None, "made twice"),
        (BYTES, [(97, 98)], [97], "made twice"),
        (BYTES, [(97, 98), (99, 100)], [256, 256], "made twice"),
        (BYTES, [(97, 98), (97, 98)], None, "merge 1 repeats"),
        (BYTES, [(97, 257), (97, 98)], None, "merge 0 joins"),
        (BYTES, [(97, 256)], None, "merge 0 joins"),
        (BYTES, [(97, -1)], None, "merge 0 joins"),
        (BYTES, [(97, 1 << 40)], None, "merge 0 joins"),
        (BYTES, [(97, 98)], [-1], "out of range"),
        (BYTES, [(97, 98)], [1 << 24], "out of range"),
        (BYTES, [(97, 98)], [1 << 40], "out of range"),
        (BYTES, [(97, 98)], [256, 257], "one pair"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(byte_ids, pairs, new_ids, message):
    with pytest.raises(VocabError, match=message):
        BPEEncoder(byte_ids, pairs, new_ids)


def test_no_merges_leave_bytes():
    assert BPEEncoder(BYTES, []).encode("é!") == [0xC3, 0xA9, 33]


def test_a_word_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(bpe, "LONGEST_WORD", 10_000)
    encoder = BPEEncoder(BYTES, AAA)
    assert len(encoder.encode("a" * 10_000)) == 5000
    with pytest.raises(TokenizerError, match="found 10002"):
        encoder.encode("a b " + "a" * 10_001)
    assert encoder.encode("aaab") == [258]


def test_words_of_the_caches_limits(encoder, tiktoken_gpt2):
    lengths = [1, 7, 8, 9, 15, 16, 17, LONG_BYTES, LONG_BYTES + 1, SCAN_LIMIT, SCAN_LIMIT + 1]
    for alphabet in ("e", "the", "qzx", "0", "-=", "\n", " ", "中", "é"):
        text = " ".join((alphabet * n)[:n] for n in lengths)
        for _ in range(2):
            assert encoder.encode(text) == tiktoken_gpt2.encode_ordinary(text)
