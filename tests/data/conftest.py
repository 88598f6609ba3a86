"""A small corpus and tokenizer, and folders of shards made of them."""

import random

import pytest

from gpt_numpy.data.shards.preparing import Settings, prepare
from gpt_numpy.tokenizer import Tokenizer

WORDS = "the of and in to a is that for it as was on with be by an are at from this have or had not but".split()


def make_document(seed, length):
    """Words and lines in random order, with some of what text has beside ASCII letters."""
    rng = random.Random(seed)
    return "".join(
        rng.choices([*(f" {word}" for word in WORDS), ".\n", ", ", "\r\n", " é", " e\u0301", "12", "\n\n"], k=length)
    )


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer.train([make_document("tokenizer", 2000)], 320)


@pytest.fixture
def corpus(tmp_path):
    """A folder of 23 documents of very different lengths, one of them empty."""
    folder = tmp_path / "corpus"
    (folder / "more").mkdir(parents=True)
    rng = random.Random(0)
    for number in range(23):
        name = f"more/{number:02d}.txt" if number % 3 else f"{number:02d}.md"
        text = make_document(number, int(rng.lognormvariate(3.5, 1.3))) if number != 5 else ""
        (folder / name).write_bytes(text.encode())
    return folder


@pytest.fixture
def prepared(corpus, tokenizer, tmp_path):
    """A prepared folder with both splits and several shards."""
    prepare([corpus], tokenizer, tmp_path / "prepared", Settings(shard_tokens=500, validation_every=5))
    return tmp_path / "prepared"
