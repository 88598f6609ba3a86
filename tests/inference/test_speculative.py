import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, generate, layers
from gpt_numpy.errors import GenerationError
from gpt_numpy.inference.sampling import Sampling
from gpt_numpy.inference.speculative import speculate

PROMPT = [3, 1, 4]


@pytest.fixture(scope="module")
def draft(model):
    """A smaller model with a shorter context, which agrees with ``model`` now and then."""
    config = GPTConfig(vocab_size=11, block_size=5, n_layer=1, n_head=2, n_embd=6)
    small = GPT(config, seed=1, dtype=np.float64, ops=layers)
    small.params.flat[:] *= 20
    return small


def ids(tokens):
    return [token.id for token in tokens]


@pytest.mark.parametrize("lookahead", [1, 2, 4, 9])
@pytest.mark.parametrize("count", [0, 1, 5, 30])
def test_greedy_is_the_large_models_own_text(model, draft, lookahead, count):
    found = ids(speculate(model, draft, PROMPT, count, lookahead=lookahead, temperature=0))
    assert found == generate(model, PROMPT, count, temperature=0).tolist()


def test_a_perfect_draft_is_always_believed(model):
    calls = []

    class Counting:
        def __init__(self, inner):
            self.identity, self.config, self.dtype = inner.identity, inner.config, inner.dtype
            self.extend = lambda *args, **kwargs: calls.append(1) or inner.extend(*args, **kwargs)

    from gpt_numpy.inference.decoder import OpsDecoder

    found = ids(speculate(Counting(OpsDecoder(model)), model, [3], 6, lookahead=5, seed=2))
    assert found == generate(model, [3], 6, seed=2).tolist()
    assert len(calls) == 1


@pytest.mark.parametrize("options", [{}, {"top_k": 4, "temperature": 1.5}, {"top_p": 0.7}])
def test_the_distribution_is_the_large_models(model, draft, options):
    # The second new token, over many seeds, against its exact distribution.
    n, counts = 800, np.zeros(11)
    for seed in range(n):
        counts[ids(speculate(model, draft, PROMPT, 2, lookahead=2, seed=seed, **options))[1]] += 1
    sampling, expected = Sampling(**options), np.zeros(11)
    first_ids, first = sampling.distribution(model.forward(np.array([PROMPT]))[0, -1], PROMPT)
    for token, probability in zip(first_ids, first):
        history = [*PROMPT, int(token)]
        second_ids, second = sampling.distribution(model.forward(np.array([history]))[0, -1], history)
        expected[second_ids] += probability * second
    assert not counts[expected == 0].any()
    kept = expected * n >= 5
    chi_squared = ((counts - expected * n)[kept] ** 2 / (expected * n)[kept]).sum()
    assert chi_squared < 32  # at most 10 degrees of freedom; the seeds are fixed


def test_stop_tokens_and_faults(model, draft):
    free = ids(speculate(model, draft, PROMPT, 10, temperature=0))
    assert ids(speculate(model, draft, PROMPT, 10, temperature=0, stop_tokens=[free[4]])) == free[: free.index(free[4])]
    other = GPT(GPTConfig(12, 5, 1, 1, 4), dtype=np.float64, ops=layers)
    with pytest.raises(GenerationError, match="another vocabulary"):
        list(speculate(model, other, PROMPT, 3))
    with pytest.raises(GenerationError, match="lookahead"):
        list(speculate(model, draft, PROMPT, 3, lookahead=0))
    with pytest.raises(GenerationError, match="empty"):
        list(speculate(model, draft, [], 3))
