"""Python threads that decode with small models at the same time: each computes for some milliseconds, then the next.

Between two launches a token takes Python and NumPy, which one thread runs at a time. Where a launch takes no longer than
that, threads that alternate launch by launch spend much of their time on waking each other up, and the threads of one
pool on waiting for a processor. So a Python thread has a *turn* of ``TURN`` seconds, in which the others sleep. A turn
is a lease: its end comes whether or not the thread calls again, so that nobody waits for a thread that has stopped.

Turns decide when a token is computed, never which one. A launch that outlasts its turn is safe: kernels have a lock.
"""

import os
import threading
import time
from collections import deque

TURN = 0.008  # seconds
RECENT = 0.05  # seconds after which a thread that has not called any more is forgotten


class Turns:
    """Who decodes, and who waits to."""

    def __init__(self):
        self.forget()

    def forget(self):
        """Begin anew. In a forked child the threads that held or awaited a turn do not exist."""
        self._lock, self._waiting = threading.Lock(), deque()
        self._owner, self._end = None, 0.0
        self._met = -RECENT  # when a thread last followed on another

    def take(self) -> bool:
        """Return when the calling thread has the turn: at once where no other thread has or wants it.

        True: other threads decode at present, so that this one should leave the other processors to them.
        """
        me, now = threading.get_ident(), time.monotonic()
        mine = None
        with self._lock:
            if self._owner != me or now >= self._end:
                if self._waiting or (self._owner != me and now < self._end):
                    mine = me, threading.Event()
                    self._waiting.append(mine)
                else:
                    self._give(me, now)
        if mine is not None:
            self._await(mine)
        return time.monotonic() - self._met < RECENT

    def _await(self, mine):
        try:
            while not mine[1].wait(self._end_if_due(mine)):
                pass
        except BaseException:  # Ctrl-C: nobody would use the turn
            with self._lock:
                if mine in self._waiting:
                    self._waiting.remove(mine)
            raise

    def _end_if_due(self, mine):
        """Give the turn to whoever has waited longest, if its time is over; returns seconds until ``mine`` is due."""
        with self._lock:
            now = time.monotonic()
            if now >= self._end and self._waiting:
                thread, event = self._waiting.popleft()
                self._give(thread, now)
                event.set()
            if mine not in self._waiting:
                return 0.0
            return max(0.0, self._end - now) + TURN * self._waiting.index(mine)  # all at once would crowd Python

    def _give(self, thread, now):
        if self._owner not in (thread, None) and now - self._end < RECENT:
            self._met = now
        self._owner, self._end = thread, now + TURN


turns = Turns()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=turns.forget)
