import os
import random
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

import gpt_numpy
from gpt_numpy.errors import TokenizerError, VocabError
from gpt_numpy.tokenizer import GPT2_PATTERN, Tokenizer
from gpt_numpy.tokenizer.reference import count_words, encode_text, train_merges
from gpt_numpy.tokenizer.vocabulary import from_merges

TEXTS = ["The cat's hat, the bat's mat: that's that. ", "Thé 日本語 text 🙂🙂 and 1234 numbers\r\n\t12!\n\n"]


@pytest.fixture(scope="module")
def small():
    return Tokenizer.train(TEXTS * 3, 308)


def test_by_hand():
    tokenizer = Tokenizer.train("aaabdaaabac", 256 + 3, special_tokens=())
    assert tokenizer.encode("aaabdaaabac") == [258, 100, 258, 97, 99]
    assert (tokenizer.n_vocab, tokenizer.vocab_size, tokenizer.eot_id) == (259, 259, None)


def test_the_package_exports_it():
    assert gpt_numpy.Tokenizer is Tokenizer


def test_published_vectors(gpt2):
    assert gpt2.encode("hello world") == [31373, 995]
    assert gpt2.encode("hello <|endoftext|>", allowed_special="all") == [31373, 220, 50256]
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
    assert [gpt2.encode("0" * n) for n in range(1, 18)] == zeros
    assert (gpt2.n_vocab, gpt2.eot_id) == (50257, 50256)


def test_equal_to_tiktoken(gpt2, tiktoken_gpt2, awkward_strings):
    n = 0
    for text in awkward_strings(20_000, 1):
        ids = gpt2.encode(text)
        assert ids == tiktoken_gpt2.encode(text), ascii(text)
        assert gpt2.decode(ids) == text
        n += 1
    assert n == 20_000


def test_equal_to_tiktoken_on_bytes_that_are_no_text(gpt2, tiktoken_gpt2):
    rng = random.Random(2)
    for _ in range(2_000):
        data = b"some words, then "[: rng.randrange(17)] + rng.randbytes(rng.randrange(1, 12))
        assert gpt2.encode_bytes(data) == tiktoken_gpt2._encode_bytes(data), data


def test_a_trained_one_is_equal_to_tiktoken(small, tiktoken_of, awkward_strings):
    theirs = tiktoken_of(small)
    for text in [*TEXTS, *awkward_strings(500, 3)]:
        assert small.encode(text) == theirs.encode(text)


def test_ids_are_bytes_then_merges_then_specials(small):
    tokens = small.vocabulary.tokens
    assert list(tokens[:256]) == [bytes([byte]) for byte in range(256)]
    assert small.special_tokens == {"<|endoftext|>": 307} and small.eot_id == 307
    assert small.vocabulary.merged_ids == tuple(range(256, 307))


def test_training_does_not_merge_across_a_special_token():
    text = "ab<|endoftext|>" * 50
    tokenizer = Tokenizer.train([text], 258)
    assert tokenizer.vocabulary.tokens[256] == b"ab"
    with pytest.warns(UserWarning, match="only 1 merge: the vocabulary has 258 tokens, not 400"):
        assert Tokenizer.train([text], 400).n_vocab == 258


def test_training_is_the_same_for_any_order_of_texts(small):
    texts = TEXTS * 3
    random.Random(4).shuffle(texts)
    assert Tokenizer.train(iter(texts), 308).vocabulary == small.vocabulary
    assert list(small.vocabulary.merges) == train_merges(count_words(TEXTS * 3, small.vocabulary.pattern), 51)


def test_no_warning_when_there_is_enough_text():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tokenizer.train(TEXTS, 300)


def random_texts(rng):
    alphabet = rng.choice(["a", "ab", "ab ", "aAé1' \n", "xyz<|endoftext|>"])
    return ["".join(rng.choices(alphabet, k=rng.randrange(1, 60))) for _ in range(rng.randrange(1, 5))]


def check_training(seed):
    """The trained vocabulary is the reference's, on a small corpus full of ties and overlapping runs."""
    rng = random.Random(seed)
    texts, n_merges, pattern = random_texts(rng), rng.randrange(40), rng.choice([GPT2_PATTERN, r"\S+|\s+", "(?s)..?"])
    specials = ("<|endoftext|>",)
    expected = train_merges(count_words(texts, pattern, specials), n_merges)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = Tokenizer.train(texts, 257 + n_merges, specials, pattern)
    assert tokenizer.vocabulary == from_merges(expected, specials, pattern), seed
    for text in texts:
        assert tokenizer.encode_ordinary(text) == encode_text(text, tokenizer.vocabulary), seed


def test_training_is_the_references():
    for seed in range(200):
        check_training(seed)


@pytest.mark.campaign
def test_training_is_the_references_at_length():
    for seed in range(200, 2_000):
        check_training(seed)


def test_another_pattern(awkward_strings):
    tokenizer = Tokenizer.train(TEXTS * 3, 300, pattern=r"(?s)\w+\s?|.")
    for text in [*TEXTS, *awkward_strings(300, 7)]:
        assert tokenizer.encode(text) == encode_text(text, tokenizer.vocabulary)
    assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(text) for text in TEXTS]
    text = "".join(TEXTS) + "<|endoftext|>"
    assert tokenizer.encode(text, allowed_special="all") == [*encode_text(text[:-13], tokenizer.vocabulary), 299]
    with pytest.raises(TokenizerError, match="by GPT-2's pattern only"):
        tokenizer.encode_bytes(b"a")
    with pytest.raises(TokenizerError, match="by GPT-2's pattern only"):
        next(tokenizer.encode_stream(["a"]))


def test_progress(small):
    seen = []
    Tokenizer.train(TEXTS * 3, 308, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (51, 51)


def test_arrays(small):
    ids = small.encode_to_array(TEXTS[1] + "<|endoftext|>", allowed_special="all")
    assert ids.dtype == small.dtype == np.uint16
    assert ids.tolist() == [*small.encode(TEXTS[1]), 307]
    assert small.encode_to_array("").shape == (0,)
    large = from_merges([], [f"<|{i}|>" for i in range(70_000)], GPT2_PATTERN)
    ids = Tokenizer(large).encode_to_array("a<|69999|>", allowed_special="all")
    assert (ids.dtype, ids.tolist()) == (np.uint32, [97, 70_255])


@pytest.mark.parametrize("threads", [1, 2, 3, None])
def test_batches(small, awkward_strings, threads):
    texts = [*awkward_strings(100, 8), "", "x" * 600_000, TEXTS[0] * 20_000, "<|endoftext|>"]
    assert small.encode_batch(texts[:-1], threads=threads) == [small.encode(text) for text in texts[:-1]]
    assert small.encode_batch(texts, allowed_special="all", threads=threads)[-1] == [307]
    for special in ((), "all"):
        texts_now = texts if special else texts[:-1]
        arrays = small.encode_batch_to_arrays(texts_now, allowed_special=special, threads=threads)
        assert [ids.tolist() for ids in arrays] == small.encode_batch(texts_now, allowed_special=special)
        assert all(ids.dtype == small.dtype for ids in arrays)
    assert small.encode_batch(iter([]), threads=threads) == []
    with pytest.raises(TokenizerError, match="offset 0, text 103: the text holds"):
        small.encode_batch(texts, threads=threads)
    with pytest.raises(TokenizerError, match="offset 1, text 1: a lone surrogate"):
        small.encode_batch(["a", "a\ud800"], threads=threads)
    with pytest.raises(TokenizerError, match="offset 1, text 1: a lone surrogate"):
        small.encode_batch(["<|endoftext|>", "a\ud800"], allowed_special="all", threads=threads)
    with pytest.raises(TypeError, match="not bytes .text 1."):
        small.encode_batch(["a", b"a"], threads=threads)


@pytest.mark.parametrize("text", ["a", "^", " ", "\n", "ab"])
def test_a_million_repeats(gpt2, text):
    gpt2.encode(text)
    started = time.perf_counter()
    ids = gpt2.encode(text * 1_000_000)
    assert time.perf_counter() - started < 2
    assert gpt2.decode(ids) == text * 1_000_000


def test_training_on_one_word_of_ten_megabytes():
    Tokenizer.train("warm", 258)
    started = time.perf_counter()
    tokenizer = Tokenizer.train("ab" * 5_000_000, 270)
    assert time.perf_counter() - started < 20
    assert tokenizer.vocabulary.tokens[256:262] == tuple(b"ab" * 2**k for k in range(6))


SAME_FOR_ANY_HASH_SEED = """
from gpt_numpy.tokenizer import Tokenizer, reference
texts = ["ab ba zy yz " * 5, "q r s t u v w é 日 "]
specials = ("<|b|>", "<|a|>", "<|c|>")
tokenizer = Tokenizer.train(texts, 285, specials)
assert list(tokenizer.vocabulary.merges) == reference.train_merges(
    reference.count_words(texts, tokenizer.vocabulary.pattern, specials), 26)
print(tokenizer.vocabulary)
"""


def test_the_hash_seed_does_not_matter():
    outputs = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SAME_FOR_ANY_HASH_SEED],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("texts", [[], "", ["", ""], ["<|endoftext|>"]])
def test_training_on_nothing(texts):
    with pytest.raises(TokenizerError, match="no text to train on"):
        Tokenizer.train(texts, 300)


def test_bad_training_arguments():
    with pytest.raises(TokenizerError, match="vocab_size: .*256; expected at least 257"):
        Tokenizer.train(TEXTS, 256)
    for size in (300.0, True, None):
        with pytest.raises(TypeError, match="vocab_size is an int"):
            Tokenizer.train(TEXTS, size)
    with pytest.raises(TypeError, match="a text to encode is a str, not bytes"):
        Tokenizer.train([b"abc"], 300)
    with pytest.raises(TokenizerError, match="text 0: a lone surrogate|offset 1, text 0: a lone"):
        Tokenizer.train(["a\udfff"], 300)
    with pytest.raises(VocabError, match="is an ordinary token as well"):
        Tokenizer.train(TEXTS, 300, special_tokens=["x"])


@pytest.mark.parametrize(
    "text", ["\x00", "a\x85b", "\u2028\u2029", "\ufeffbom", "one\r\ntwo\rthree\n", "", " ", "\U0010ffff"]
)
def test_round_trip(small, text):
    assert small.decode(small.encode(text)) == text


@pytest.mark.parametrize("text", [b"bytes", None, 3, ["a"], bytearray(b"a")])
def test_what_is_no_text(small, text):
    for encode in (small.encode, small.encode_ordinary):
        with pytest.raises(TypeError, match="a text to encode is a str"):
            encode(text)


def test_lone_surrogates(small):
    for encode in (small.encode, small.encode_ordinary):
        with pytest.raises(TokenizerError, match=r"offset 2: a lone surrogate"):
            encode("ab\ud83dcd")


@pytest.mark.parametrize("bad", [-1, 308, 2**32, 2**64, True, 1.0, None, "a", np.True_, np.float32(1)])
def test_what_is_no_id(small, bad):
    for decode in (small.decode, small.decode_bytes):
        with pytest.raises(TokenizerError, match="position 2: (not a token id|a token id out of range)"):
            decode([1, 2, bad, 4])


def test_ids_of_any_integer_type(small):
    ids = small.encode(TEXTS[1])
    for given in (tuple(ids), iter(ids), np.array(ids, np.uint16), np.array(ids), [np.int64(i) for i in ids]):
        assert small.decode(given) == TEXTS[1]
    for bad in (np.array([1.0]), np.array([True]), np.array([-1])):
        with pytest.raises(TokenizerError, match="position 0"):
            small.decode(bad)
    for wrong in (5, None, "ab", b"ab", np.zeros((2, 3), int)):
        with pytest.raises(TypeError, match="ids are"):
            small.decode(wrong)


def test_bytes_that_are_no_utf8(small):
    assert small.decode_bytes([0xF0, 0x9F, 97]) == b"\xf0\x9fa"
    assert small.decode([0xF0, 0x9F, 97]) == "\ufffda"
    with pytest.raises(UnicodeDecodeError):
        small.decode([0xF0, 0x9F, 97], errors="strict")
    assert small.decode_bytes(small.encode_bytes(b"\xff\x80a\xc3")) == b"\xff\x80a\xc3"
