"""Memory in large pages: where a program reads here and there in megabytes, finding small pages takes time of its own."""

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
