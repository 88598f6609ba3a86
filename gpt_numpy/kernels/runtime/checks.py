"""Checks of a kernel's arguments. Kernels have no bounds checks, so every argument must be checked before a launch.

Every check raises a ``KernelError`` that names the argument. The checks that ``layers`` needs too are in
``gpt_numpy.arguments``. The kernels are compiled for contiguous, aligned arrays, so `flat` copies other arrays. A copy
of an array that a kernel writes to would be lost, so `target` refuses such an array.
"""

import math

import numpy as np

from ...arguments import check_axes, check_into, check_target, own_indices
from ...arguments import check_shape as check_shape
from ...errors import KernelError
from .recording import not_only_launches

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def one_dtype(least_axes=0, **arrays):
    """The dtype that all arrays share: float32 or float64. Each has at least ``least_axes`` axes."""
    dtype = None
    for name, array in arrays.items():
        found = getattr(array, "dtype", type(array).__name__)
        if found not in FLOATS:
            raise KernelError(
                "kernels compute in float32 and float64", field=name, found=str(found), expected="float32 or float64"
            )
        if dtype is not None and found != dtype:
            raise KernelError("arrays of two types meet", field=name, found=str(found), expected=str(dtype))
        dtype = found
    check_axes(least_axes, **arrays)
    return dtype


def given(**arrays):
    """Those of ``arrays`` that are not None."""
    return {name: array for name, array in arrays.items() if array is not None}


def flat(array):
    """All elements in one row, contiguous and aligned: a view where that is possible, else a copy."""
    return _plain(array).reshape(-1)


def flat_like(name, array, like):
    """`flat` of an array that has the shape of ``like``; an empty array for None."""
    if array is None:
        return np.empty(0, like.dtype)
    check_shape(name, array, like.shape)
    return flat(array)


def _plain(array):
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array
    not_only_launches()
    return np.array(array, order="C")


def contiguous(array):
    """The array itself where it is contiguous and aligned, else a copy; None for None."""
    return None if array is None else _plain(array)


def target(name, array, shape, dtype):
    """The flat view of an array that a kernel adds to or overwrites."""
    check_target(name, array, shape, dtype)
    if not array.flags.c_contiguous or not array.flags.aligned:
        raise KernelError("an array to write to must be contiguous and aligned", field=name)
    return array.reshape(-1)


def indices(name, array, below, also=None):
    """Integers 0 … below − 1 (or the value ``also``) as a new flat int64 array."""
    return own_indices(name, array, below, also).reshape(-1)


def matrix(array):
    """All rows of an array of any number of axes, (rows, last axis), contiguous: a view if possible, else a copy."""
    return _plain(array).reshape(math.prod(array.shape[:-1]), array.shape[-1])


def gradients(into, dtype, add=True, **shapes):
    """The arrays for an op's parameter gradients: those of ``into``, checked, or new ones; and whether to add to them.

    A shape that is None belongs to a parameter that the op does not have, whose gradient is None.
    """
    if into is None:
        return [None if shape is None else np.empty(shape, dtype) for shape in shapes.values()], False
    check_into(into, dtype, **shapes)
    for (name, shape), array in zip(shapes.items(), into):
        if shape is not None:
            target(name, array, shape, dtype)
    return list(into), add
