"""Batches as pure functions: no state is stored, so that a run can be resumed from its step alone.

``batch`` draws random windows, ``epoch_batch`` goes through every block once an epoch in a seeded order. Both are
functions of (seed, step, row): row r of a step is the same whether one process computes all rows or each rank
and each accumulation step computes a range of them, so the global batch does not depend on its division.
``validation_windows`` covers a text in fixed windows: every token is predicted once. Rows that documents were fitted
into are the same as in training.

``tokens`` is a 1-D array, in memory or mapped from a file, or the tokens of a ``TokenDataset``.
"""

import numpy as np

from ...errors import DataError
from ...wording import counted
from .counters import counter_hash, permuted

IGNORED = -1  # a target that does not count in the loss


def batch(tokens, batch_size, block_size, seed, step, rows=None):
    """Random windows of ``tokens`` (N,) → (inputs (B,T), targets (B,T)) int64; targets are one token further.

    ``rows`` (a range or sequence of row numbers below ``batch_size``) computes those rows of the batch only; B is their
    number. Windows are drawn uniformly, with replacement, from all N − T positions. Raises DataError where
    ``tokens`` is shorter than one window.
    """
    rows = _check_rows(rows, batch_size)
    places = _places(tokens, block_size)
    starts = (counter_hash(seed, step, rows) % np.uint64(places)).astype(np.int64)
    return _inputs_and_targets(tokens, starts, block_size)


def epoch_batch(tokens, batch_size, block_size, seed, step, rows=None, stride=None):
    """Blocks of ``tokens`` in an order where each comes once an epoch → (inputs, targets) as ``batch``.

    Block b starts at b · ``stride``: by default ``block_size``, so that blocks share only the token that is the last
    target of one and the first input of the next, and no target comes twice; ``block_size + 1`` for rows packed by the
    policy ``fit``. Every epoch has an order of its own, and a batch may reach from one epoch into the next.
    """
    rows = _check_rows(rows, batch_size)
    blocks = count_blocks(tokens, block_size, stride)
    number = int(step) * batch_size + rows  # number of the block, counted over all epochs
    chosen = np.empty_like(number)
    for epoch in np.unique(number // blocks).tolist():
        here = number // blocks == epoch
        chosen[here] = permuted(number[here] % blocks, blocks, seed, epoch)
    return _inputs_and_targets(tokens, chosen * (stride or block_size), block_size)


def count_blocks(tokens, block_size, stride=None):
    """The number of blocks in an epoch of ``epoch_batch``."""
    return (_places(tokens, block_size) - 1) // (stride or block_size) + 1


def rows_of_rank(batch_size: int, rank: int, world_size: int) -> range:
    """The rows of a global batch that ``rank`` of ``world_size`` computes: consecutive; shares differ by one row at most."""
    if not 0 <= rank < world_size <= batch_size:
        raise DataError(
            f"a batch of {batch_size} rows cannot give rank {rank} of {world_size} a share", field="world_size"
        )
    return range(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)


def validation_windows(tokens, block_size, limit=None, row_length=0, chosen=None):
    """Fixed windows covering ``tokens`` (N,) → (inputs (W,T), targets (W,T)) int64; T is ``block_size``.

    row_length  0: W = ceil((N−1)/T), and each of the N − 1 next tokens is a target exactly once: the last window is
                moved back to end with the text, and the targets it shares with the one before are ``IGNORED``.
                Otherwise the length of the rows that documents were fitted into: window w is row w, and W = N / length
    limit       below W: that many of the windows, evenly spread
    chosen      numbers of some of those windows, below ``count_validation_windows``: only these are computed

    Raises DataError where ``tokens`` is shorter than one window, and where a row is not T tokens and one target more.
    """
    count = count_validation_windows(tokens, block_size, row_length=row_length)
    wanted = count if limit is None else min(limit, count)
    numbers = np.asarray(range(wanted) if chosen is None else chosen, dtype=np.int64) * count // wanted
    starts = numbers * (row_length or block_size)
    moved_back = np.maximum(0, starts + block_size + 1 - len(tokens))
    inputs, targets = _inputs_and_targets(tokens, starts - moved_back, block_size)
    targets[np.arange(block_size) < moved_back[:, None]] = IGNORED
    return inputs, targets


def count_validation_windows(tokens, block_size, limit=None, row_length=0):
    """The number of windows of ``validation_windows`` for the same arguments; the errors are the same."""
    _places(tokens, block_size)
    if row_length and (row_length != block_size + 1 or len(tokens) % row_length):
        raise DataError(
            "documents were fitted into rows of another length",
            field="row_length",
            found=f"{counted(len(tokens), 'token')}, blocks of {block_size}",
            expected=f"whole rows of {row_length}, blocks of {row_length - 1}",
        )
    count = len(tokens) // row_length if row_length else -(-(len(tokens) - 1) // block_size)
    return count if limit is None else min(limit, count)


def _check_rows(rows, batch_size):
    rows = np.arange(batch_size) if rows is None else np.asarray(rows, dtype=np.int64)
    if len(rows) == 0 or rows.min() < 0 or rows.max() >= batch_size:
        raise DataError("rows outside the batch", field="rows", found=rows.tolist(), expected=f"0 … {batch_size - 1}")
    return rows


def _places(tokens, block_size):
    """The number of positions in ``tokens`` where a window of ``block_size`` inputs and their targets starts."""
    if block_size < 1 or len(tokens) < block_size + 1:
        raise DataError(
            f"the text has {counted(len(tokens), 'token')}, fewer than a block of {block_size} and the one that follows it",
            expected=f"at least {block_size + 1} tokens",
        )
    return len(tokens) - block_size


def _inputs_and_targets(tokens, starts, block_size):
    """Inputs and targets as copies, which do not change with each other and do not need an open file."""
    if hasattr(tokens, "windows"):
        windows = tokens.windows(starts, block_size + 1)  # (B, T+1)
    else:
        windows = tokens[starts[:, None] + np.arange(block_size + 1)]
    return windows[:, :-1].astype(np.int64), windows[:, 1:].astype(np.int64)
