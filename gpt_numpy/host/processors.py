"""The processors that this process may use: all of the machine's, or fewer."""

import functools
import os

from . import control_groups


def cores():
    """The set of their numbers; a subset of the machine's where a scheduler or ``mpiexec`` has bound the process."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def thread_count():
    """Threads that can work at the same time: `cores`, or as many as a container's quota of processor time feeds.

    More threads than that would use up the quota early in each period; then all threads would stop until the next one.
    """
    quota = _quota()
    return len(cores()) if quota is None else max(1, min(len(cores()), int(quota)))


@functools.cache
def _quota():
    return control_groups.processor_quota()


def others_busy() -> float:
    """The number of processors that others kept busy in the last minute; 0 where the system does not report it."""
    try:
        return max(0.0, os.getloadavg()[0] - 1.0)  # this process is one of those that are counted
    except (AttributeError, OSError):
        return 0.0
