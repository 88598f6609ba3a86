"""The memory that a process can still take, against what training needs."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigError
from ..host import control_groups
from .cost import needed_memory

# What a training run takes beside its arrays, measured on x86-64: bytes of memory, and bytes of addresses, of which the
# stacks and heaps of threads take many that are never used.
_TO_BEGIN = (150 << 20, 450 << 20)  # text, tokenizer and kernels, and then the smallest model
_PROGRAM = (80 << 20, 360 << 20)  # kernels and pictures
_NARROW = 4 << 30  # a limit of fewer bytes counts the program's own


def check_memory(config, batch_size, recompute):
    """``ConfigError``, in bytes, if the machine has less free memory than training needs at least."""
    check_free(needed_memory(config, batch_size, recompute))


def check_free(needed: int, of: str = "") -> None:
    """``ConfigError``, in bytes, if fewer than ``needed`` bytes are free, with what the program itself takes.

    of: what needs the bytes, for the message.
    """
    free = available_memory()
    needed += _by_limit(_PROGRAM)
    if free is not None and needed > free:
        _raise(free, f"at least {needed:,} bytes{of} (a smaller model, --micro-batch-size, --recompute)")


def check_start() -> None:
    """``ConfigError`` if a container or ``ulimit -v`` leaves too little memory to read text and prepare a run."""
    free, needed = available_memory(), _by_limit(_TO_BEGIN)
    if free is not None and free < needed:
        _raise(free, f"at least {needed:,} bytes to begin a run")


def _raise(free, expected):
    found = f"{free:,} bytes free{_of_what(free)}"
    raise ConfigError("more memory needed than there is", field="memory", found=found, expected=expected)


def _by_limit(bytes_of):
    """The first of ``bytes_of`` in a narrow control group, the second under a narrow ``ulimit -v``; 0 elsewhere."""
    group, process = control_groups.memory_left(), _process_left()
    of_group = bytes_of[0] if group is not None and group < _NARROW else 0
    return max(of_group, bytes_of[1] if process is not None and process < _NARROW else 0)


def available_memory() -> int | None:
    """Bytes that this process can still take, or None where the system does not say.

    The least of what the machine has, what its control group may use (a container's limit), and what the process may
    use (``ulimit -v``).
    """
    known = [n for n in (_machine_left(), control_groups.memory_left(), _process_left()) if n is not None]
    return min(known, default=None)


def _of_what(free):
    """The limit that leaves only ``free`` bytes, for a message; "" where the limit is the machine's memory."""
    group, process = control_groups.memory_left(), _process_left()
    if group is not None and free >= group * 0.99:  # the group's other processes take and give in the meantime
        return " of this container or control group"
    return " under ulimit -v" if process is not None and free >= process * 0.99 else ""


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
