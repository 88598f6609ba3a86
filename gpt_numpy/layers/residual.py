"""The residual connection: a branch, perhaps with dropout, is added to the stream it came from.

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

    A sum hands its gradient to both terms unchanged: dx = dout, and dbranch = dout through dropout's
    backward. Where nothing changes it, the very same array is returned, so neither may be written to.
    """
    dbranch = dout
    if cache.dropout_cache is not None:
        dbranch = dropout_backward(dout, cache.dropout_cache, alloc)
    return dout, dbranch
