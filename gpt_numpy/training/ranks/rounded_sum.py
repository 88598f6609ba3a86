"""Sums over ranks whose numbers travel as bfloat16: half the bytes of a sum in float32.

Each rank owns a part of the array. A rank sends every other rank that one's part, rounded to bfloat16; adds what it has
received of its own part in float32, in the order of ranks; rounds the sum; and sends that to all. So a number is rounded
twice, however many ranks there are, and all ranks end with the same bits:

    |sum − exact| ≤ u · Σ |xᵣ| + u · |exact| (1 + u) + γ · Σ |xᵣ|,   u = 2⁻⁸,

where γ is the rounding of a float32 sum of as many numbers as there are ranks.
"""

from __future__ import annotations

import numpy as np

from ...products import bfloat16_to_float32, to_bfloat16

_CHUNK = 1 << 16  # numbers rounded at a time, in cache


class RoundedSums:
    """Sums of pieces of one float32 array, each begun with `add` and done in place at the latest in `finish`.

    Every rank adds the same pieces in the same order. The two halves of a sum need communicators of their own (``parts``
    and ``sums``): on either, ranks have to begin all in one order, and a second half begins as soon as its data are there.
    """

    def __init__(self, parts, sums):
        self._parts, self._sums = parts, sums
        self._pieces = []
        self._begun = 0  # pieces whose sum is on its way to all

    def add(self, piece):
        """Begin to sum ``piece`` (float32, contiguous) over all ranks."""
        self._pieces.append(_Piece(self._parts, piece))

    def advance(self):
        """Let MPI work, and begin the second half of the pieces that are ready for it."""
        while self._begun < len(self._pieces) and self._pieces[self._begun].arrived():
            self._pieces[self._begun].send_sum(self._sums)
            self._begun += 1
        for piece in self._pieces[: self._begun]:
            piece.arrived()

    def finish(self):
        """Wait for all sums, and put them where the pieces were."""
        for piece in self._pieces[self._begun :]:
            piece.wait()
            piece.send_sum(self._sums)
        for piece in self._pieces:
            piece.wait()
            piece.write()


class _Piece:
    """One piece: its rounded numbers on their way to their owners, later the owners' sums on their way to all."""

    def __init__(self, comm, values):
        self._values, size = values, comm.size
        part = -(-len(values) // size)
        self._sent = np.zeros((size, part), np.uint16)
        to_halves(values, self._sent.reshape(-1)[: len(values)])
        self._received = np.empty_like(self._sent)
        self._request = comm.Ialltoall(self._sent, self._received)

    def arrived(self):
        return self._request.Test()

    def wait(self):
        self._request.Wait()

    def send_sum(self, comm):
        total = np.zeros(self._received.shape[1], np.float32)
        for row in self._received:
            total += bfloat16_to_float32(row)
        own = np.empty(len(total), np.uint16)
        to_halves(total, own)
        self._own = own  # MPI reads it until the request is done
        self._request = comm.Iallgather(own, self._sent)

    def write(self):
        self._values[...] = bfloat16_to_float32(self._sent.reshape(-1)[: len(self._values)])


def to_halves(values, out):
    """The upper halves (uint16) of float32 ``values`` rounded to bfloat16, which are all that a bfloat16 has."""
    for start in range(0, len(values), _CHUNK):
        out[start : start + _CHUNK] = to_bfloat16(values[start : start + _CHUNK])
