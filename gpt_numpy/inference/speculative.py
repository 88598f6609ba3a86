"""Speculative decoding: a small model drafts a few tokens, the large one checks them all in one pass.

The time of a token is that of reading the large model's weights, and checking five tokens reads them only once.
The result is that of the large model alone: with temperature 0 the same
tokens; otherwise tokens of the same distribution (Leviathan, Kalman and Matias 2023, algorithm 1). A token x drafted
from the distribution q is kept with probability min(1, p(x)/q(x)), where p is the large model's distribution. The first
token that is not kept is replaced by a draw from max(0, p − q), normalised, and the drafts after it are dropped.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import GenerationError
from .cache import KVCache
from .decoder import decoder_for
from .generate import NewToken, check_counts, check_prompt
from .sampling import Sampling, draw, uniform
from .sequences import context_start

_ACCEPT, _REPLACE = 1, 2  # which draw at a position; 0 is the ordinary one


class _Reader:
    """One model's cache of a growing sequence, which may be shortened."""

    def __init__(self, model):
        self.decoder = decoder_for(model)
        self.block_size = self.decoder.config.block_size
        self.cache = KVCache(self.decoder.config, 1, dtype=self.decoder.dtype)
        self.start = 0

    def room(self, count):
        """Number of tokens that the window of ``count`` tokens can still take before it has to move."""
        return self.block_size - (count - context_start(count, self.block_size))

    def logits(self, history, last):
        """Logits after each of the ``last`` last tokens of ``history``, (last, V)."""
        start = context_start(len(history) - last + 1, self.block_size)
        if start != self.start:
            self.cache.truncate(0, 0)
            self.start = start
        self.forget(len(history) - last)
        cached = start + int(self.cache.lengths[0])
        new = np.array([history[cached:]])
        return self.decoder.extend(new, self.cache, every=True)[0, -last:]

    def forget(self, count):
        """Keep at most the first ``count`` tokens of the sequence."""
        self.cache.truncate(0, min(int(self.cache.lengths[0]), max(0, count - self.start)))


def speculate(model, draft, tokens, max_new_tokens, *, lookahead=4, stop_tokens=(), sample=0, **sampling):
    """Yield ``NewToken``s as ``generate.stream`` does for one prompt, with ``draft`` proposing ``lookahead`` at a time.

    sampling: see ``Sampling``. Both models use the same sampling and need the same vocabulary. Where a window has to
    move, one token is written without a draft.
    """
    sampling = Sampling(**sampling)
    target, drafter = _Reader(model), _Reader(draft)
    vocab_size = target.decoder.config.vocab_size
    if drafter.decoder.config.vocab_size != vocab_size:
        raise GenerationError(
            "the draft model has another vocabulary",
            field="draft",
            found=drafter.decoder.config.vocab_size,
            expected=str(vocab_size),
        )
    check_counts(max_new_tokens=(max_new_tokens, 0), lookahead=(lookahead, 1))
    sampling.check(vocab_size)
    history, stop_tokens = check_prompt(tokens, vocab_size).tolist(), frozenset(stop_tokens)
    end = len(history) + max_new_tokens
    while len(history) < end:
        count = min(lookahead, end - len(history) - 1, target.room(len(history)), drafter.room(len(history)))
        proposed, beliefs = _propose(drafter, history, count, sampling, sample)
        rows = target.logits(history + proposed, len(proposed) + 1)
        for token in _accept(rows, proposed, beliefs, history, sampling, sample):
            if token in stop_tokens:
                return
            history.append(token)
            yield NewToken(0, token, math.nan)


def _propose(drafter, history, count, sampling, sample):
    # Drafted tokens, and the distribution that each was drawn from.
    history, proposed, beliefs = list(history), [], []
    for _ in range(max(0, count)):
        logits = drafter.logits(history, 1)[0]
        ids, probabilities = sampling.distribution(logits, history)
        proposed.append(draw(ids, probabilities, uniform(sampling.seed, sample, len(history))))
        beliefs.append((ids, probabilities))
        history.append(proposed[-1])
    return proposed, beliefs


def _accept(rows, proposed, beliefs, history, sampling, sample):
    # The tokens that this round adds: those of the draft that are kept, and one of the large model's own.
    history, settled = list(history), []
    for row, token, (draft_ids, draft_probabilities) in zip(rows, proposed, beliefs):
        ids, probabilities = sampling.distribution(row, history)
        p, q = _probability(ids, probabilities, token), _probability(draft_ids, draft_probabilities, token)
        if uniform(sampling.seed, sample, len(history), _ACCEPT) * q >= p:
            believed = np.zeros(len(row))
            believed[draft_ids] = draft_probabilities
            missing = np.maximum(probabilities - believed[ids], 0)
            u = uniform(sampling.seed, sample, len(history), _REPLACE)
            return [*settled, draw(ids, missing if missing.sum() > 0 else probabilities, u)]
        settled.append(token)
        history.append(token)
    ids, probabilities = sampling.distribution(rows[len(proposed)], history)
    return [*settled, draw(ids, probabilities, uniform(sampling.seed, sample, len(history)))]


def _probability(ids, probabilities, token):
    index = np.flatnonzero(ids == token)
    return float(probabilities[index[0]]) if len(index) else 0.0
