"""Growing sequences, and the part of each that a model with a bounded context still sees.

A GPT-2 has ``block_size`` learned positions. When a sequence outgrows them, the oldest tokens
are dropped and the rest is read again from position 0, because every cached key was computed with an absolute
position and cannot be moved. Reading again for each new token would cost a whole prefill each time. Therefore
half of the context is kept, and the other half is free for new tokens.

``context_start`` returns the index of the first token that the model sees. The index depends on the number of tokens
alone, not on whether they came in one prompt or one by one. The generated text therefore does not depend on that either.
"""

from __future__ import annotations

import numpy as np

from ..errors import GenerationError
from .cache import KVCache
from .decoder import decoder_for
from .sampling import largest


def context_start(count, block_size):
    """Index of the first of ``count`` tokens that the model sees: 0 as long as they fit ``block_size``.

    >>> [context_start(count, 4) for count in range(1, 10)]
    [0, 0, 0, 0, 3, 3, 3, 6, 6]
    """
    hop = block_size + 1 - max(1, block_size // 2)
    return -(-max(0, count - block_size) // hop) * hop


class Sequences:
    """``batch`` sequences of tokens that grow without limit, with their cache.

    tokens  the list of all token ids of each sequence, also of those that the model no longer sees
    """

    def __init__(self, model, batch=1, capacity=None):
        self.decoder = decoder_for(model)
        config = self.decoder.config
        self.block_size = config.block_size
        self.cache = KVCache(config, batch, min(capacity or self.block_size, self.block_size), self.decoder.dtype)
        self.tokens = [[] for _ in range(batch)]

    def append(self, sequence, tokens):
        """Append tokens (T,) to one sequence; returns the logits (V,) of the next token."""
        tokens = [int(token) for token in tokens]
        if not tokens:
            raise GenerationError("nothing to continue: the prompt is empty", field="tokens")
        seen = self.tokens[sequence] + tokens
        start = context_start(len(seen), self.block_size)
        if start > context_start(len(self.tokens[sequence]), self.block_size):
            self.cache.truncate(sequence, 0)
        cached = int(self.cache.lengths[sequence])
        logits = self.decoder.extend(np.array([seen[start + cached :]]), self.cache, np.array([sequence]))
        self.tokens[sequence] = seen
        return logits[0]

    def step(self, tokens, sequences, count=None):
        """Append one token to each of ``sequences``; returns a list of logits (V,), one for each sequence.

        With ``count``, the list holds ``(ids, logits)`` of the ``count`` largest logits of each sequence, as
        ``Decoder.step_to_largest`` returns them. A sequence that outgrew its context is read again.
        """
        results = [None] * len(sequences)
        together = []
        for row, (token, sequence) in enumerate(zip(tokens, sequences)):
            length = len(self.tokens[sequence])
            if context_start(length + 1, self.block_size) > context_start(length, self.block_size):
                logits = self.append(sequence, [token])
                results[row] = logits if count is None else largest(logits, count)
            else:
                together.append(row)
        if together:
            new, where = (np.array([values[row] for row in together]) for values in (tokens, sequences))
            if count is None:
                found = self.decoder.extend(new[:, None], self.cache, where)
            else:
                found = zip(*self.decoder.step_to_largest(new, self.cache, count, where))
            for row, result in zip(together, found):
                self.tokens[sequences[row]].append(int(tokens[row]))
                results[row] = result
        return results

    def copy(self, source, target):
        """Make sequence ``target`` a copy of ``source``."""
        self.cache.copy_sequence(source, target)
        self.tokens[target] = list(self.tokens[source])
