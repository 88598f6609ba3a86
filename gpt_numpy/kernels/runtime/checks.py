"""Checks that stand between a caller and a kernel. Kernels have no bounds checks: what passes here must fit.

Every check raises a ``KernelError`` that names the argument. The kernels are compiled for contiguous arrays, so
`flat` copies others; where an array is written to, a copy would be lost, and `target` refuses instead.
"""

import math
import threading

import numpy as np

from ...errors import KernelError

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def one_dtype(**arrays):
    """The dtype that all arrays share: float32 or float64."""
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
    return dtype


def check_shape(name, array, shape):
    if array.shape != shape:
        raise KernelError("an array does not fit the others", field=name, found=array.shape, expected=shape)


def flat(array):
    """All elements in one row, contiguous: a view where that is possible, else a copy."""
    return array.reshape(-1) if array.flags.c_contiguous else np.ascontiguousarray(array).reshape(-1)


def target(name, array, shape, dtype):
    """The flat view of an array that a kernel adds to or overwrites."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise KernelError(
            "an array to write to is of the wrong kind", field=name, found=found, expected=f"{dtype} {shape}"
        )
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise KernelError("an array to write to must be contiguous and writeable", field=name)
    return array.reshape(-1)


def indices(name, array, below, also=None):
    """Integers 0 … below − 1 (or the value ``also``) as a flat int64 array."""
    array = np.asarray(array)
    if array.dtype.kind not in "iu":
        raise KernelError("indices must be integers", field=name, found=str(array.dtype), expected="an integer type")
    values = flat(array)
    if values.size and (values.min() < 0 or values.max() >= below):
        bad = (values < 0) | (values >= below)
        if also is not None:
            bad &= values != also
        place = int(np.argmax(bad))
        if bad[place]:
            place_in_array = tuple(int(i) for i in np.unravel_index(place, array.shape))
            raise KernelError(
                f"an index is out of range at {place_in_array}",
                field=name,
                found=int(values[place]),
                expected=f"0 to {below - 1}",
            )
    return values.astype(np.int64, copy=False)


def matrix(array):
    """All rows of an array of any number of axes, (rows, last axis), contiguous: a view if possible, else a copy."""
    return np.ascontiguousarray(array).reshape(math.prod(array.shape[:-1]), array.shape[-1])


def gradients(into, dtype, **shapes):
    """The arrays for an op's parameter gradients: those of ``into``, checked, or new ones; and whether to add."""
    if into is None:
        return [np.empty(shape, dtype) for shape in shapes.values()], False
    if len(into) != len(shapes):
        raise KernelError("one array for each parameter gradient", field="into", found=len(into), expected=len(shapes))
    for (name, shape), array in zip(shapes.items(), into):
        target(name, array, shape, dtype)
    return list(into), True


_kept = threading.local()


def scratch(owner, dtype, *shapes):
    """Uninitialised arrays for use within one op, their memory kept from call to call, for each Python thread.

    The memory of an ``owner`` grows to the most it has needed. What is in the arrays is lost at its next call.
    """
    memory = _kept.__dict__.setdefault("memory", {})
    sizes = [math.prod(shape) for shape in shapes]
    line = 64 // dtype.itemsize
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // line) * line)
    block = memory.get((owner, dtype))
    if block is None or block.size < starts[-1]:
        raw = np.empty(starts[-1] + line, dtype)
        skipped = -raw.ctypes.data % 64 // dtype.itemsize
        block = memory[owner, dtype] = raw[skipped : skipped + starts[-1]]
    return [block[start : start + size].reshape(shape) for start, size, shape in zip(starts, sizes, shapes)]
