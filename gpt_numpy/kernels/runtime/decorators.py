"""``kernel`` and ``part``: how every function of this package is compiled.

Compiled code is cached on disk. numba's own cache notices a change of the file that holds the function, not of the
files it uses; a kernel inlines ``vectors`` and others. The cache therefore also depends on every source file below
``kernels/`` and on the settings that change the generated code.
"""

import hashlib
import warnings
from functools import cache
from pathlib import Path

import numba
from numba.core.compiler import Compiler

from .emitting import CHECK_BOUNDS, VECTOR_BYTES

_KERNELS = Path(__file__).parents[1]


@cache
def package_stamp(folder=_KERNELS):
    """Hash of all Python files below ``folder``, of their paths in it, and of the settings that change the code."""
    digest = hashlib.sha256(f"{numba.__version__} {VECTOR_BYTES} {CHECK_BOUNDS}".encode())
    for path in sorted(folder.rglob("*.py")):
        name, content = path.relative_to(folder).as_posix().encode(), path.read_bytes()
        digest.update(b"%d %s %d " % (len(name), name, len(content)) + content)
    return digest.hexdigest()


def kernel(parallel=False, **options):
    """Decorator: compile for the CPU, without the GIL, cached on disk; x / 0 follows IEEE, not Python.

    There are no bounds checks: whoever calls a kernel has validated its arguments. Where no folder for the compiled
    code can be written, a warning says so, and every process compiles anew.
    """
    options.update(nogil=True, error_model="numpy", boundscheck=False, parallel=parallel)

    def decorate(function):
        try:
            dispatcher = numba.njit(cache=True, **options)(function)
        except RuntimeError as error:  # numba's "cannot cache function …: no locator available"
            warnings.warn(
                f"kernels are compiled anew in every process: {error}; set NUMBA_CACHE_DIR to a folder that "
                "can be written",
                RuntimeWarning,
                stacklevel=2,
            )
            return numba.njit(**options)(function)
        dispatcher._cache._cache_file._source_stamp = package_stamp()
        return dispatcher

    return decorate


class _Unoptimised(Compiler):
    """Leaves the optimising of a library to the one that it is linked into."""

    def define_pipelines(self):
        state = self.state
        state.library = state.targetctx.codegen().create_library(state.func_id.func_qualname)
        state.library._optimize_final_module = lambda: None
        return super().define_pipelines()


def part(function=None, **options):
    """Decorator for a function that only kernels call: the same rules, but compiled into its callers alone.

    numba would optimise it by itself, then again with each function that calls it, and keep code that nobody calls from
    Python. Taking it over as it is halves the time that kernels take to compile, and costs them nothing.

    It makes no arrays, and does not count references to those it is given (whoever launched the kernel holds them until
    it ends). numba would count whenever an array is passed on or a view is made, atomically: in small functions called
    from many threads that is the larger part of the time.
    """
    if function is None:
        return lambda function: part(function, **options)
    return numba.njit(
        nogil=True,
        error_model="numpy",
        boundscheck=False,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
        pipeline_class=_Unoptimised,
        _nrt=False,
        **options,
    )(function)
