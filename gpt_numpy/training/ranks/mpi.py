"""Data-parallel training over MPI (mpi4py): the same run, its batches divided over ranks.

The gradients are one flat array, filled from its end by the backward pass. As soon as a bucket of the array is
complete, its sum over all ranks is begun. The sum goes on while the blocks before it are computed: MPI makes progress
after each finished block. With ``zero`` each rank keeps the moments of its own slice and updates that, and
the parameters are gathered again (ZeRO stage 1: Rajbhandari et al. 2020).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback

import numpy as np
from mpi4py import MPI

from ...errors import GPTNumpyError, RankFailed
from ...host import compiler
from ...host.processors import cores, thread_count
from ...wording import counted
from .distributed import Alone
from .rounded_sum import RoundedSums

BUCKET_BYTES = 1 << 22


class MPIGroup(Alone):
    """The ranks of ``comm`` (default: all). Threads are divided among the ranks of a machine, unless their number is set."""

    mpi = True

    def __init__(self, comm=None, bucket_bytes=BUCKET_BYTES):
        self.comm = MPI.COMM_WORLD if comm is None else comm
        self.rank, self.size = self.comm.rank, self.comm.size
        self.bucket_bytes = bucket_bytes
        self._gathered = None
        self._second_comm = None  # for the second halves of sums in bfloat16
        self._divide_threads()

    def _divide_threads(self):
        if "NUMBA_NUM_THREADS" in os.environ or compiler.missing():
            return
        from ...kernels.runtime import threads

        here = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        # Ranks that mpiexec has bound to cores see only those cores; ranks that see all cores share them.
        seen = sum(map(len, here.allgather(sorted(cores()))))
        distinct = len(set().union(*here.allgather(sorted(cores()))))
        # A quota of processor time is taken for the machine's, which all its ranks share.
        threads.set_count(max(1, min(len(cores()) * distinct // seen, thread_count() // here.size)))
        here.Free()

    # ---- small sums ----------------------------------------------------------------------------------------

    def sum(self, values):
        """Element-wise sum over ranks of a list of numbers, as floats."""
        total = np.array(values, np.float64)
        self.comm.Allreduce(MPI.IN_PLACE, total, MPI.SUM)
        return total.tolist()

    def sum_on_machine(self, values):
        """As ``sum``, over the ranks on this rank's machine."""
        here = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        total = np.array(values, np.float64)
        here.Allreduce(MPI.IN_PLACE, total, MPI.SUM)
        here.Free()
        return total.tolist()

    def barrier(self):
        self.comm.Barrier()

    def check_same(self, what, text):
        """``RankFailed`` on every rank unless ``text`` is the same on all."""
        texts = self.comm.allgather(text)
        for rank, other in enumerate(texts):
            if other != texts[0]:
                raise RankFailed(
                    "ranks disagree",
                    field=what,
                    found=f"rank {rank}: {_difference(texts[0], other)}",
                    expected="what rank 0 has",
                )

    # ---- gradients -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def summed_gradients(self, model, last, rounded=False):
        """Context manager around a backward; the step's ``last`` one sends each bucket as soon as the bucket is complete.

        rounded: the gradients travel as bfloat16.
        """
        if not last or self.size == 1:
            yield
            return
        flat = model.grads.flat
        bucket = max(self.bucket_bytes // flat.itemsize, 1)
        starts = dict(zip(model.grads, model.grads.boundaries))
        sums, sent_from = self._sums(rounded), len(flat)

        def complete_from(start):
            nonlocal sent_from
            if start < sent_from:
                sums.add(flat[start:sent_from])
                sent_from = start

        def on_gradients(name):
            if sent_from - starts[name] >= bucket:
                complete_from(starts[name])
            sums.advance()

        model.on_gradients = on_gradients
        try:
            yield
        finally:
            model.on_gradients = None
        complete_from(0)
        sums.finish()

    def _sums(self, rounded):
        if not rounded:
            return _ExactSums(self.comm)
        if self._second_comm is None:
            self._second_comm = self.comm.Dup()
        return RoundedSums(self.comm, self._second_comm)

    # ---- ZeRO-1 --------------------------------------------------------------------------------------------

    def optimizer_slice(self, n, zero):
        """(start, stop): with ``zero`` the rank's share of the n flat parameters, else all."""
        if not zero:
            return 0, n
        mine = self.share(n)
        return mine.start, mine.stop

    def gather_parameters(self, params, zero):
        """With ``zero`` every rank receives the slices that the others have updated."""
        if zero:
            counts, starts = self._layout(len(params.flat))
            self.comm.Allgatherv(MPI.IN_PLACE, [params.flat, counts, starts, _type(params.flat)])

    def gather_moments(self, optimizer, n, zero):
        """(first, second): with ``zero`` rank 0 receives all n moments, in two arrays that it keeps for the next call."""
        if not zero:
            return optimizer.first, optimizer.second
        if self._gathered is None and self.rank == 0:
            self._gathered = [np.empty(n, optimizer.first.dtype) for _ in range(2)]
        counts, starts = self._layout(n)
        for i, own in enumerate((optimizer.first, optimizer.second)):
            whole = [self._gathered[i], counts, starts, _type(own)] if self.rank == 0 else None
            self.comm.Gatherv(own, whole, root=0)
        return tuple(self._gathered) if self.rank == 0 else (optimizer.first, optimizer.second)

    def _layout(self, n):
        shares = [range(rank * n // self.size, (rank + 1) * n // self.size) for rank in range(self.size)]
        return [len(share) for share in shares], [share.start for share in shares]

    # ---- failure -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def guard(self):
        """An error that leaves this block ends all ranks, which would otherwise wait for this one for ever.

        Where all ranks fail alike, the others wait, so that the first can print its error before it is ended.
        """
        try:
            yield
        except BaseException as error:
            if self.size == 1:
                raise
            if self.rank:
                time.sleep(2)
            if isinstance(error, (GPTNumpyError, OSError)):
                print(f"gpt-numpy train: rank {self.rank}: {error}", file=sys.stderr, flush=True)
            else:
                traceback.print_exc()
                sys.stderr.flush()
            time.sleep(0.5)  # mpiexec passes on what ranks write, and may stop doing so as soon as one aborts
            code = getattr(error, "exit_code", 3)
            self.comm.Abort(code)
            raise SystemExit(code) from None  # Abort may return before mpiexec ends this process


class _ExactSums:
    """Sums of pieces of an array, each begun with `add` and done in place at the latest in `finish`."""

    def __init__(self, comm):
        self._comm, self._requests = comm, []

    def add(self, piece):
        self._requests.append(self._comm.Iallreduce(MPI.IN_PLACE, piece, MPI.SUM))

    def advance(self):
        """Let MPI work on what is under way."""
        MPI.Request.Testall(self._requests)

    def finish(self):
        MPI.Request.Waitall(self._requests)


def _type(array):
    return {"f": MPI.FLOAT, "d": MPI.DOUBLE}[array.dtype.char]


def _difference(text, other):
    """The first line in which two texts differ."""
    for a, b in zip(text.splitlines(), other.splitlines()):
        if a != b:
            return f"{b.strip()!r} instead of {a.strip()!r}"
    return f"{counted(len(other), 'character')} instead of {len(text)}"
