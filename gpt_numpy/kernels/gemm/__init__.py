"""Matrix multiplication on numba's thread pool: C (+)= A·B, A·Bᵀ, Aᵀ·B, with bias, GELU and sums fused into the product.

``np.matmul`` is not used for three reasons. BLAS has a second thread pool, whose spinning threads slow down numba's. The
speed of BLAS depends on its guess about the CPU. BLAS cannot add a bias or apply GELU while the result is in the cache.
The twin ``numpy_twin`` does the same with ``np.matmul``. It is the oracle of the tests, and runs on a CPU that LLVM does
not know.

``plan`` decides how C is cut, ``blocked`` walks over the blocks, ``packing`` lays them out, and ``tile`` multiplies.
"""

import os
import threading

import numpy as np

from ...errors import ConfigError
from ..runtime import threads
from ..runtime.bfloat16 import TOGETHER
from ..runtime.emitting import cpu_features
from ..runtime.recording import not_only_launches
from ..runtime.scratch import worker_scratch
from .blocked import multiply
from .narrow import NARROW
from .numpy_twin import BIAS, BIAS_GELU, BIAS_GELU_KEEP, GELU_BACKWARD, NOTHING, gemm_numpy
from .plan import PANEL_BYTES, Tiling, panels_size, plan
from .tile import TILE, columns_of

__all__ = ["BIAS", "BIAS_GELU", "BIAS_GELU_KEEP", "GELU_BACKWARD", "NOTHING"]
__all__ += ["current_products", "gemm", "gemm_numpy", "gemm_vectors", "products_of", "with_operands"]

_DTYPES = tuple(map(np.dtype, (np.float32, np.float64)))
_ABSENT = {dtype: np.empty(0, dtype) for dtype in _DTYPES}  # for arrays that are not used
_NO_NARROW = np.empty(0, NARROW)  # likewise, of the type that ``extra`` has in products in bfloat16
_WORD = np.dtype(np.uint32)  # of panels in bfloat16: TOGETHER k
_ROUNDED = Tiling(TILE.rows, columns_of(4), TOGETHER * PANEL_BYTES // _WORD.itemsize)
TILINGS = {dtype: Tiling(TILE.rows, columns_of(dtype.itemsize), PANEL_BYTES // dtype.itemsize) for dtype in _DTYPES}


def gemm_vectors(
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
    """`gemm`, by the kernels of this package."""
    M, N = out.shape
    K = a.shape[0] if a_transposed else a.shape[1]
    if M == 0 or N == 0 or K == 0:
        not_only_launches()
        gemm_numpy(
            a,
            b,
            out,
            a_transposed=a_transposed,
            b_transposed=b_transposed,
            add=add,
            epilogue=epilogue,
            bias=bias,
            extra=extra,
            activation=activation,
            sums=sums,
            add_sums=add_sums,
            products=products,
        )
        return
    absent = _ABSENT[out.dtype]
    if products == "bfloat16":
        tiling, panels = _ROUNDED, worker_scratch(_WORD, panels_size(_ROUNDED, 1 / TOGETHER))
        tiles, no_extra = worker_scratch(out.dtype, TILE.rows * tiling.columns), _NO_NARROW
    else:
        tiling = TILINGS[out.dtype]
        panels = tiles = worker_scratch(out.dtype, panels_size(tiling, 1))
        no_extra = absent
    n_tasks, *cut = plan(M, N, K, threads.count(), tiling, epilogue > BIAS)
    multiply(
        n_tasks,
        panels.reshape(-1),
        panels.shape[1],
        tiles.reshape(-1),
        tiles.shape[1],
        a.reshape(-1),
        b.reshape(-1),
        out.reshape(-1),
        M,
        N,
        K,
        not a_transposed,
        b_transposed,
        add,
        epilogue,
        absent if bias is None else bias,
        no_extra if extra is None else extra.reshape(-1),
        absent if activation is None else activation.reshape(-1),
        absent if sums is None else sums,
        add_sums,
        *cut,
    )


def choose():
    """The vector kernels where LLVM knows the CPU, NumPy elsewhere; GPT_NUMPY_GEMM (vectors or numpy) overrides."""
    choices = {"vectors": gemm_vectors, "numpy": gemm_numpy}
    name = os.environ.get("GPT_NUMPY_GEMM", "vectors" if cpu_features() else "numpy")
    if name not in choices:
        raise ConfigError("no such matrix product", field="GPT_NUMPY_GEMM", found=name, expected="vectors or numpy")
    return choices[name]


IMPLEMENTATION = choose()
_setting = threading.local()


class with_operands:
    """Within it, ``products`` ("float32" or "bfloat16") is the default for this Python thread's float32 arrays."""

    __slots__ = ("_before", "_products")

    def __init__(self, products):
        self._products = products

    def __enter__(self):
        self._before, _setting.products = current_products(), self._products

    def __exit__(self, *_):
        _setting.products = self._before


def current_products():
    """The ``products`` of this Python thread for float32 arrays just now: "float32" or "bfloat16"."""
    return getattr(_setting, "products", "float32")


def products_of(dtype):
    """The ``products`` of this Python thread for arrays of ``dtype`` just now: "float32" or "bfloat16"."""
    return current_products() if dtype == np.float32 else "float32"


def gemm(a, b, out, **options):
    """out (M, N) = A · B for contiguous float32 or float64 arrays a (M, K) and b (K, N); no argument is checked here.

    a_transposed, b_transposed    a is (K, M), b is (N, K)
    add                           out += A · B
    epilogue                      a constant of ``numpy_twin``, with the arrays that it names: bias (N,), extra and
                                  activation like out
    sums, add_sums                sums (N,) = (+=) the column sums of B: a bias's gradient, where B is dout
    products                      "float32", or for float32 arrays "bfloat16": the elements of A and B are rounded to
                                  bfloat16 first; everything else stays float32 (default: as `with_operands` says).
                                  A and ``extra`` may then be narrow (``gemm.narrow``)
    """
    if out.dtype == np.float32:
        options.setdefault("products", products_of(out.dtype))
    if IMPLEMENTATION is not gemm_vectors:
        not_only_launches()
    IMPLEMENTATION(a, b, out, **options)
