"""One operation by our kernels, with memory kept from call to call as in training; also products by NumPy's BLAS."""

import numpy as np

from . import operations


def prepare(name, spec):
    arrays, operation = operations.inputs(spec), spec["operation"]
    if operation == "block":
        multiply = _blas if name == "NumPy" else _kernels("bfloat16" if "bfloat16" in name else "float32")
        return operations.products_step(spec, arrays, multiply, _zeros)
    from gpt_numpy import kernels
    from gpt_numpy.products import with_products
    from gpt_numpy.workspace import Workspace

    if "bfloat16" in name:
        kernels = with_products(kernels, "bfloat16")

    workspace = Workspace()

    def call():
        return operations.problem_of(spec).through(kernels, arrays, workspace.begin("outputs"))

    return operations.step_of(call, spec, call())


def _zeros(shape):
    return np.zeros(shape, np.float32)


def _kernels(products):
    from gpt_numpy.kernels.gemm import gemm

    return lambda a, b, out, a_t, b_t: gemm(a, b, out, a_transposed=a_t, b_transposed=b_t, products=products)


def _blas(a, b, out, a_t, b_t):
    np.matmul(a.T if a_t else a, b.T if b_t else b, out=out)
