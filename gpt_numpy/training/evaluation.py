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

_STRETCH = 1 << 22  # tokens counted at a time: they may be mapped from files


class Evaluation(NamedTuple):
    loss: float  # nats a token
    bits_per_byte: float
    tokens: int


def evaluate(model, corpus, batch_size, limit=None, group=None, mask=None):
    """``Evaluation`` of ``model`` on ``corpus.validation``, ``batch_size`` windows at a time.

    ``limit`` windows, evenly spread, or all. With a ``group`` every rank does its share and all get the total.
    ``mask`` (inputs, targets) -> (inputs, targets, options) is what training does to its rows (``Batches.masked``).
    """
    tokens = corpus.validation
    inputs, targets = validation_windows(tokens, min(model.config.block_size, len(tokens) - 1), limit or None)
    mine = range(len(inputs)) if group is None else group.share(len(inputs))
    nats, counted, text_bytes = 0.0, 0, 0
    for start in range(mine.start, mine.stop, batch_size):
        stop = min(start + batch_size, mine.stop)
        window, wanted, options = inputs[start:stop], targets[start:stop], {}
        if mask is not None:
            window, wanted, options = mask(window, wanted)
        wanted_ids = wanted[wanted != IGNORE_INDEX]
        nats += model.loss(window, wanted, **options) * len(wanted_ids)
        counted += len(wanted_ids)
        text_bytes += int(corpus.token_bytes[wanted_ids].sum())
    if group is not None:
        nats, counted, text_bytes = group.sum([nats, counted, text_bytes])
    return Evaluation(nats / counted, nats / math.log(2) / max(text_bytes, 1), int(counted))


def unigram_loss(training, validation, vocab_size):
    """Nats a token of the model that knows only how frequent each token is (add-one smoothed), on ``validation``."""
    counts = np.ones(vocab_size)
    for start in range(0, len(training), _STRETCH):
        counts += np.bincount(training[start : start + _STRETCH], minlength=vocab_size)
    log_probabilities = np.log(counts / counts.sum())
    stretches = [validation[start : start + _STRETCH] for start in range(1, len(validation), _STRETCH)]
    return -sum(log_probabilities[stretch].sum() for stretch in stretches) / (len(validation) - 1)
