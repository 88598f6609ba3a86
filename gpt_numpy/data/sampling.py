"""Batches as pure functions: nothing is stored, so resuming a run is nothing but knowing its step.

``batch`` draws random windows, a function of (seed, step, row). Row r of a step is the same whether one process
computes all rows or each rank or accumulation step computes a range of them: the global batch does not depend
on how it is divided. ``validation_windows`` covers a text in fixed windows, every token predicted once.
"""

import numpy as np

from ..errors import DataError
from .counters import counter_hash

IGNORED = -1  # a target that counts for nothing in the loss


def batch(tokens, batch_size, block_size, seed, step, rows=None):
    """Random windows of ``tokens`` (N,) → (inputs (B,T), targets (B,T)) int64; targets are one token further.

    ``rows`` (a range or sequence of row numbers below ``batch_size``) computes those rows of the batch only; B is their
    number. Windows are drawn uniformly, with replacement, from all N − T places. Raises DataError where
    ``tokens`` is shorter than one window.
    """
    rows = _check_rows(rows, batch_size)
    places = _places(tokens, block_size)
    starts = (counter_hash(seed, step, rows) % np.uint64(places)).astype(np.int64)
    windows = tokens[starts[:, None] + np.arange(block_size + 1)].astype(np.int64)  # (B, T+1)
    return windows[:, :-1], windows[:, 1:]


def validation_windows(tokens, block_size, limit=None):
    """Fixed windows covering ``tokens`` (N,) → (inputs (W,T), targets (W,T)) int64, W = ceil((N−1)/T).

    Each of the N − 1 next tokens is a target exactly once: the last window is moved back to end with the text,
    and the targets it shares with the one before are ``IGNORED``. With ``limit`` below W, that many of the windows,
    evenly spread. Raises DataError where ``tokens`` is shorter than one window.
    """
    _places(tokens, block_size)
    targets_in_all = len(tokens) - 1
    starts = np.arange(0, targets_in_all, block_size)
    moved_back = max(0, starts[-1] + block_size - targets_in_all)
    starts[-1] -= moved_back
    chosen = np.arange(len(starts))
    if limit is not None and limit < len(starts):
        chosen = np.arange(limit) * len(starts) // limit
    windows = tokens[starts[chosen][:, None] + np.arange(block_size + 1)].astype(np.int64)  # (W, T+1)
    inputs, targets = windows[:, :-1], windows[:, 1:].copy()
    if chosen[-1] == len(starts) - 1:
        targets[-1, :moved_back] = IGNORED
    return inputs, targets


def _check_rows(rows, batch_size):
    rows = np.arange(batch_size) if rows is None else np.asarray(rows, dtype=np.int64)
    if len(rows) == 0 or rows.min() < 0 or rows.max() >= batch_size:
        raise DataError("rows outside the batch", field="rows", found=rows.tolist(), expected=f"0 … {batch_size - 1}")
    return rows


def _places(tokens, block_size):
    """How many windows of ``block_size`` inputs and their targets start in ``tokens``."""
    if block_size < 1 or len(tokens) < block_size + 1:
        raise DataError(
            f"the text has {len(tokens)} tokens, fewer than a block of {block_size} and the one that follows it",
            expected=f"at least {block_size + 1} tokens",
        )
    return len(tokens) - block_size
