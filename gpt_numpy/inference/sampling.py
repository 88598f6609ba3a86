"""From logits to the next token.

The steps are logit bias, repetition penalty, temperature, top-k, top-p and min-p, in this order and each optional;
then one draw. A draw is a function of (seed, sample, position) and of the distribution, not of a generator's state. A
prompt therefore gives the same text alone or in any batch, and a text can be continued where it stopped.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ..errors import GenerationError
from ..randomness import fold


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    temperature         logits are divided by it; 0 takes the most probable token (the lowest id of equals)
    top_k               only the k most probable tokens (lowest ids first among equals); None, 0, or as many as there
                        are: all of them
    top_p               only the fewest tokens whose probabilities add up to p (Holtzman et al. 2020)
    min_p               only tokens at least min_p times as probable as the first (Nguyen et al. 2024)
    repetition_penalty  logits of tokens already in the sequence are divided by it where positive, multiplied where
                        negative (Keskar et al. 2019); 1 changes nothing
    logit_bias          mapping from token id to a number added to its logit; −∞ forbids the token
    seed                of the draws
    vocabulary          only ids below this number; for a model with more ids than its tokenizer has text for

    Raises ``GenerationError`` for a value out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    logit_bias: dict | None = None
    seed: int = 0
    vocabulary: int | None = None

    def __post_init__(self):
        _number("temperature", self.temperature, "a number >= 0", lambda x: 0 <= x < math.inf)
        _number("repetition_penalty", self.repetition_penalty, "a number > 0", lambda x: 0 < x < math.inf)
        if self.top_p is not None:
            _number("top_p", self.top_p, "a number > 0 and <= 1", lambda x: 0 < x <= 1)
        if self.min_p is not None:
            _number("min_p", self.min_p, "a number >= 0 and <= 1", lambda x: 0 <= x <= 1)
        if self.top_k is not None and (not is_integer(self.top_k) or self.top_k < 0):
            raise GenerationError("not a count", field="top_k", found=self.top_k, expected="a whole number, at least 0")
        if self.vocabulary is not None and (not is_integer(self.vocabulary) or self.vocabulary < 1):
            raise GenerationError(
                "not a count", field="vocabulary", found=self.vocabulary, expected="a whole number above 0"
            )
        if not is_integer(self.seed):
            raise GenerationError("not a seed", field="seed", found=self.seed, expected="an integer")

    @property
    def largest_needed(self):
        """Number of the largest logits that determine the draw; None where any logit may matter.

        The steps before top-k may lift any token into the first k. The steps after top-k, top-p and min-p, read the
        first k alone.
        """
        if self.logit_bias or self.repetition_penalty != 1:
            return None
        return 1 if self.temperature == 0 else self.top_k or None

    def never_drawn(self, vocab_size):
        """Number of a model's ids outside ``vocabulary``, whose logits may be among the largest."""
        return 0 if self.vocabulary is None else max(0, vocab_size - self.vocabulary)

    def check(self, vocab_size):
        """Raise ``GenerationError`` for values that do not fit a vocabulary of ``vocab_size`` tokens."""
        for token, bias in (self.logit_bias or {}).items():
            if not is_integer(token) or not 0 <= token < vocab_size:
                raise GenerationError(
                    "no such token", field="logit_bias", found=token, expected=f"0 to {vocab_size - 1}"
                )
            _number(f"logit_bias[{token}]", bias, "a number or -inf", lambda x: x < math.inf)

    def choose(self, logits, history, sample=0):
        """The next token's id, from logits (V,) and the ids of the whole sequence so far."""
        if self.temperature == 0:
            return int(np.argmax(self._adjusted(logits, history)))
        ids, probabilities = self.distribution(logits, history)
        return draw(ids, probabilities, uniform(self.seed, sample, len(history)))

    def choose_among(self, ids, logits, history, sample=0):
        """The same id as `choose`, from the result of `largest` for `largest_needed`."""
        if self.vocabulary is not None:
            count = int(np.searchsorted(ids, self.vocabulary))  # ids ascend
            ids, logits = ids[:count], logits[:count]
        if self.temperature == 0:
            return int(ids[np.argmax(logits)])
        if len(ids) > self.top_k:
            chosen, logits = largest(logits, self.top_k)
            ids = ids[chosen]
        return draw(*self._filter(ids, logits), uniform(self.seed, sample, len(history)))

    def distribution(self, logits, history):
        """``(ids, probabilities)`` of the tokens that may come next, most probable first; float64, sum 1."""
        logits = self._adjusted(logits, history)
        if self.temperature == 0:
            return np.array([np.argmax(logits)]), np.ones(1)
        ids = largest(logits, self.top_k)[0] if self.top_k else np.flatnonzero(logits > -math.inf)
        return self._filter(ids, logits[ids])

    def _filter(self, ids, logits):
        # The steps from the temperature on. Sums are taken in the order of the ids, since their last bits depend on it.
        with np.errstate(over="ignore"):
            scaled = (logits.astype(np.float64) - float(logits.max())) / self.temperature
        probabilities = np.exp(scaled)
        probabilities /= probabilities.sum()
        if self.top_p is not None and self.top_p < 1:
            # All tokens below (1 - p)/n together weigh less than 1 - p, so none of them is needed.
            likely = np.flatnonzero(probabilities >= (1 - self.top_p) / len(ids))
            ids, probabilities = ids[likely], probabilities[likely]
        order = np.lexsort((ids, -probabilities))
        ids, probabilities = ids[order], probabilities[order]
        keep = len(ids)
        if self.top_p is not None and self.top_p < 1:
            keep = int(np.searchsorted(np.cumsum(probabilities), self.top_p)) + 1
        if self.min_p is not None:
            keep = min(keep, int(np.count_nonzero(probabilities >= self.min_p * probabilities[0])))
        ids, probabilities = ids[:keep], probabilities[:keep]
        return ids, probabilities / probabilities.sum()

    def _adjusted(self, logits, history):
        logits = logits[: self.vocabulary]
        if self.logit_bias or self.repetition_penalty != 1:
            logits = logits.astype(np.float64)
            for token, bias in (self.logit_bias or {}).items():
                if token < len(logits):
                    logits[token] += bias
            if self.repetition_penalty != 1:
                seen = np.unique(history)
                seen = seen[seen < len(logits)]
                penalty = np.where(logits[seen] > 0, 1 / self.repetition_penalty, self.repetition_penalty)
                logits[seen] *= penalty
        _check_finite(logits.max())
        return logits


def largest(logits, count):
    """``(ids, logits)`` of the ``count`` largest of logits (V,), ids in ascending order; of equals the lowest ids.

    The result is shorter where fewer logits are above −∞.
    """
    _check_finite(logits.max())
    ids = np.flatnonzero(logits > -math.inf)
    if count < len(ids):
        threshold = logits[np.argpartition(logits, -count)[-count]]  # the count-th largest
        above = np.flatnonzero(logits > threshold)
        equal = np.flatnonzero(logits == threshold)[: count - len(above)]
        ids = np.sort(np.concatenate([above, equal]))
    return ids, logits[ids]


def _check_finite(largest):
    if not math.isfinite(largest):
        reason = "no token is left to choose" if largest == -math.inf else "the logits are not numbers"
        raise GenerationError(reason, field="logits", found=float(largest))


def uniform(seed, *coordinates):
    """A number in [0, 1), a hash of the arguments that is uniformly distributed over them."""
    return (fold(seed, *coordinates) >> 11) * 2.0**-53


def draw(ids, probabilities, u):
    """The id where the cumulative probability first exceeds ``u``."""
    index = np.searchsorted(np.cumsum(probabilities), u * probabilities.sum(), side="right")
    return int(ids[min(int(index), len(ids) - 1)])


def log_probability(logits, token):
    """log softmax(logits)[token], in float64."""
    logits = logits.astype(np.float64)
    largest = logits.max()
    return float(logits[token] - largest - math.log(np.exp(logits - largest).sum()))


def is_integer(value):
    """Whether ``value`` is an integer of any type other than bool."""
    return hasattr(value, "__index__") and not isinstance(value, (bool, np.bool_))


def _number(name, value, expected, valid):
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not valid(value):  # every comparison with a NaN is false
        raise GenerationError("out of range", field=name, found=value, expected=expected)
