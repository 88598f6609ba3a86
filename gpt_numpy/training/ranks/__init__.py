"""One process or many that share a run: ``distributed.Alone``, and ``mpi.MPIGroup`` over MPI."""
