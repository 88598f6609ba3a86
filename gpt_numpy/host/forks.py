"""Whether numba's threads were started by this process or by its parent before a fork.

Threads do not survive a fork, and numba's pool does not notice: a child that launches work on its parent's pool is
ended by a signal, or waits forever. A hook that runs in every forked child checks whether the pool had been
started, by gpt_numpy or by other code. The import of ``gpt_numpy`` registers the hook. Where ``gpt_numpy`` is first
imported in the child, Linux's own records are checked instead.
"""

import os
import sys

_POOL = "numba.np.ufunc.parallel"
_FORKED_WITHOUT_EXEC = 0x40  # PF_FORKNOEXEC of include/linux/sched.h, in the flags of /proc/self/stat
_parents_pool = None  # None until it is known


def _pool_started():
    return getattr(sys.modules.get(_POOL), "_is_initialized", False)


def pool_is_a_parents():
    """Whether numba's pool was started in a process that this one was forked from."""
    global _parents_pool
    if _parents_pool is None:
        _parents_pool = _pool_started() and _forked_and_alone()
    return _parents_pool


def _forked_and_alone():
    """Whether this process is a fork (no program was executed in it) and has no thread but this one; Linux only."""
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            flags = int(file.read().rpartition(")")[2].split()[6])
        return bool(flags & _FORKED_WITHOUT_EXEC) and len(os.listdir("/proc/self/task")) == 1
    except (OSError, ValueError, IndexError):
        return False


def _after_fork_in_child():
    global _parents_pool
    _parents_pool = bool(_parents_pool) or _pool_started()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
pool_is_a_parents()
