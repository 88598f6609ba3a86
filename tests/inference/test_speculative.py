import inspect
import itertools
import math
import types

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, generate, layers
from gpt_numpy.errors import GenerationError
from gpt_numpy.inference import sampling as sampling_module
from gpt_numpy.inference import speculative
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


def assert_distribution(counts, expected):
    """Pearson's test, at the value that chance exceeds once in 30,000 for these degrees of freedom (Wilson, Hilferty)."""
    n = counts.sum()
    assert not counts[expected == 0].any()
    often = expected * n >= 5  # the seldom ones together
    observed = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum()) * n
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    chi_squared, k = ((observed - wanted) ** 2 / wanted).sum(), len(wanted) - 1
    assert chi_squared < k * (1 - 2 / (9 * k) + 4 * math.sqrt(2 / (9 * k))) ** 3


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
    assert_distribution(counts, expected)


# ---- exactly: every outcome of the uniform numbers, weighted --------------------------------------------------------


class Fixed:
    """A decoder whose next token has the same distribution whatever came before."""

    dtype = np.dtype(np.float64)

    def __init__(self, probabilities):
        with np.errstate(divide="ignore"):
            self.logits = np.log(probabilities)
        self.identity, self.config = self, GPTConfig(len(probabilities), 16, 1, 1, 4)

    def extend(self, tokens, cache, sequences=None, every=False):
        tokens = np.asarray(tokens)
        cache.lengths += tokens.shape[1]
        return np.broadcast_to(self.logits, (*tokens.shape, len(self.logits))) if every else self.logits[None]


P, Q = np.array([4, 3, 2, 1, 0]) / 10, np.array([1, 2, 3, 3, 1]) / 10
GRIDS = {
    0: 10,
    1: 12,
    2: 4,
}  # 10 for the draws from p and q, 12 for p / q of 2/3, 1/3, 0, 4 for (p − q)⁺ of 3/4 and 1/4


def outcomes(monkeypatch, run):
    """The share of each token among all cells of the uniform numbers' space, whose edges are those of the outcomes."""
    counts = np.zeros(len(P))
    for cell in itertools.product(*(range(n) for n in GRIDS.values())):
        at = {kind: (i + 0.5) / n for (kind, n), i in zip(GRIDS.items(), cell)}
        for module in (speculative, sampling_module):
            monkeypatch.setattr(module, "uniform", lambda seed, sample, position, kind=0, at=at: at[kind])
        counts[run()] += 1
    return counts / counts.sum()


def test_plain_sampling_by_exact_enumeration(monkeypatch):
    found = outcomes(monkeypatch, lambda: Sampling().choose(np.log(np.maximum(P, 1e-300)), [0]))
    np.testing.assert_allclose(found, P, rtol=0, atol=1e-12)


def test_speculative_sampling_by_exact_enumeration(monkeypatch):
    model, draft = Fixed(P), Fixed(Q)
    found = outcomes(monkeypatch, lambda: next(speculate(model, draft, [0], 2, lookahead=1)).id)
    np.testing.assert_allclose(found, P, rtol=0, atol=1e-12)


def test_the_classic_mistake_is_caught_with_certainty(monkeypatch):
    """A refused draft replaced by a draw from p, where it has to be one from max(0, p − q)."""
    source = inspect.getsource(speculative)
    right = "missing = np.maximum(probabilities - believed[ids], 0)"
    assert source.count(right) == 1
    planted = types.ModuleType("gpt_numpy.inference.planted")
    planted.__package__ = speculative.__package__
    exec(source.replace(right, "missing = probabilities"), planted.__dict__)
    model, draft = Fixed(P), Fixed(Q)

    def run():
        planted.uniform = speculative.uniform
        return next(planted.speculate(model, draft, [0], 2, lookahead=1)).id

    assert np.abs(outcomes(monkeypatch, run) - P).max() > 0.05


def test_neither_model_draws_an_id_outside_the_vocabulary(model, draft):
    for options in ({}, {"temperature": 0}, {"top_k": 3}):
        assert max(ids(speculate(model, draft, PROMPT, 40, vocabulary=5, **options))) < 5


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
