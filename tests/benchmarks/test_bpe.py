"""A tiny slice of the tokenizer's measurements: the machinery works, and a contender that is wrong is not timed."""

import pytest

from benchmarks import bpe, corpus, timing
from gpt_numpy.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE", 0.0)


@pytest.fixture(scope="module")
def documents():
    return {"rhyme": ["the cat sat on the mat ", "that's the cat's hat\n"] * 40}


@pytest.fixture(scope="module")
def tokenizer(documents):
    return Tokenizer.train(documents["rhyme"], 270)


def test_encoding_next_to_tiktoken_and_tokenizers(tokenizer, documents):
    pytest.importorskip("tiktoken")
    pytest.importorskip("tokenizers")
    results = bpe.encode(tokenizer, documents, rounds=1)["rhyme"] | bpe.batch(tokenizer, documents, rounds=1)["rhyme"]
    results |= bpe.short(tokenizer, documents, rounds=1)["rhyme"]
    assert len(results) >= 9
    assert all(result["mb_per_s"] > 0 and result["speed_up"] > 0 for result in results.values())


def test_training_next_to_rustbpe(documents):
    pytest.importorskip("rustbpe", reason="needs rustbpe")
    results = bpe.train(documents, rounds=1, vocab_sizes=(270,))["rhyme, 270"]
    assert set(results) == {"rustbpe", "gpt_numpy", "tokenizers"}


def test_runs(tokenizer):
    results = bpe.runs(tokenizer, rounds=1, count=2000)
    assert list(results) == list(bpe.UNITS)


def test_a_library_that_differs_is_left_out():
    contenders = {"first": (lambda: [1], list), "second": (lambda: [2], list)}
    assert list(bpe.compare(contenders, "first", rounds=1, left_out_if_wrong={"second"})) == ["first"]


def test_the_generated_text_is_the_same_for_the_same_seed():
    texts = corpus.generate(60_000, seed=1)
    assert texts == corpus.generate(60_000, seed=1) != corpus.generate(60_000, seed=2)
    assert list(texts) == list(corpus.PARTS)
    assert all(5_000 < len(text.encode()) < 20_000 for text in texts.values())
    assert sum(character > "\u3000" for character in texts["CJK"]) > len(texts["CJK"]) / 2


def test_a_wrong_result_is_not_timed():
    with pytest.raises(SystemExit, match="second differs"):
        bpe.compare({"first": (lambda: [1], list), "second": (lambda: [2], list)}, "first", rounds=1)


def test_the_standard_library_is_read_up_to_a_limit():
    documents = bpe.standard_library(200_000)
    assert sum(len(text.encode()) for text in documents) >= 200_000
    assert sum(len(text.encode()) for text in documents[:-1]) < 200_000
