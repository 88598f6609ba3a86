"""``kernel`` and ``part``: how every function of this package is compiled.

Compiled code is kept on disk (``code_files``). A kernel inlines the functions that it calls, so its code depends on
more than its own file: on every source file below ``kernels/``, and on the file that holds it where that is elsewhere.
"""

import hashlib
import inspect
from functools import cache
from pathlib import Path

import numba

from ...host import compiling
from .numba_inside import Unoptimised, compiled

_KERNELS = Path(__file__).parents[1]
compiling.watch()


@cache
def package_stamp(folder=_KERNELS):
    """Hash of all Python files below ``folder``, and of their paths in it."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        name, content = path.relative_to(folder).as_posix().encode(), path.read_bytes()
        digest.update(b"%d %s %d " % (len(name), name, len(content)) + content)
    return digest.hexdigest()


@cache
def _stamp_of(path):
    """Hash of the sources that decide the code of a kernel in the file ``path``."""
    if path.is_relative_to(_KERNELS) or not path.is_file():
        return package_stamp()
    return hashlib.sha256(package_stamp().encode() + path.read_bytes()).hexdigest()


def kernel(parallel=False, **options):
    """Decorator: compile for the CPU, without the GIL (unless ``nogil=False``), kept on disk; x / 0 follows IEEE, not Python.

    There are no bounds checks: the caller of a kernel validates the arguments. Where no folder for the compiled
    code can be written, the first compilation gives one warning, and every process compiles anew.
    """
    options = {"nogil": True} | options
    options.update(error_model="numpy", boundscheck=False, parallel=parallel)

    def decorate(function):
        return compiled(function, _stamp_of(Path(inspect.getfile(function)).absolute()), **options)

    return decorate


def part(function=None, **options):
    """Decorator for a function that only kernels call: the rules of `kernel`, but compiled into its callers alone.

    numba would optimise the function alone and again within each caller, and would keep an entry point that Python never
    calls. Linking the unoptimised function into its callers halves the compile time of kernels, at no cost in speed.

    A part makes no arrays, returns none to a launcher, and does not count references to its arguments, which the caller
    of the launcher holds until the kernel ends. numba would count references atomically whenever an array is passed on or
    a view is made. In small functions called from many threads, the counting would take most of the time.
    """
    if function is None:
        return lambda function: part(function, **options)
    return numba.njit(
        nogil=True,
        error_model="numpy",
        boundscheck=False,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
        pipeline_class=Unoptimised,
        _nrt=False,
        **options,
    )(function)
