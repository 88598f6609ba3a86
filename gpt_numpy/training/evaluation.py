"""How good a model is on text it was not trained on, and how good no model at all would be.

Validation goes over fixed windows, so two runs, two checkpoints or two machines measure the same thing. Bits per
byte divide the total by the bytes of text, not by tokens, and so compare models with different tokenizers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..data import validation_windows
from ..model import IGNORE_INDEX


class Evaluation(NamedTuple):
    loss: float  # nats a token
    bits_per_byte: float
    tokens: int


def evaluate(model, tokens, token_bytes, batch_size, limit=None, group=None):
    """``Evaluation`` of ``model`` on ``tokens`` (N,), ``batch_size`` windows at a time.

    ``limit`` windows, evenly spread, or all. With a ``group`` every rank does its share and all get the total.
    """
    inputs, targets = validation_windows(tokens, min(model.config.block_size, len(tokens) - 1), limit or None)
    mine = range(len(inputs)) if group is None else group.share(len(inputs))
    nats, counted, text_bytes = 0.0, 0, 0
    for start in range(mine.start, mine.stop, batch_size):
        stop = min(start + batch_size, mine.stop)
        wanted = targets[start:stop]
        wanted_ids = wanted[wanted != IGNORE_INDEX]
        nats += model.loss(inputs[start:stop], wanted) * len(wanted_ids)
        counted += len(wanted_ids)
        text_bytes += int(token_bytes[wanted_ids].sum())
    if group is not None:
        nats, counted, text_bytes = group.sum([nats, counted, text_bytes])
    return Evaluation(nats / counted, nats / math.log(2) / max(text_bytes, 1), int(counted))


def unigram_loss(training, validation, vocab_size):
    """Nats a token of the model that knows only how frequent each token is (add-one smoothed), on ``validation``."""
    counts = np.bincount(training, minlength=vocab_size) + 1.0
    log_probabilities = np.log(counts / counts.sum())
    return float(-log_probabilities[validation[1:]].mean())
