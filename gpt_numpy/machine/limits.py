"""The limits of this machine, measured at the time of the call.

Two figures bound every kernel (Williams, Waterman and Patterson, "Roofline", 2009): the rate of multiply-adds, in float32
or of pairs of bfloat16, and the rate of reading memory that is in no cache. Training, inference and benchmarks use these
figures when they quote a share of peak, and say of which. On a shared machine all figures drift, so each call measures
again, briefly.
"""

from __future__ import annotations

import time

import numpy as np

from .memory import available_memory


def peak_flops(seconds: float = 0.1, products: str = "float32") -> float:
    """Operations a second of all threads' multiply-adds: the upper limit of every kernel.

    products: "float32", or "bfloat16" as such products are multiplied on this CPU: with ``vdpbf16ps``, or as float32. A
    multiply-add counts as two operations. The result is the best burst of a millisecond or two within about ``seconds``,
    because other programs on the machine can only slow a burst down.
    """
    from ..kernels.runtime import emitting, threads
    from ..kernels.runtime.bfloat16 import TOGETHER
    from . import limit_kernels

    count, rounds = threads.count(), 1 << 19
    sums = np.zeros(16 * count, np.float32)
    operations = 2 * count * limit_kernels.CHAINS * emitting.VECTOR_BYTES // 4 * rounds
    if products == "bfloat16":
        burst = best_seconds(lambda: limit_kernels.multiply_word_chains(count, sums, rounds), seconds)
        return TOGETHER * operations / burst
    return operations / best_seconds(lambda: limit_kernels.multiply_add(count, sums, rounds), seconds)


def bfloat16_products() -> str:
    """How kernels multiply numbers rounded to bfloat16 on this CPU: "by vdpbf16ps" or "widened to float32"."""
    from ..kernels.runtime import emitting

    return "by vdpbf16ps" if emitting.HAS_BFLOAT16 else "widened to float32"


def read_bandwidth(seconds: float = 0.1, size: int = 128 << 20) -> float:
    """Bytes a second that all threads together read from ``size`` bytes, far more than a cache holds.

    The result is the best pass within about ``seconds``. Where memory is scarce, an eighth of what is left is read.
    """
    from ..kernels.runtime import threads
    from . import limit_kernels

    size = min(size, max(1 << 20, (available_memory() or size * 8) // 8))

    count = threads.count()
    array, sums = np.ones(size // 4, np.float32), np.empty(16 * count, np.float32)
    return array.nbytes / best_seconds(lambda: limit_kernels.read_all(count, array, sums), seconds)


def best_seconds(function, seconds):
    """The shortest of the calls of ``function`` that fit into ``seconds``, after one call that does not count."""
    function()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best
