"""The residual connection: a branch, with or without dropout, is added to the stream that it started from.

Its fast twin is ``kernels.residual``.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_axes, check_shape
from .dropout import DropoutCache, dropout_backward, dropout_forward


class ResidualCache(NamedTuple):
    dropout_cache: DropoutCache | None


def residual_forward(x, branch, dropout=None, alloc=np.empty):
    """out = x + dropout(branch); all (B, T, C)."""
    check_axes(1, x=x, branch=branch)
    check_shape("branch", branch, x.shape)
    dropout_cache = None
    if dropout is not None:
        branch, dropout_cache = dropout_forward(branch, dropout)
    return np.add(x, branch, out=alloc(x.shape, x.dtype)), ResidualCache(dropout_cache)


def residual_backward(dout, cache, alloc=np.empty):
    """Gradients dx and dbranch.

    The gradient of a sum is passed to both terms unchanged: dx = dout, and dbranch = dropout's backward of
    dout. dx, and dbranch without dropout, are the array dout itself, so the caller may not write to them.
    """
    dbranch = dout
    if cache.dropout_cache is not None:
        dbranch = dropout_backward(dout, cache.dropout_cache, alloc)
    return dout, dbranch
