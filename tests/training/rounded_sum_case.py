"""One rank of test_mpi.py's test of sums in bfloat16: ``mpiexec -n 3 python rounded_sum_case.py``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from mpi4py import MPI

from gpt_numpy.training.ranks.rounded_sum import RoundedSums

comm = MPI.COMM_WORLD
lengths = (70_001, 1, 5, 0, 3 * 40_000)  # longer than a chunk, shorter than the number of ranks, nothing
drawn = [np.random.default_rng(rank).standard_normal(sum(lengths), np.float32) for rank in range(comm.size)]
if comm.rank == comm.size - 1:
    drawn[comm.rank][-1] = np.nan
mine = drawn[comm.rank].copy()

sums = RoundedSums(comm, comm.Dup())
end = len(mine)
for length in lengths:  # from the end, as a backward fills the gradients
    sums.add(mine[end - length : end])
    sums.advance()
    end -= length
sums.finish()

same = comm.allgather(mine.tobytes())
assert all(other == same[0] for other in same), "ranks disagree"
assert np.isnan(comm.bcast(mine, 0)[-1])
exact, sizes = np.sum(drawn, axis=0, dtype=np.float64)[:-1], np.sum(np.abs(drawn), axis=0, dtype=np.float64)[:-1]
error, u = np.abs(mine[:-1] - exact), 2.0**-8
assert (error <= u * sizes + u * np.abs(exact) * (1 + u) + 1e-6 * sizes).all()
assert error.max() > 1e-3, "nothing was rounded"
print(f"rank {comm.rank} is done")
