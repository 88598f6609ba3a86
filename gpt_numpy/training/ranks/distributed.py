"""Data-parallel training: the interface between the trainer and its group of processes. ``Alone`` is a group of one.

Every rank computes a range of the global batch's rows. Gradients are summed over ranks; because each
micro-batch was weighted by its share of the global batch's counted targets, the sum is the gradient of the global
mean, whatever the number of ranks. ``mpi.MPIGroup`` does this over MPI.
"""

from __future__ import annotations

import contextlib


class Alone:
    """A group of one process, whose sums are its own numbers."""

    rank, size = 0, 1
    mpi = False

    def guard(self):
        """Context manager around a rank's whole work: an error in one rank ends all."""
        return contextlib.nullcontext()

    def share(self, n):
        """This rank's range of ``n`` items, in order; sizes differ by one at most."""
        return range(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def sum(self, values):
        """Element-wise sum over ranks of a list of numbers; the same list on every rank."""
        return values

    def sum_on_machine(self, values):
        """As ``sum``, over the ranks on this rank's machine."""
        return values

    def summed_gradients(self, model, last, rounded=False):
        """Context manager around a backward; after the step's ``last``, ``model.grads`` holds the sum over ranks.

        rounded: the gradients travel as bfloat16 (``rounded_sum``).
        """
        return contextlib.nullcontext()

    def optimizer_slice(self, n, zero):
        """(start, stop) of the flat parameters whose moments this rank keeps and which it updates."""
        return 0, n

    def gather_parameters(self, params, zero):
        """After an update, give every rank the parameters that the others updated."""

    def gather_moments(self, optimizer, n, zero):
        """The moments (first, second) of all n parameters on rank 0, for a checkpoint; undefined on other ranks."""
        return optimizer.first, optimizer.second

    def check_same(self, what, text):
        """``RankFailed`` unless ``text`` is the same on every rank."""

    def barrier(self):
        """Wait for all ranks."""
