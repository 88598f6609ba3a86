"""The processors that this process may use, which are not always all that the machine has."""

import os


def cores():
    """Their numbers, a set: fewer than there are where a scheduler or ``mpiexec`` has bound the process."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
