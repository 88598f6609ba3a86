"""Checks of what a pass of the model takes: tokens, positions, first keys and targets, each as an array of its own."""

from __future__ import annotations

import numpy as np

from ..errors import ContextLengthError, DataError

IGNORE_INDEX = -1  # a target with this value counts neither in the loss nor in the gradient


def check_inputs(config, tokens, positions, first_key):
    """``(tokens, positions, first_key)`` of a pass as new arrays; the errors of the model for what does not fit."""
    tokens = check_tokens(tokens, config.vocab_size)
    B, T = tokens.shape
    limit = config.block_size
    if positions is None:
        if T > limit:
            raise ContextLengthError("sequence too long", field="tokens", found=T, expected=f"at most {limit}")
        positions = np.arange(T)
    positions = np.array(positions)
    if positions.shape not in ((T,), (B, T)):
        raise DataError("wrong shape", field="positions", found=positions.shape, expected=f"{(T,)} or {(B, T)}")
    if positions.dtype.kind not in "iu":
        raise DataError("not positions", field="positions", found=str(positions.dtype), expected="integers")
    if positions.size and not 0 <= int(positions.min()) <= int(positions.max()) < limit:
        raise ContextLengthError("position out of range", found=int(positions.max()), expected=f"0 to {limit - 1}")
    if first_key is not None:
        first_key = np.array(first_key)
        valid = (
            first_key.shape == (B, T)
            and first_key.dtype.kind in "iu"
            and np.all((first_key >= 0) & (first_key <= np.arange(T)))
        )
        if not valid:
            raise DataError(
                "every query sees at least itself",
                field="first_key",
                expected=f"integers of shape {(B, T)}, 0 <= first_key <= t",
            )
    return tokens, positions, first_key


def check_targets(config, targets, shape):
    """``targets`` as a new int64 array of the tokens' shape; ``IGNORE_INDEX`` is allowed."""
    targets = np.array(targets)
    if targets.shape != tuple(shape):
        raise DataError("wrong shape", field="targets", found=targets.shape, expected=str(tuple(shape)))
    return check_tokens(targets, config.vocab_size, lowest=IGNORE_INDEX, name="targets")


def check_tokens(tokens, vocab_size, lowest=0, name="tokens"):
    """``tokens`` as a new int64 array (B, T) with every id in range, or a ``DataError`` naming the first bad one.

    The copy is checked, not the caller's array, which the caller may fill with the next batch at any time.
    """
    array = np.array(tokens)
    if array.dtype.kind not in "iu" or array.ndim != 2:
        found = f"{array.dtype} {array.shape}"
        raise DataError("not a batch of token ids", field=name, found=found, expected="integers (B, T)")
    if array.size and not (int(array.min()) >= lowest and int(array.max()) < vocab_size):
        bad = np.argwhere((array < lowest) | (array >= vocab_size))[0]
        where = f"{name}[{', '.join(map(str, bad))}]"
        raise DataError("no such token", field=where, found=int(array[tuple(bad)]), expected=f"0 to {vocab_size - 1}")
    return array.astype(np.int64, copy=False)
