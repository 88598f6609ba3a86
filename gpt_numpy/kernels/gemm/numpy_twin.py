"""`gemm` with ``np.matmul``: what the vector kernels are tested against, and their stand-in where LLVM does not know
the CPU. Slower in every way (see ``gemm``), and the same results up to rounding.
"""

import math

import numpy as np

from ...products import bfloat16_to_float32, round_to_bfloat16, to_bfloat16

# What happens to the finished sums before they are stored.
NOTHING = 0
BIAS = 1  # + bias
BIAS_GELU = 2  # gelu(+ bias)
BIAS_GELU_KEEP = 3  # the same, and extra = what GELU was applied to
GELU_BACKWARD = 4  # · gelu'(extra), and activation = gelu(extra)


def gemm_numpy(
    a,
    b,
    out,
    *,
    a_transposed=False,
    b_transposed=False,
    add=False,
    epilogue=NOTHING,
    bias=None,
    extra=None,
    activation=None,
    sums=None,
    add_sums=False,
    products="float32",
):
    """`gemm`, by NumPy."""
    left, right = (_rounded(a), _rounded(b)) if products == "bfloat16" else (a, b)
    value = (left.T if a_transposed else left) @ (right.T if b_transposed else right)
    if add:
        value += out
    if epilogue == GELU_BACKWARD:
        before = bfloat16_to_float32(extra) if extra.dtype == np.uint16 else extra
        activation[...] = _gelu(before)
        value *= _gelu_derivative(before)
    elif epilogue != NOTHING:
        value += bias
        if epilogue == BIAS_GELU_KEEP:
            extra[...] = to_bfloat16(value) if extra.dtype == np.uint16 else value
        if epilogue != BIAS:
            value = _gelu(value)
    out[...] = value
    if sums is not None:
        columns = b.sum(axis=1 if b_transposed else 0)
        sums[...] = columns + sums if add_sums else columns


def _rounded(x):
    return bfloat16_to_float32(x) if x.dtype == np.uint16 else round_to_bfloat16(x)


def _tanh(x):
    return np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def _gelu(x):
    return 0.5 * x * (1 + _tanh(x))


def _gelu_derivative(x):
    tanh = _tanh(x)
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
