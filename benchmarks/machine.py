"""The roofline of this machine, the better of ours and NumPy's where they compete."""

import numpy as np

from gpt_numpy import machine

from . import timing


def limits():
    """{"gflops", "gbytes"}: the best float32 GEMM rate seen, and the rate of reading memory, each a second."""
    a, b = (np.ones((1024, 1024), np.float32) for _ in range(2))
    out = np.empty_like(a)
    seconds = timing.interleaved({"numpy": lambda: np.matmul(a, b, out=out)}, min_seconds=0.3)["numpy"]
    numpy_flops = 2 * 1024**3 / timing.summary(seconds)["median"]
    return {"gflops": max(machine.peak_flops(), numpy_flops) / 1e9, "gbytes": machine.read_bandwidth() / 1e9}
