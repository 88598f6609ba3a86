"""Generation on token ids: ``stream`` yields tokens as they are chosen, ``generate`` collects them.

>>> from gpt_numpy import GPT, GPTConfig, generate, layers
>>> model = GPT(GPTConfig.preset("tiny"), ops=layers)
>>> generate(model, [1, 2, 3], max_new_tokens=4, temperature=0).shape
(4,)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..errors import GenerationError
from ..model import check_tokens
from .sampling import Sampling, is_integer, largest, log_probability
from .sequences import Sequences


class NewToken(NamedTuple):
    """One generated token."""

    sequence: int  # prompt index · samples + sample index
    id: int
    logprob: float  # under the model's own distribution, before any filter; NaN without ``logprobs``


def generate(model, tokens, max_new_tokens, *, samples=1, stop_tokens=(), **sampling):
    """Continue ``tokens`` by up to ``max_new_tokens`` tokens; returns the new ids only.

    tokens       one prompt, (T,) ids: the result is an int64 array (T_new,); or several prompts, (B, T) or a
                 list of lists of any lengths: the result is a list of arrays, ``samples`` for each prompt
    samples      continuations of each prompt, from one prefill; with more than 1 the result is a list too
    stop_tokens  ids that end a sequence; the stop token itself is not returned
    sampling     temperature, top_k, top_p, min_p, repetition_penalty, logit_bias, seed, vocabulary: see ``Sampling``.
                 temperature 0 is greedy

    A sequence may outgrow the model's context: see ``sequences``. Raises ``GenerationError``.
    """
    one = samples == 1 and _is_one_prompt(tokens)
    prompts = [tokens] if _is_one_prompt(tokens) else tokens
    results = [[] for _ in range(len(prompts) * samples)]
    for token in stream(model, prompts, max_new_tokens, samples=samples, stop_tokens=stop_tokens, **sampling):
        results[token.sequence].append(token.id)
    arrays = [np.array(result, np.int64) for result in results]
    return arrays[0] if one else arrays


def stream(model, prompts, max_new_tokens, *, samples=1, stop_tokens=(), finished=(), logprobs=False, **sampling):
    """Yield each ``NewToken`` as soon as it is chosen. The arguments are those of ``generate``, and

    prompts   a list of prompts, or one prompt
    finished  a set of sequence numbers; a sequence that the caller adds while iterating ends
    logprobs  whether to compute each token's log-probability

    All sequences advance together, one token each in turn. A sequence that has ended costs nothing more.
    """
    sampling = Sampling(**sampling)
    prompts = [prompts] if _is_one_prompt(prompts) else prompts
    vocab_size = model.config.vocab_size
    prompts = [check_prompt(prompt, vocab_size) for prompt in prompts]
    sampling.check(vocab_size)
    check_counts(max_new_tokens=(max_new_tokens, 0), samples=(samples, 1))
    if not prompts:
        raise GenerationError("no prompt at all", field="tokens")
    stop_tokens = frozenset(stop_tokens)
    if max_new_tokens == 0:
        return
    sequences, found = _prefill(model, prompts, samples, max_new_tokens)
    needed = None if logprobs else sampling.largest_needed
    if needed is not None:
        needed += sampling.never_drawn(vocab_size)
        found = [largest(logits, needed) for logits in found]
    active = list(range(len(found)))
    for count in range(1, max_new_tokens + 1):
        chosen = []
        for row, sequence in enumerate(active):
            where = sequences.tokens[sequence], sequence % samples
            if needed is None:
                token = sampling.choose(found[row], *where)
            else:
                token = sampling.choose_among(*found[row], *where)
            if token not in stop_tokens:
                chosen.append((token, sequence))
                logprob = log_probability(found[row], token) if logprobs else math.nan
                yield NewToken(sequence, token, logprob)
        chosen = [(token, sequence) for token, sequence in chosen if sequence not in finished]
        active = [sequence for _, sequence in chosen]
        if not active or count == max_new_tokens:
            return
        found = sequences.step([token for token, _ in chosen], active, needed)


def _prefill(model, prompts, samples, max_new_tokens):
    # Each prompt is read once, whatever the number of its samples.
    capacity = max(len(prompt) for prompt in prompts) + max_new_tokens
    sequences = Sequences(model, len(prompts) * samples, capacity)
    logits = []
    for index, prompt in enumerate(prompts):
        first = index * samples
        logits += [sequences.append(first, prompt)] * samples
        for other in range(first + 1, first + samples):
            sequences.copy(first, other)
    return sequences, logits


def check_prompt(prompt, vocab_size):
    """``prompt`` as an int64 array (T,) with T >= 1 and every id in range."""
    array = np.asarray(prompt)
    if array.size == 0:
        raise GenerationError("nothing to continue: the prompt is empty", field="tokens")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise GenerationError(
            "a prompt is a list of token ids",
            field="tokens",
            found=f"{array.dtype} {array.shape}",
            expected="integers (T,)",
        )
    return check_tokens(array[None], vocab_size)[0]


def check_counts(**counts):
    """Check counts given by name as (value, minimum)."""
    for name, (value, minimum) in counts.items():
        if not is_integer(value) or value < minimum:
            raise GenerationError(
                "not a count", field=name, found=value, expected=f"a whole number, at least {minimum}"
            )


def _is_one_prompt(tokens):
    """Whether ``tokens`` is one prompt: a sequence of numbers (or empty), not of sequences."""
    return len(tokens) == 0 or np.ndim(tokens[0]) == 0
