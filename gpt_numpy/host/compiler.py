"""Whether numba can compile here. The kernels need numba; layers, tokenizers, gradient checks and studies do not.

numba cannot compile where ``NUMBA_DISABLE_JIT`` is set, where numba is not installed, and where numba does not fit
the installed NumPy.
"""

import functools
import importlib
import os
import warnings

from ..errors import KernelError


@functools.cache
def missing():
    """The reason why numba cannot compile and the remedy, in one sentence; None where numba can compile."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "NUMBA_DISABLE_JIT turns off the compiler that the kernels need: unset it"
    try:
        import numba
    except Exception as error:  # an ImportError, or whatever a broken installation raises
        return f"numba, which compiles the kernels, cannot be imported ({error}): install a version that fits NumPy"
    if numba.config.DISABLE_JIT:
        return "numba's configuration file turns off the compiler that the kernels need: set disable_jit to 0 there"
    return None


def require():
    """``KernelError`` with the reason where numba cannot compile."""
    if reason := missing():
        raise KernelError(f"{reason}; train, gradcheck and microscope work without it, with --ops layers")


@functools.cache
def warn_missing():
    """Warn, once for the process, that the slow form in NumPy and Python is used because numba cannot compile."""
    warnings.warn(f"{missing()}; until then the slow form in NumPy and Python is used", RuntimeWarning, stacklevel=3)


def default_ops():
    """``gpt_numpy.kernels``, or ``gpt_numpy.layers`` after a warning where numba cannot compile."""
    if missing():
        warn_missing()
    return importlib.import_module("gpt_numpy.layers" if missing() else "gpt_numpy.kernels")
