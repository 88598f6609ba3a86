"""Words by automaton in kernels against ``regex``; texts encoded with other patterns against tiktoken."""

import random

import numpy as np
import pytest

from gpt_numpy.errors import TokenizerError
from gpt_numpy.kernels.bpe import BPEEncoder, texts, walker
from gpt_numpy.tokenizer import Tokenizer
from gpt_numpy.tokenizer.automaton import automaton_of
from gpt_numpy.tokenizer.pretokenize import split
from gpt_numpy.tokenizer.vocabulary import Vocabulary
from tests.tokenizer.test_automaton import PATTERNS, hard_texts

TOTAL = ("cl100k", "o200k", "llama3", "qwen2")  # patterns that leave no character out


def assert_words_are_those_of_regex(name, strings):
    found = walker.list_words(texts.many_texts(strings), walker.walk_tables(automaton_of(PATTERNS[name])))
    sizes = np.diff(found[0], prepend=0).tolist()
    start = 0
    for text, stop in zip(strings, found[1].tolist(), strict=True):
        assert sizes[start:stop] == [len(word.encode()) for word in split(text, PATTERNS[name])], text
        start = stop


@pytest.mark.parametrize("name", TOTAL)
def test_words_are_those_of_regex(name):
    assert_words_are_those_of_regex(name, hard_texts(4000, 2))


@pytest.mark.campaign
@pytest.mark.parametrize("name", TOTAL)
def test_words_of_a_million_strings_are_those_of_regex(name):
    for seed in range(100, 110):
        assert_words_are_those_of_regex(name, hard_texts(100_000, seed))


@pytest.fixture(scope="module", params=TOTAL)
def tokenizer(request, gpt2):
    """GPT-2's merges with another pattern."""
    vocabulary = gpt2.vocabulary
    return Tokenizer(
        Vocabulary(vocabulary.tokens, vocabulary.merges, vocabulary.special_tokens, PATTERNS[request.param])
    )


def tiktoken_with(tokenizer):
    import tiktoken

    ranks = {token: i for i, token in enumerate(tokenizer.vocabulary.tokens[:-1])}
    return tiktoken.Encoding("same", pat_str=tokenizer.vocabulary.pattern, mergeable_ranks=ranks, special_tokens={})


def test_every_form_of_encoding_gives_tiktokens_ids(tokenizer):
    rng, theirs = random.Random(4), tiktoken_with(tokenizer)
    short = hard_texts(300, 5)
    wide = ["".join(chr(rng.randrange(0x3040, 0x9FA6)) for _ in range(200)) for _ in range(4)]
    long = [
        "".join(rng.choices(short, k=20_000)),
        "a" * 9000 + " " * 9000 + "\n" * 9000 + "x",
        "\n" + " " * 20_000 + "x",
    ]
    strings = [*short, "", *wide, *long]
    expected = theirs.encode_ordinary_batch(strings)
    assert tokenizer.encode_batch(strings, disallowed_special=()) == expected
    assert [ids.tolist() for ids in tokenizer.encode_batch(strings, as_arrays=True, threads=2).rows()] == expected
    assert [tokenizer.encode(text) for text in strings] == expected
    assert tokenizer.encode_to_array(long[0], threads=2).tolist() == expected[-3]
    part = "<|endoftext|>".join(short)
    assert (
        tokenizer.encode(part, allowed_special="all")
        == [i for ids in expected[: len(short)] for i in [50256, *ids]][1:]
    )


def test_a_pattern_that_skips_characters_says_where():
    encoder = BPEEncoder(range(256), [(97, 98)], automaton=automaton_of(PATTERNS["skips"]))
    for call in (encoder.encode, encoder.encode_to_array, lambda text: encoder.encode_batch(["ab", text])):
        with pytest.raises(TokenizerError, match="matches nothing here") as caught:
            call("éab!ab")
        assert caught.value.offset == 3


def test_a_pattern_that_takes_quadratic_time_is_refused():
    encoder = BPEEncoder(range(256), [(97, 98)], automaton=automaton_of(r"[ab]*c|[ab]|\s"))
    assert encoder.encode("c ab") == [99, 32, 97, 98]
    with pytest.raises(TokenizerError, match="too long"):
        encoder.encode_to_array("ab" * 200_000)
