"""Tools of the kernels that are independent of a GPT: decorators, vectors, threads, checks, scratch memory."""

from ...host.compiler import require

require()  # before anything here imports numba
