"""What kernels are made of, and what knows nothing of a GPT: decorators, vectors, threads, checks, scratch memory."""

from ...host.compiler import require

require()  # before anything here imports numba
