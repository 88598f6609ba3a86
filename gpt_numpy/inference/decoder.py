"""The forward pass over new tokens only: the keys and values of earlier tokens come from a ``KVCache``.

``Decoder`` is the protocol of the two decoders here. A decoder holds weights and nothing that changes: the memory of a
call belongs to the call or to the cache that is passed in. Any number of Python threads may therefore use one decoder,
each with its own caches. ``panel_decoder.PanelDecoder`` is the fast decoder.

``OpsDecoder`` is the specification. ``OpsDecoder`` runs the model's own layer functions, block by block as in
``GPT._block_forward``, on any number of new tokens. Reading a long prompt (*prefill*) is matrix products, limited by
arithmetic. Generating one token at a time (*decode*) uses each weight once for each read, and is limited by memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from ..config import GPTConfig
from ..errors import ContextLengthError, GenerationError
from ..model import GPT, check_tokens
from .cache import KVCache
from .sampling import largest


@runtime_checkable
class Decoder(Protocol):
    """Protocol of a decoder, which extends cached sequences by new tokens.

    config    the model's shape
    dtype     type of the logits and of the caches that this decoder fills
    identity  the object that a cache remembers as its owner: the weights, or the model that holds them
    """

    config: GPTConfig

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def identity(self) -> object: ...

    def extend(self, tokens, cache: KVCache, sequences=None, every: bool = False) -> np.ndarray:
        """Logits after ``tokens`` (n, T), which are appended to n sequences of ``cache``.

        sequences (n,) int: indices of the sequences; default all. Returns (n, V), the logits for the next token, or
        with ``every`` (n, T, V), the logits after each of the tokens. The result is that of a forward pass over the
        whole sequences. Raises ``ContextLengthError`` where the cache is too small; the cache is then unchanged.
        """
        ...

    def step_to_largest(self, tokens, cache: KVCache, count: int, sequences=None) -> tuple[np.ndarray, np.ndarray]:
        """The ``count`` largest logits after one more token for each sequence, ``tokens`` (n,).

        Returns ``(ids, logits)``, both (n, min(count, V)), ids in ascending order; of equal logits the lowest ids.
        Raises ``GenerationError`` where the logits are not finite numbers.
        """
        ...


class WholeWeights(NamedTuple):
    """What is said about the weights of a model that are not packed; the names are those of ``PackedWeights``."""

    format: str
    nbytes: int
    bytes_per_token: int


class OpsDecoder:
    """The specification of ``Decoder``: extends cached sequences with the layer functions of a ``GPT``."""

    def __init__(self, model: GPT):
        self.model = model
        self.identity: object = model
        self.config, self.dtype = model.config, model.dtype

    @property
    def weights(self) -> WholeWeights:
        """The format of the model's parameters, and their bytes."""
        flat = self.model.params.flat
        return WholeWeights(flat.dtype.name, flat.nbytes, flat.nbytes)

    def extend(self, tokens, cache: KVCache, sequences=None, every: bool = False) -> np.ndarray:
        """See ``Decoder.extend``."""
        p = self.model.params
        tokens, sequences, positions = self._prepare(tokens, cache, sequences)
        parts = self.model.parts
        x, _ = parts.embedding.forward(tokens, positions, p, np.empty)
        rotation = parts.attention.seen(positions, None, tokens.shape, self.dtype).rotation
        for i in range(self.config.n_layer):
            x = self._block(i, x, cache, sequences, rotation)
        cache.lengths[sequences] += tokens.shape[1]
        if not every:
            x = np.ascontiguousarray(x[:, -1:])
        x, _ = self.model.parts.norm.forward(x, p, "ln_f.", np.empty)
        logits, _ = self.model.parts.head.forward(x, p)
        return logits if every else logits[:, 0]

    def step_to_largest(self, tokens, cache: KVCache, count: int, sequences=None) -> tuple[np.ndarray, np.ndarray]:
        """See ``Decoder.step_to_largest``."""
        return largest_of_each(self.extend(np.asarray(tokens)[:, None], cache, sequences), count)

    def _prepare(self, tokens, cache, sequences):
        return begin_extension(self, tokens, cache, sequences)

    def _block(self, i, x, cache, sequences, rotation):
        ops, (_, norm, _, mlp, _), p, h = self.model.ops, self.model.parts, self.model.params, f"h.{i}."
        normed, _ = norm.forward(x, p, h + "ln_1.", np.empty)
        qkv, _ = ops.linear_forward(normed, p[h + "attn.c_attn.weight"], p.get(h + "attn.c_attn.bias"))
        heads = self._attend(i, qkv, cache, sequences, rotation)
        branch, _ = ops.linear_forward(heads, p[h + "attn.c_proj.weight"], p.get(h + "attn.c_proj.bias"))
        x, _ = ops.residual_forward(x, branch)
        normed, _ = norm.forward(x, p, h + "ln_2.", np.empty)
        branch, _ = mlp.forward(normed, p, h + "mlp.", np.empty, None)
        x, _ = ops.residual_forward(x, branch)
        return x

    def _attend(self, i, qkv, cache, sequences, rotation):
        # (n, T, columns) -> (n, T, heads). Sequences have different numbers of keys, so attention is called once for each.
        (n, T), config, ops = qkv.shape[:2], self.config, self.model.ops
        q, k, v = np.split(
            qkv.reshape(n, T, -1, config.head_size), [config.n_head, config.n_head + config.key_heads], 2
        )
        q, k = self._prepared(i, q, "q", rotation), self._prepared(i, k, "k", rotation)
        heads = np.empty((n, T, config.heads_width), qkv.dtype)
        scale, window = config.attention_scale(i), config.window(i)
        for row, sequence in enumerate(sequences):
            start = cache.lengths[sequence]
            stop = start + T
            keys = cache.keys[i, sequence].swapaxes(0, 1)  # (capacity, key_heads, head_size)
            values = cache.values[i, sequence].swapaxes(0, 1)
            keys[start:stop], values[start:stop] = k[row], v[row]
            first = None if window is None else np.maximum(np.arange(start, stop) - window + 1, 0)[None]
            out, _ = ops.attention_forward(q[row, None], keys[None, :stop], values[None, :stop], first, scale=scale)
            heads[row] = out.reshape(T, -1)
        return heads

    def _prepared(self, i, x, which, rotation):
        """Queries or keys, normalised and turned where the model does so."""
        if self.config.qk_norm:
            weight = self.model.params[f"h.{i}.attn.{which}_norm.weight"]
            x, _ = self.model.ops.rmsnorm_forward(x, weight, self.config.norm_epsilon)
        return x if rotation is None else self.model.ops.rotary_forward(x, rotation)[0]


def begin_extension(decoder: Decoder, tokens, cache: KVCache, sequences=None):
    """The checked arguments of ``Decoder.extend``, as arrays of their own; the cache now belongs to ``decoder``.

    Returns tokens (n, T), sequences (n,) and positions (n, T), all int64.
    """
    tokens = check_tokens(tokens, decoder.config.vocab_size)
    n, T = tokens.shape
    sequences = np.arange(cache.batch) if sequences is None else np.array(sequences, np.int64)
    if sequences.shape != (n,) or T == 0:
        raise ContextLengthError(
            "one row of new tokens for each sequence",
            field="tokens",
            found=tokens.shape,
            expected=f"({sequences.size}, at least 1)",
        )
    cache.claim(decoder, sequences, T)
    return tokens, sequences, cache.lengths[sequences, None] + np.arange(T)


def largest_of_each(logits: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """What ``Decoder.step_to_largest`` returns, from all logits (n, V)."""
    check_logits(logits.sum(dtype=np.float64))
    ids, values = zip(*(largest(row, count) for row in logits))
    return np.stack(ids), np.stack(values)


def check_logits(total):
    """Raise ``GenerationError`` if ``total``, a sum of logits, shows that one of them is not a finite number."""
    if not np.isfinite(total):
        raise GenerationError("the logits are not numbers", field="logits", found=float(total))


def decoder_for(model: Any) -> Decoder:
    """The decoder of a ``GPT``; a decoder is returned unchanged."""
    return model if hasattr(model, "extend") else OpsDecoder(model)
