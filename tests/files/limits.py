"""Bounds on time and memory for a block of a test."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest


@contextlib.contextmanager
def within_seconds(seconds=10, room=2 << 30, waiting=300):
    """In the block: ``TimeoutError`` after some seconds, ``MemoryError`` above ``room`` bytes more than at its start.

    seconds: of the processor. waiting: of the clock, for a block that waits; other work may stop this process for minutes.
    """
    resource = pytest.importorskip("resource")

    def stop(*_):
        raise TimeoutError(f"not done within {seconds} s of work or {waiting} s of waiting")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        if sys.platform == "linux"
        else 0
    )
    before = [(number, signal.signal(number, stop)) for number in (signal.SIGALRM, signal.SIGPROF)]
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + room, limits[1]))
    signal.alarm(waiting)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        for number, handler in before:
            signal.signal(number, handler)
