"""The rows that a model sees at a step: rows of the global batch, a pure function of (seed, step, row).

Two settings choose the rows. ``order``: windows at random positions, or every block of the text once an epoch.
``documents``: ``joined``, where a block reads on from one text into the next as in GPT-2's training, or ``apart``, where
each token sees its own document only and no target lies across an end of text.
"""

from __future__ import annotations

from ...data import batch, count_validation_windows, document_masks, epoch_batch, mask_padding
from ...errors import ConfigError, DataError

_STRETCH = 1 << 22  # tokens read at a time, because they may be mapped from files


class Batches:
    """Rows of batches of ``corpus``; ``ConfigError`` where the settings do not fit the way it was packed."""

    def __init__(self, settings, corpus, block_size):
        self.settings, self.corpus = settings, corpus
        self.block_size = min(block_size, len(corpus.training) - 1)
        self._eot_id = corpus.tokenizer.eot_id
        if settings.documents == "apart" and self._eot_id is None:
            raise ConfigError("the tokenizer has no end-of-text token", field="documents", found="apart")
        row_length = corpus.row_length
        if row_length and (settings.order != "epochs" or block_size != row_length - 1):
            raise ConfigError(
                "documents were fitted into rows",
                field="order, block_size",
                found=(settings.order, block_size),
                expected=f"epochs and {row_length - 1}",
            )

    def rows(self, step, rows):
        """(inputs, targets, options): both (B, T) for the ``rows`` of the step; options are the model's keywords."""
        s = self.settings
        if s.order == "epochs":
            stride = self.corpus.row_length or self.block_size
            pair = epoch_batch(self.corpus.training, s.batch_size, self.block_size, s.seed, step, rows, stride)
        else:
            pair = batch(self.corpus.training, s.batch_size, self.block_size, s.seed, step, rows)
        return self.masked(*pair)

    def masked(self, inputs, targets):
        """(inputs, targets, options): ignored targets are marked, and options may keep documents apart."""
        if self.settings.documents == "apart":
            targets, positions, first_key = document_masks(inputs, targets, self._eot_id)
            return inputs, targets, {"positions": positions, "first_key": first_key}
        if self.corpus.row_length:
            targets = mask_padding(inputs, targets, self._eot_id)
        return inputs, targets, {}

    def check_targets(self):
        """``DataError`` for a text without a target: with documents apart, a text of end-of-text tokens only."""
        if self.settings.documents != "apart":
            return
        for split in ("training", "validation"):
            tokens = getattr(self.corpus, split)
            stretches = range(0, len(tokens) - 1, _STRETCH)
            if all(
                (tokens[start : min(start + _STRETCH, len(tokens) - 1)] == self._eot_id).all() for start in stretches
            ):
                raise DataError(
                    f"the {split} text has no token to predict: it is end-of-text only",
                    field="documents",
                    found="apart",
                    expected="text with documents in it",
                )

    def count_windows(self, limit=None):
        """The number of windows of a validation: all, or at most ``limit``."""
        tokens = self.corpus.validation
        block_size = min(self.block_size, len(tokens) - 1)
        return count_validation_windows(tokens, block_size, limit, self.corpus.row_length)
