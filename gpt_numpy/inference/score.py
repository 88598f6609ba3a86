"""How probable a model finds a text: loss, perplexity, bits per byte, and each token's share."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..errors import GenerationError
from ..tokenizer.specials import before_document
from ..wording import counted
from .cache import KVCache
from .decoder import decoder_for
from .sequences import context_start

CHUNK = 128  # tokens whose logits are held at a time


class Score(NamedTuple):
    """The score of ``tokens`` (T,), the first of which is context only.

    logprobs  (T − 1,) float64: log-probability, in nats, of each of tokens[1:], given the tokens that the model sees
    n_bytes   bytes of the text that was scored
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    n_bytes: int

    def __repr__(self):
        sizes = f"{counted(len(self.logprobs), 'token')}, {counted(self.n_bytes, 'byte')}"
        figures = f"loss {self.loss:.4f}, perplexity {self.perplexity:.3f}, {self.bits_per_byte:.4f} bits per byte"
        return f"<Score: {sizes}: {figures}>"

    @property
    def loss(self):
        """Mean cross-entropy in nats a token."""
        return -float(self.logprobs.mean())

    @property
    def perplexity(self):
        """exp(loss)."""
        return math.exp(self.loss)

    @property
    def bits_per_byte(self):
        """Loss in bits a byte of text: comparable between tokenizers, unlike the loss a token."""
        return -float(self.logprobs.sum()) / math.log(2) / self.n_bytes


def token_logprobs(model, tokens):
    """log P(tokens[i] | what is seen of tokens[:i]) for i = 1 …; (T − 1,) float64.

    The model sees the same tokens as in generation: when the context is full, its last half is kept (``sequences``),
    so that every later token has at least half a context before it.
    """
    decoder = decoder_for(model)
    block_size = decoder.config.block_size
    tokens = np.asarray(tokens)
    if len(tokens) < 2:
        raise GenerationError(
            "nothing to score", field="tokens", found=counted(len(tokens), "token"), expected="at least 2"
        )
    cache, start, fed, results = KVCache(decoder.config, 1, dtype=decoder.dtype), 0, 0, []
    while fed < len(tokens) - 1:
        if fed + 1 - start > block_size:
            start = context_start(fed + 1, block_size)
            cache.truncate(0, 0)
            if fed > start:
                decoder.extend(tokens[None, start:fed], cache)
        stop = min(fed + CHUNK, start + block_size, len(tokens) - 1)
        logits = decoder.extend(tokens[None, fed:stop], cache, every=True)[0]
        results.append(log_softmax_at(logits, tokens[fed + 1 : stop + 1]))
        fed = stop
    return np.concatenate(results)


def log_softmax_at(logits, targets):
    """log softmax(logits)[targets], row by row: (T,) float64 from logits (T, V) and ids (T,)."""
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits[np.arange(len(targets)), targets] - np.log(np.exp(logits).sum(axis=1))


def score_text(model, tokenizer, text):
    """The ``Score`` of a text.

    The model reads the text as the beginning of a document, after the tokenizer's ``begin_ids`` or else the end-of-text
    token. Without such a token, the text's first token is context only.
    """
    front = before_document(tokenizer)
    tokens = np.array(front + tokenizer.encode_ordinary(text), np.int64)
    unscored = max(len(front), 1) - 1  # all in front but the last, which is the context of the text's first token
    logprobs, tokens = token_logprobs(model, tokens)[unscored:], tokens[unscored:]
    return Score(tokens, logprobs, len(tokenizer.decode_bytes(tokens[1:].tolist())))
