"""Limits of a control group: the memory and processors that a container, a batch job or a service may use.

Linux has two versions of control groups, and a machine may have both at once. ``/proc/self/cgroup`` names the process's
group in each hierarchy, ``/proc/self/mountinfo`` the folder where the hierarchy is. A limit of a parent
group holds as well. Sources: the kernel's admin-guide/cgroup-v2 and cgroup-v1/memory, scheduler/sched-bwc.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
_UNLIMITED = 1 << 60  # version 1 has no word for "no limit": it gives a number near 2⁶³


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes that the group's processes can still take together, or None without a limit.

    Cached file pages that are not in use do not count as taken: the system drops them first.
    """
    left = []
    for group in _groups("memory", root):
        modern = (group / "memory.current").exists()
        limits = ("memory.max", "memory.high") if modern else ("memory.limit_in_bytes",)
        limit = min((n for n in (_number(group / name) for name in limits) if n is not None), default=None)
        taken = _number(group / ("memory.current" if modern else "memory.usage_in_bytes"))
        if limit is None or limit >= _UNLIMITED or taken is None:
            continue
        droppable = _field(group / "memory.stat", "inactive_file" if modern else "total_inactive_file")
        left.append(max(0, limit - max(0, taken - droppable)))
    return min(left, default=None)


def processor_quota(root: Path = ROOT) -> float | None:
    """Processors' time a second that the group's processes may use together, or None without a limit."""
    quotas = []
    for group in _groups("cpu", root):
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if quota is None:
            try:
                quota, period = map(int, (group / "cpu.max").read_text(encoding="ascii").split())
            except (OSError, ValueError):  # no such file; or "max", which is no limit
                continue
        if quota > 0 and period:
            quotas.append(quota / period)
    return min(quotas, default=None)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's group, and of all above it, in each hierarchy that may have ``controller``."""
    try:
        memberships = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mounted_group, folder in _hierarchies(mounts, controller if controllers else None):
            if path == mounted_group or mounted_group == "/" or path.startswith(f"{mounted_group}/"):
                inner = path[len(mounted_group.rstrip("/")) :].strip("/")
            else:
                inner = ""  # the process sees the hierarchy from inside a container, whose own group is the mounted one
            top = root / folder.strip("/")
            group = top / inner if (top / inner).is_dir() else top
            while True:
                yield group
                if group == top:
                    break
                group = group.parent


def _hierarchies(mounts: list[str], controller: str | None) -> Iterator[tuple[str, str]]:
    """(group, folder) of each mount of version 1's ``controller``, or of version 2 for None."""
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if controller is None and kinds[0] != "cgroup2":
            continue
        if controller is not None and (kinds[0] != "cgroup" or controller not in kinds[-1].split(",")):
            continue
        yield _unescaped(fields[3]), _unescaped(fields[4])


def _unescaped(path: str) -> str:
    """A path of mountinfo, in which blanks and backslashes are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file; or "max"
        return None


def _field(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name} "))
    except (OSError, ValueError, IndexError, StopIteration):
        return 0
