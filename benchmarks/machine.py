"""The roofline of this machine, in the units of the tables."""

from gpt_numpy import machine


def limits():
    """{"gflops", "gbytes"}: float32 multiply-adds, and reading memory, each a second."""
    return {"gflops": machine.peak_flops(0.3) / 1e9, "gbytes": machine.read_bandwidth(0.3) / 1e9}
