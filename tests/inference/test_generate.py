import math

import numpy as np
import pytest

from gpt_numpy import generate
from gpt_numpy.errors import DataError, GenerationError
from gpt_numpy.inference import stream
from gpt_numpy.inference.sampling import Sampling, log_probability
from gpt_numpy.inference.sequences import context_start

PROMPT = [3, 1, 4]


def naive(model, tokens, count, **options):
    """Generation with no cache: a whole forward pass for each token."""
    tokens, sampling = list(tokens), Sampling(**options)
    for _ in range(count):
        start = context_start(len(tokens), model.config.block_size)
        tokens.append(sampling.choose(model.forward(np.array([tokens[start:]]))[0, -1], tokens))
    return tokens[-count:]


@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"seed": 5}, {"temperature": 2.0, "top_k": 4, "seed": 1}, {"top_p": 0.8}]
)
def test_the_same_text_as_without_a_cache(model, options):
    new = generate(model, PROMPT, 17, **options)  # far past the context of 7
    assert new.dtype == np.int64 and new.tolist() == naive(model, PROMPT, 17, **options)


def test_a_prompt_longer_than_the_context(model):
    prompt = [5, 9, 2, 6, 5, 3, 5, 8, 9, 7]
    assert generate(model, prompt, 5, seed=2).tolist() == naive(model, prompt, 5, seed=2)


def test_a_text_does_not_depend_on_its_batch(model):
    prompts = [PROMPT, [9, 2, 6, 5, 3, 5], [7]]
    together = generate(model, prompts, 9, seed=4)
    for prompt, result in zip(prompts, together):
        assert generate(model, prompt, 9, seed=4).tolist() == result.tolist()


def test_samples_of_one_prompt_are_different_and_reproducible(model):
    results = generate(model, PROMPT, 12, samples=4, seed=6)
    assert len(results) == 4 and len({tuple(r) for r in results}) == 4
    assert results[0].tolist() == generate(model, PROMPT, 12, seed=6).tolist()
    two_prompts = generate(model, [[7], PROMPT], 12, samples=4, seed=6)
    assert [r.tolist() for r in two_prompts[4:]] == [r.tolist() for r in results]


def test_stop_tokens_end_their_own_sequence_only(model):
    free = generate(model, PROMPT, 20, samples=3, seed=6)
    stop = int(free[0][5])
    for result, unstopped in zip(generate(model, PROMPT, 20, samples=3, seed=6, stop_tokens=[stop]), free):
        end = unstopped.tolist().index(stop) if stop in unstopped else 20
        assert result.tolist() == unstopped[:end].tolist()


def test_the_caller_can_end_a_sequence(model):
    finished, seen = set(), []
    for token in stream(model, [PROMPT, [7]], 6, finished=finished, seed=1):
        seen.append(token.sequence)
        if seen.count(0) == 2:
            finished.add(0)
    assert seen.count(0) == 2 and seen.count(1) == 6


def test_tokens_are_yielded_one_by_one_with_their_log_probability(model):
    tokens = list(stream(model, [PROMPT], 3, logprobs=True, seed=8))
    history = list(PROMPT)
    for token in tokens:
        logits = model.forward(np.array([history]))[0, -1]
        assert token.logprob == pytest.approx(log_probability(logits, token.id), abs=1e-12)
        history.append(token.id)
    assert math.isnan(next(iter(stream(model, [PROMPT], 1))).logprob)


def test_nothing_to_write(model):
    assert generate(model, PROMPT, 0).shape == (0,)
    assert [r.shape for r in generate(model, PROMPT, 0, samples=2)] == [(0,), (0,)]


@pytest.mark.parametrize("prompt", [[], np.zeros(0, int), [[]], [PROMPT, []], np.zeros((2, 0), int)])
def test_empty_prompts(model, prompt):
    with pytest.raises(GenerationError, match="prompt"):
        generate(model, prompt, 3)


@pytest.mark.parametrize(
    "prompt, error",
    [
        ([0.5], GenerationError),
        ([11], DataError),
        ([-1], DataError),
        (["a"], GenerationError),
        ([[[1]]], GenerationError),
    ],
)
def test_prompts_that_are_no_token_ids(model, prompt, error):
    with pytest.raises(error, match="token"):
        generate(model, prompt, 3)


@pytest.mark.parametrize(
    "options, field",
    [
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"samples": 0}, "samples"),
        ({"max_new_tokens": 2.0}, "max_new_tokens"),
        ({"top_k": -1}, "top_k"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_bad_options(model, options, field):
    with pytest.raises(GenerationError, match=field):
        generate(model, PROMPT, **({"max_new_tokens": 3} | options))


def test_everything_forbidden(model):
    with pytest.raises(GenerationError, match="no token is left"):
        generate(model, PROMPT, 3, logit_bias=dict.fromkeys(range(11), -math.inf))
