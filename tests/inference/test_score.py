import math

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.errors import GenerationError
from gpt_numpy.inference import score
from gpt_numpy.inference.sequences import context_start
from gpt_numpy.tokenizer import END_OF_TEXT, CharTokenizer

TOKENS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 10, 3, 2, 3, 8, 4, 6])


@pytest.mark.parametrize("chunk", [1, 3, 128])
@pytest.mark.parametrize("count", [2, 7, 8, 9, 22])
def test_every_token_given_what_generation_would_see(model, chunk, count, monkeypatch):
    monkeypatch.setattr(score, "CHUNK", chunk)
    found = score.token_logprobs(model, TOKENS[:count])
    for i in range(1, count):
        logits = model.forward(TOKENS[None, context_start(i, 7) : i])[0, -1]
        expected = logits[TOKENS[i]] - np.log(np.exp(logits).sum())
        assert found[i - 1] == pytest.approx(expected, abs=1e-12), i


def test_within_one_context_the_loss_is_the_models_own(model):
    expected = model.loss(TOKENS[None, :7], TOKENS[None, 1:8])
    found = score.Score(TOKENS[:8], score.token_logprobs(model, TOKENS[:8]), 7).loss
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary():
    tokenizer = CharTokenizer.train(["abcdé"], special_tokens=[END_OF_TEXT])
    model = GPT(GPTConfig(tokenizer.n_vocab, 8, 1, 1, 4), ops=layers)
    model.params.flat[:] = 0
    result = score.score_text(model, tokenizer, "dbaé")
    assert result.tokens[0] == tokenizer.eot_id and len(result.logprobs) == 4 and result.n_bytes == 5
    assert result.perplexity == pytest.approx(6)
    assert result.bits_per_byte == pytest.approx(4 * math.log2(6) / 5)


def test_without_an_end_of_text_token_the_first_is_context_only():
    tokenizer = CharTokenizer.train(["abc"])
    model = GPT(GPTConfig(tokenizer.n_vocab, 8, 1, 1, 4), ops=layers)
    result = score.score_text(model, tokenizer, "abc")
    assert len(result.logprobs) == 2 and result.n_bytes == 2
    with pytest.raises(GenerationError, match="nothing to score"):
        score.score_text(model, tokenizer, "a")
