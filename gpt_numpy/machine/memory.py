"""The memory that a process can still take, against what training needs."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigError
from .cost import needed_memory


def check_memory(config, batch_size, recompute):
    """``ConfigError``, in bytes, if the machine has less free memory than training needs at least."""
    needed, free = needed_memory(config, batch_size, recompute), available_memory()
    if free is not None and needed > free:
        raise ConfigError(
            "more memory needed than there is",
            field="memory",
            found=f"{free:,} bytes free",
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
