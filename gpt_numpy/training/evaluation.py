"""The loss of a model on the validation text, and the loss of the unigram baseline.

Validation uses fixed windows, so that the losses of two runs, two checkpoints or two machines can be compared. Bits per
byte divide the total by the bytes of text instead of the tokens, so that models with different tokenizers can be compared.

Windows are made a batch at a time, and the pages of a mapped file are released after reading. The memory of a
validation therefore does not grow with the text.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..data import count_validation_windows, validation_windows
from ..data.rows.mapped import release
from ..errors import DataError
from ..host import terminal
from ..model import IGNORE_INDEX
from ..wording import counted

_STRETCH = 1 << 20  # tokens read at a time, because they may be mapped from files


class Evaluation(NamedTuple):
    loss: float  # nats a token
    bits_per_byte: float
    tokens: int


def evaluate(
    model,
    corpus,
    batch_size: int,
    limit: int | None = None,
    group=None,
    mask=None,
    stopped=lambda: False,
    name: str | None = None,
) -> Evaluation | None:
    """``Evaluation`` of ``model`` on ``corpus.validation``, ``batch_size`` windows at a time.

    ``limit`` windows, evenly spread, or all. With a ``group`` every rank does its share and all get the total.
    ``name``: name of the progress bar that a terminal shows after a second; None: no bar.
    ``mask`` (inputs, targets) -> (inputs, targets, options) changes rows as training does (``Batches.masked``).
    Returns None as soon as ``stopped()`` is true. Raises ``DataError`` where no target counts.
    """
    tokens, rows = corpus.validation, corpus.row_length
    if len(tokens) < 2:
        raise DataError(f"the validation text has {counted(len(tokens), 'token')}", expected="at least 2")
    block_size = min(model.config.block_size, len(tokens) - 1)
    count = count_validation_windows(tokens, block_size, limit or None, rows)
    mine = range(count) if group is None else group.share(count)
    nats, predicted, text_bytes, unreleased = 0.0, 0, 0, 0
    shown = {} if name is not None else {"disable": True}
    bar = terminal.bar(total=len(mine), desc=name, unit="window", leave=False, delay=1.0, **shown)
    for start in range(mine.start, mine.stop, batch_size):
        if stopped():
            bar.close()
            return None
        chosen = range(start, min(start + batch_size, mine.stop))
        window, wanted = validation_windows(tokens, block_size, limit or None, rows, chosen)
        options = {}
        if mask is not None:
            window, wanted, options = mask(window, wanted)
        wanted_ids = wanted[wanted != IGNORE_INDEX]
        if len(wanted_ids):
            nats += model.loss(window, wanted, **options) * len(wanted_ids)
        predicted += len(wanted_ids)
        unreleased += window.size
        if unreleased > _STRETCH:
            release(tokens)
            unreleased = 0
        text_bytes += int(corpus.token_bytes[wanted_ids].sum())
        bar.update(min(batch_size, mine.stop - start))
    bar.close()
    if group is not None:
        nats, predicted, text_bytes = group.sum([nats, predicted, text_bytes])
    if not predicted:
        raise DataError(
            f"the {count} windows of the validation text have no token to predict",
            expected="documents, not only their ends",
        )
    return Evaluation(nats / predicted, nats / math.log(2) / max(text_bytes, 1), int(predicted))


def unigram_loss(training, validation, vocab_size: int) -> float:
    """Nats a token of the model that knows only how frequent each token is (add-one smoothed), on ``validation``."""
    counts = np.ones(vocab_size)
    for start in range(0, len(training), _STRETCH):
        counts += np.bincount(training[start : start + _STRETCH], minlength=vocab_size)
        release(training)
    log_probabilities = np.log(counts / counts.sum())
    total = 0.0
    for start in range(1, len(validation), _STRETCH):
        total += log_probabilities[validation[start : start + _STRETCH]].sum()
        release(validation)
    return -total / (len(validation) - 1)
