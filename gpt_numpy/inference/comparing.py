"""The cost of another number format: how far the logits move, and how a text's perplexity changes; and how to lower it.

The change of a matrix's output by rounded weights is Σ_k x[k] · error[k]. Its expected square is Σ_k E(x[k]²) · error[k]², if
the inputs are uncorrelated. So E(x[k]²) over the tokens of a text says how much an error counts (``packed``).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..config import GATED_ACTIVATIONS
from .cache import KVCache
from .decoder import OpsDecoder
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


class Recorder:
    """The functions of ``ops``; products add the squares of their inputs to those of the matrix's name.

    names: address of a matrix's first number → name. ``squares``: name → (K,) sums; ``counts``: name → rows.
    """

    def __init__(self, ops: Any, names: dict[int, str]):
        self._ops, self._names = ops, names
        self.squares: dict[str, np.ndarray] = {}
        self.counts: dict[str, int] = {}

    def __getattr__(self, name):
        return getattr(self._ops, name)

    def linear_forward(self, x, weight, bias, *args):
        name, rows = self._names[weight.ctypes.data], x.reshape(-1, x.shape[-1]).astype(np.float64)
        self.squares[name] = self.squares.get(name, 0) + (rows * rows).sum(axis=0)
        self.counts[name] = self.counts.get(name, 0) + len(rows)
        return self._ops.linear_forward(x, weight, bias, *args)

    def mlp_forward(self, x, fc_weight, fc_bias, proj_weight, proj_bias, alloc, alloc_out, activation):
        hidden, _ = self.linear_forward(x, fc_weight, fc_bias)
        if activation in GATED_ACTIVATIONS:
            activated, _ = self._ops.swiglu_forward(hidden, GATED_ACTIVATIONS[activation])
        else:
            activated, _ = self._ops.activation_forward(hidden, activation)
        return self.linear_forward(activated, proj_weight, proj_bias)


def importance_on(model, tokens, begin=()) -> dict[str, np.ndarray]:
    """name of each matrix of a block → (K,) float32, the mean squares of its inputs over ``tokens`` (T,) of a text.

    The tokens are read in windows of the model's context, each from an empty cache. ``begin``, the tokenizer's
    ``begin_ids``, stand in front of every window, as in llama.cpp's importance matrix: the model has read no text
    without them.
    """
    names = {view.ctypes.data: name for name, view in model.params.items()}
    recorder = Recorder(model.ops, names)
    reader = type(model)(model.config, ops=recorder, params=model.params)
    decoder, size = OpsDecoder(reader), max(1, model.config.block_size - len(begin))
    tokens = np.asarray(tokens)
    if list(tokens[: len(begin)]) == list(begin):
        tokens = tokens[len(begin) :]
    for start in range(0, len(tokens), size):
        window = np.array([[*begin, *tokens[start : start + size]]])
        decoder.extend(window, KVCache(model.config, 1, window.shape[1], model.dtype))
    return {name: (total / recorder.counts[name]).astype(np.float32) for name, total in recorder.squares.items()}
