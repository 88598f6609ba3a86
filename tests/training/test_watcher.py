import pytest

from gpt_numpy import GPT, layers
from gpt_numpy.training.plan.corpus import load_corpus
from gpt_numpy.training.watcher import sample


@pytest.fixture
def parts(tiny):
    corpus = load_corpus(tiny())
    return GPT(tiny().model_config(corpus.tokenizer.n_vocab), seed=2, ops=layers), corpus


def test_continues_the_prompt_and_says_the_same_again(parts):
    text = sample(*parts, "the cat", 9, seed=5)
    assert text.startswith("the cat") and len(text) == len("the cat") + 9
    assert sample(*parts, "the cat", 9, seed=5) == text != sample(*parts, "the cat", 9, seed=6)


def test_outgrows_the_context(parts):
    assert len(sample(*parts, "the", 50, seed=5)) == 53


def test_begins_by_itself(parts):
    assert len(sample(*parts, "", 9, seed=5)) == 10
