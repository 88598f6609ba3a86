"""``kernel``: how every function of this package is compiled.

Compiled code is cached on disk. numba's own cache notices a change of the file that holds the function, not of the
files it uses; a kernel inlines ``simd`` and others, so here the cache also depends on every source file of the package
and on the settings that change the generated code.
"""

import hashlib
from functools import cache
from pathlib import Path

import numba

from .lanes import CHECK_BOUNDS, VECTOR_BYTES


@cache
def _package_stamp():
    digest = hashlib.sha256(f"{numba.__version__} {VECTOR_BYTES} {CHECK_BOUNDS}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def kernel(parallel=False, **options):
    """Decorator: compile for the CPU, without the GIL, cached on disk; x / 0 follows IEEE, not Python.

    There are no bounds checks: whoever calls a kernel has validated its arguments.
    """

    def decorate(function):
        dispatcher = numba.njit(
            cache=True, nogil=True, error_model="numpy", boundscheck=False, parallel=parallel, **options
        )(function)
        dispatcher._cache._cache_file._source_stamp = _package_stamp()
        return dispatcher

    return decorate
