"""What a step costs, in operations and in bytes, and what the machine has to offer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..parameters import count


def flops_per_token(config):
    """Floating-point operations of training on one token: forward and twice that backward.

    Two operations a weight of every matrix product (the head included, the embeddings' look-ups not), and in
    attention two products over the half of the keys that a query sees on average.
    """
    in_products = count(config) - config.block_size * config.n_embd
    attention = config.n_layer * 2 * config.block_size * config.n_embd
    return 3 * (2 * in_products + attention)


def measure_peak(size=1024, repeats=3):
    """Operations a second of NumPy's float32 matrix product here: the yardstick for a share of peak."""
    a = np.ones((size, size), np.float32)
    out = np.empty_like(a)
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        np.matmul(a, a, out=out)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def needed_memory(config, batch_size, recompute):
    """Bytes that training needs at least: parameters, gradients, two moments, the snapshot being saved, activations."""
    weights = 4 * count(config)
    state = 4 * weights + 3 * weights
    # A block keeps at the least its input, q, k, v, heads, two normalised inputs and the hidden layer twice.
    width = 1 if recompute else 14
    activations = 4 * batch_size * config.block_size * config.n_embd * (config.n_layer * width + 14)
    return state + activations


def check_memory(config, batch_size, recompute):
    """``ConfigError``, in bytes, if the machine has less free memory than training needs at least."""
    needed, there = needed_memory(config, batch_size, recompute), available_memory()
    if there is not None and needed > there:
        raise ConfigError(
            "more memory needed than there is", field="memory", found=f"{there:,} bytes free",
            expected=f"at least {needed:,} bytes (a smaller model, --micro-batch-size, --recompute)",
        )  # fmt: skip


def available_memory():
    """Bytes that a process can still take, or None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
