"""The cost of another number format: how far the logits move, and how a text's perplexity changes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .cache import KVCache
from .score import token_logprobs


class Difference(NamedTuple):
    """Differences between the logits of a model in another format and those of the same model in float32."""

    largest: float  # difference of two logits
    rms: float  # root mean square of all differences
    spread: float  # standard deviation of the float32 logits, to see the two in proportion
    same_choice: float  # share of positions where the most probable token is the same


def logit_difference(exact, other, tokens):
    """The ``Difference`` of two decoders' logits after each of ``tokens`` (T,), T <= block_size."""
    found, expected = (
        decoder.extend(tokens[None], KVCache(decoder.config, 1, len(tokens)), every=True)[0].astype(np.float64)
        for decoder in (other, exact)
    )
    error = found - expected
    return Difference(
        float(np.abs(error).max()),
        math.sqrt(float(np.mean(error**2))),
        float(expected.std()),
        float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1))),
    )


def perplexities(exact, other, tokens):
    """Perplexity of ``tokens`` (T,) under each of two decoders."""
    return tuple(math.exp(-token_logprobs(decoder, tokens).mean()) for decoder in (exact, other))
