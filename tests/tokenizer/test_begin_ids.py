"""Which ids stand in front of a text that a model reads."""

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.data.text.special_text import encode_documents
from gpt_numpy.errors import VocabError
from gpt_numpy.evaluating import tasks
from gpt_numpy.inference.score import score_text
from gpt_numpy.inference.text import start_of_text
from gpt_numpy.tokenizer import CharTokenizer, Tokenizer
from gpt_numpy.tokenizer.specials import before_document, begun
from gpt_numpy.tokenizer.vocabulary import Vocabulary
from gpt_numpy.training.plan.corpus import encode


def beginning_with(*begin):
    v = Tokenizer.train(["the theatre and the other"], 270, ["<|endoftext|>", "<b>", "<c>"]).vocabulary
    return Tokenizer(Vocabulary(v.tokens, v.merges, v.special_tokens, v.pattern, begin=begin))


@pytest.mark.parametrize("begin", [(), ("<b>",), ("<b>", "<c>")])
def test_a_text_begins_once(begin):
    tokenizer = beginning_with(*begin)
    ids, front = tokenizer.encode("the other"), [tokenizer.special_tokens[text] for text in begin]
    assert begun(tokenizer, ids) == front + ids
    spelled = tokenizer.encode("".join(begin) + "the other", allowed_special="all")
    assert begun(tokenizer, spelled) == spelled == front + ids
    assert begun(tokenizer, []) == front
    assert before_document(tokenizer) == start_of_text(tokenizer) == (front or [tokenizer.eot_id])
    assert before_document(CharTokenizer("ab")) == []


@pytest.mark.parametrize("begin", [(), ("<b>",), ("<b>", "<c>")])
def test_training_documents_begin(begin):
    tokenizer = beginning_with(*begin)
    front, end = tokenizer.begin_ids, [tokenizer.eot_id]
    texts = ["the other", "", "".join(begin) + "the<c>", "a" * 40]
    expected = front + tokenizer.encode("the other") + end
    expected += front + [*tokenizer.encode("the"), tokenizer.special_tokens["<c>"]] + end
    expected += front + tokenizer.encode("a" * 40) + end
    assert encode(texts, tokenizer).tolist() == expected
    assert [len(ids) > 0 for ids in encode_documents(texts, tokenizer)] == [True, False, True, True]


@pytest.mark.parametrize("begin", [(), ("<b>",), ("<b>", "<c>")])
def test_only_the_text_is_scored(begin):
    tokenizer = beginning_with(*begin)
    model = GPT(GPTConfig(270, block_size=32, n_layer=1, n_head=2, n_embd=8), seed=1, ops=layers)
    text = "the other theatre"
    ids = tokenizer.encode(text)
    front = tokenizer.begin_ids or [tokenizer.eot_id]
    tokens = np.array([front + ids])
    targets = np.full_like(tokens[:, 1:], -1)
    targets[:, len(front) - 1 :] = ids
    expected = model.loss(tokens[:, :-1], targets) * len(ids)
    scored = score_text(model, tokenizer, text)
    assert scored.tokens.tolist() == front[-1:] + ids and scored.n_bytes == len(text)
    assert -scored.logprobs.sum() == pytest.approx(expected, rel=1e-5)
    measured = tasks.perplexity(model, tokenizer, [text])
    if begin:
        assert (measured.tokens, measured.n_bytes) == (len(ids), len(text))
        assert measured.nats == pytest.approx(expected, rel=1e-5)
    else:
        assert measured.tokens == len(ids) - 1


def test_a_begin_that_is_no_token_is_refused():
    with pytest.raises(VocabError, match="not special.*<d>"):
        beginning_with("<d>")
