"""What several tokenizer tests share: GPT-2's vocabulary, tiktoken built from it, and awkward strings."""

import random

import pytest
import regex

from gpt_numpy.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def gpt2(test_data):
    return Tokenizer.load(test_data / "gpt2")


@pytest.fixture(scope="session")
def shakespeare(test_data):
    return (test_data / "tinyshakespeare.txt").read_text(encoding="utf-8")


def _tiktoken_of(tokenizer):
    tiktoken = pytest.importorskip("tiktoken")
    vocabulary = tokenizer.vocabulary
    special_ids = set(vocabulary.special_tokens.values())
    ranks = {token: i for i, token in enumerate(vocabulary.tokens) if i not in special_ids}
    return tiktoken.Encoding("same", pat_str=vocabulary.pattern, mergeable_ranks=ranks,
                             special_tokens=vocabulary.special_tokens)


@pytest.fixture(scope="session")
def tiktoken_of():
    """A function: tiktoken's encoder of a tokenizer's ranks, specials and pattern, built without a download."""
    return _tiktoken_of


@pytest.fixture(scope="session")
def tiktoken_gpt2(gpt2):
    return _tiktoken_of(gpt2)


@pytest.fixture(scope="session")
def agreed_characters():
    """Every character that ``regex`` and tiktoken class alike: their tables follow different Unicode versions."""
    tiktoken = pytest.importorskip("tiktoken")
    everything = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    agreed = set(everything)
    for name in (r"\p{L}", r"\p{N}", r"\s"):
        encoding = tiktoken.Encoding("class", pat_str=name, special_tokens={},
                                     mergeable_ranks={bytes([byte]): byte for byte in range(256)})
        theirs = set(encoding.decode(encoding.encode_ordinary(everything)))
        agreed -= theirs ^ set(regex.findall(name, everything))
    assert len(agreed) > 1_000_000
    return sorted(agreed)


_CHUNKS = [
    "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'", "''", " '", " ", "  ", "   ", "\n", "\r\n", "\t", "\x00",
    "\x1c", "\x85", "\u00a0", "\u2028", "\u3000", "\ufeff", "\ufffd", "\u200d", "a", "Z", "the", " the", "é",
    "e\u0301", "ß", "中", "文", "½", "²", "٣", "Ⅷ", "0", "12", " 3", "_", "-", "...", "<|", "|>", "endoftext", "🙂",
    "👩\u200d👧", "🇫🇷",
]


@pytest.fixture(scope="session")
def awkward_strings(agreed_characters):
    """A function of (n, seed): characters of all planes, runs, contractions, mixed white space, mangled UTF-8."""
    return lambda n, seed: _awkward_strings(n, seed, agreed_characters)


def _awkward_strings(n, seed, characters):
    rng, known = random.Random(seed), set(characters)
    for _ in range(n):
        kind, length = rng.randrange(5), rng.randrange(1, 24)
        if kind == 0:
            yield "".join(rng.choices(characters, k=length))
        elif kind == 1:
            yield "".join(rng.choices(_CHUNKS, k=length))
        elif kind == 2:
            yield "".join(rng.choice(_CHUNKS) * rng.randrange(1, 30) for _ in range(rng.randrange(1, 4)))
        elif kind == 3:
            yield "".join(c for c in rng.randbytes(length).decode("utf-8", "replace") if c in known)
        else:
            yield "".join(rng.choice((rng.choice(_CHUNKS), chr(rng.randrange(32, 127)), rng.choice(characters)))
                          for _ in range(length))
