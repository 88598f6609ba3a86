"""The memory that a process can still take, against what training needs."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigError
from ..host import control_groups
from .cost import needed_memory


def check_memory(config, batch_size, recompute):
    """``ConfigError``, in bytes, if the machine has less free memory than training needs at least."""
    needed, free = needed_memory(config, batch_size, recompute), available_memory()
    if free is not None and needed > free:
        raise ConfigError(
            "more memory needed than there is",
            field="memory",
            found=f"{free:,} bytes free{_of_what(free)}",
            expected=f"at least {needed:,} bytes (a smaller model, --micro-batch-size, --recompute)",
        )


def available_memory() -> int | None:
    """Bytes that this process can still take, or None where the system does not say.

    The least of what the machine has, what its control group may use (a container's limit), and what the process may
    use (``ulimit -v``).
    """
    known = [n for n in (_machine_left(), control_groups.memory_left(), _process_left()) if n is not None]
    return min(known, default=None)


def _of_what(free):
    """The limit that leaves only ``free`` bytes, for a message; "" where the limit is the machine's memory."""
    machine, group = _machine_left(), control_groups.memory_left()
    if machine is not None and free >= machine * 0.99:
        return ""
    return " of this container or control group" if group is not None and free >= group * 0.99 else " under ulimit -v"


def _machine_left():
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _process_left():
    """Bytes of addresses that the process may still take; None without such a limit."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError, ValueError):
        return None
    return None if limit == resource.RLIM_INFINITY else max(0, limit - pages * resource.getpagesize())
