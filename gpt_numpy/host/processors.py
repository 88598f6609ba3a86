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
    """The number of processors that others have kept busy since this process began, where that slows this process.

    0 where enough processors are left for all threads of this process, or where the system does not report it.
    """
    now, before = _times(), _at_the_start
    if now is None or before is None:
        try:
            return max(
                0.0, os.getloadavg()[0] - 1.0
            )  # of the last minute; this process is one of those that are counted
        except (AttributeError, OSError):
            return 0.0
    busy, idle, own = (new - old for new, old in zip(now, before))
    if busy + idle <= 0:
        return 0.0
    others = max(0.0, busy - own) / (busy + idle) * len(cores())
    return others if len(cores()) - others < thread_count() else 0.0


def _times() -> tuple[float, float, float] | None:
    """Seconds that the processors of `cores` were busy, were idle, and worked for this process; None where unknown."""
    try:
        with open("/proc/stat", encoding="ascii") as lines:
            rows = [line.split() for line in lines if line.startswith("cpu")]
        ours = {f"cpu{number}" for number in cores()}
        counts = [list(map(int, row[1:9])) for row in rows if row[0] in ours]
        tick = 1 / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    idle = sum(row[3] + row[4] for row in counts) * tick  # the fourth is idle, the fifth waits for a disk
    own = os.times()
    return sum(map(sum, counts)) * tick - idle, idle, own.user + own.system + own.children_user + own.children_system


_at_the_start = _times()
