"""What the machine has to offer a training step, against what ``accounting`` says that it costs."""

from __future__ import annotations

import os
from pathlib import Path

from ..accounting import training_memory
from ..errors import ConfigError


def needed_memory(config, batch_size, recompute):
    """Bytes that training takes at its peak: a step's, and the snapshot of a checkpoint that is being written."""
    step = training_memory(config, batch_size, config.block_size, recompute)
    return sum(step.values()) + step["parameters"] + step["moments of AdamW"]


def check_memory(config, batch_size, recompute):
    """``ConfigError``, in bytes, if the machine has less free memory than training needs at least."""
    needed, there = needed_memory(config, batch_size, recompute), available_memory()
    if there is not None and needed > there:
        raise ConfigError(
            "more memory needed than there is",
            field="memory",
            found=f"{there:,} bytes free",
            expected=f"at least {needed:,} bytes (a smaller model, --micro-batch-size, --recompute)",
        )


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
