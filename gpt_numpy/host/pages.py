"""Memory in large pages: where a program reads here and there in megabytes, finding small pages takes time of its own."""

import ctypes
import mmap

import numpy as np

_HUGE = 1 << 21  # bytes of a large page on x86-64 and on most ARM
_ADVISED = hasattr(mmap, "MADV_HUGEPAGE")  # on Linux alone


def large_zeros(n_bytes):
    """(n_bytes,) uint8 of zeros, in pages of 2 MiB where the system has them to give; aligned to a cache line at least.

    The advice comes before the first use, as the system gives pages at that time. Memory is taken where it is used.
    """
    if n_bytes < _HUGE or not _ADVISED:
        memory = np.zeros(n_bytes + 64, dtype=np.uint8)
        first = -memory.ctypes.data % 64
        return memory[first : first + n_bytes]
    block = mmap.mmap(-1, n_bytes + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        block.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        pass  # a system that was built without them
    memory = np.frombuffer(block, dtype=np.uint8)
    first = -memory.ctypes.data % _HUGE
    return memory[first : first + n_bytes]


def advise_large(address, n_bytes):
    """Ask for large pages for ``n_bytes`` of memory at ``address`` that are not in use yet; nothing where that is no help.

    It is advice: a wrong address changes nothing that a program can see but its speed.
    """
    if not _ADVISED or n_bytes < 2 * _HUGE:
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    madvise(first, (address + n_bytes - first) // mmap.PAGESIZE * mmap.PAGESIZE, mmap.MADV_HUGEPAGE)
