"""The kernels with products in bfloat16: the same functions, whose matrix products round their operands in packing.

The twin of ``layers.rounded``; see ``gpt_numpy.products`` for what is rounded and what is not. Arrays are float32; what
caches keep in bfloat16 is uint16 (``gemm.narrow``).
"""

import functools

from .. import kernels
from ..errors import KernelError
from .gemm import with_operands
from .runtime.checks import FLOATS

__all__ = list(kernels.__all__)

COPIES_INPUTS = True  # the caches of mlp and of attention with its projections hold no x, but narrow copies
WITH_PRODUCTS = ("linear_", "mlp_", "attention_", "multi_head_attention_", "lm_head_")


def _rounded(name):
    """The kernel of that name, with rounded operands in its products."""
    op = getattr(kernels, name)

    @functools.wraps(op)
    def rounded(*args, **kwargs):
        if getattr(args[0], "dtype", None) == FLOATS[1]:
            raise KernelError("products in bfloat16 take float32 arrays", found="float64", expected="float32")
        with with_operands("bfloat16"):
            return op(*args, **kwargs)

    return rounded


globals().update(
    {name: _rounded(name) if name.startswith(WITH_PRODUCTS) else getattr(kernels, name) for name in __all__}
)
