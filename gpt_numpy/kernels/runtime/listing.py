"""Arrays of ids as lists of Python's integers.

NumPy makes a new integer for each id, which takes three times as long. Here all lists share the integers of one table, and
a kernel that holds the GIL fills the lists through Python's C interface.
"""

import ctypes
import gc
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ...host.pages import advise_large
from .decorators import kernel
from .vectors import read


class Integers(NamedTuple):
    """The integers 0 … n - 1 as objects of Python."""

    objects: list  # keeps them alive
    addresses: np.ndarray  # (n,) int64


def integers(count):
    """The ``count`` integers from 0 on."""
    objects = list(range(count))
    return Integers(objects, np.fromiter(map(id, objects), dtype=np.int64, count=count))


def _address(name):
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value


_NEW, _SET, _REFER, _CLEAR = range(4)
_FUNCTIONS = np.array(
    [_address(name) for name in ("PyList_New", "PyList_SetItem", "Py_IncRef", "PyErr_Clear")], dtype=np.int64
)
_new_list = ctypes.pythonapi.PyList_New
_new_list.argtypes, _new_list.restype = (ctypes.c_ssize_t,), ctypes.py_object


class _PyList(ctypes.Structure):
    """The beginning of a list in CPython without debugging fields; ``items`` is used for advice only."""

    _fields_ = (
        ("header", ctypes.c_byte * object.__basicsize__),
        ("size", ctypes.c_ssize_t),
        ("items", ctypes.c_void_p),
    )


@intrinsic
def _call(typingctx, address, arguments):
    """Call the C function at ``address`` with a tuple of integers and pointers; a result of fewer bits is not to be used."""

    def codegen(context, builder, signature, args):
        word = ir.IntType(64)
        values = cgutils.unpack_tuple(builder, args[1])
        function = builder.inttoptr(args[0], ir.FunctionType(word, [word] * len(values)).as_pointer())
        return builder.call(function, values)

    return types.int64(types.int64, arguments), codegen


@kernel(_nrt=False, nogil=False)
def _fill(target, ids, addresses, functions):
    """Put the integers ``ids`` into the new list at the address ``target``."""
    for i in range(ids.size):
        number = read(addresses, np.int64(ids[i]))
        _call(functions[_REFER], (number,))
        _call(functions[_SET], (target, np.int64(i), number))  # takes the reference over


@kernel(_nrt=False, nogil=False)
def _fill_rows(target, ids, offsets, addresses, functions):
    """Put a list of the ids of each text into the new list at the address ``target``; False where memory is missing."""
    for text in range(offsets.size - 1):
        start, stop = offsets[text], offsets[text + 1]
        row = _call(functions[_NEW], (stop - start,))
        if row == 0:
            _call(functions[_CLEAR], ())
            return False
        _call(functions[_SET], (target, np.int64(text), row))
        for i in range(start, stop):
            number = read(addresses, np.int64(ids[i]))
            _call(functions[_REFER], (number,))
            _call(functions[_SET], (row, i - start, number))
    return True


def listed(ids, numbers):
    """``ids`` (n,) as a list; numbers: the ``Integers`` up to the largest id."""
    result = _new_list(len(ids))
    if len(ids) > 0:
        advise_large(_PyList.from_address(id(result)).items, len(ids) * ctypes.sizeof(ctypes.c_void_p))
    _fill(id(result), ids, numbers.addresses, _FUNCTIONS)
    return result


def listed_rows(ids, offsets, numbers):
    """A list of the lists ``ids[offsets[k] : offsets[k + 1]]``.

    The garbage collector stands still meanwhile: it would search all earlier lists again and again for cycles, which lists
    of integers cannot have.
    """
    result, collecting = _new_list(len(offsets) - 1), gc.isenabled()
    gc.disable()
    try:
        if not _fill_rows(id(result), ids, offsets, numbers.addresses, _FUNCTIONS):
            raise MemoryError(f"no memory for the lists of {len(offsets) - 1} texts")
    finally:
        if collecting:
            gc.enable()
    return result
