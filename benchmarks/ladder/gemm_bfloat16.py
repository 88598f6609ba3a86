"""C = A · B with operands rounded to bfloat16, next to the product in float32; each compared with the limit of its own."""

from gpt_numpy import kernels
from gpt_numpy.kernels import rounded
from gpt_numpy.products import round_to_bfloat16

from ..problems import ROUNDED_TOLERANCE
from ..problems.operations import PROBLEMS
from . import Case, Rung, by

_PROBLEM = PROBLEMS["gemm"]._replace(summary="matrix product, operands in bfloat16", tolerance=ROUNDED_TOLERANCE)
CASE = Case(
    name="gemm_bfloat16",
    problem=_PROBLEM,
    size=dict(M=1024, K=768, N=3072),
    small_size=dict(M=64, K=96, N=128),
    rungs=[
        Rung(
            "numpy (BLAS), rounded", lambda inputs: (round_to_bfloat16(inputs["a"]) @ round_to_bfloat16(inputs["b"]),)
        ),
        Rung("kernels, float32", by(_PROBLEM, kernels)),
        Rung("kernels, bfloat16", by(_PROBLEM, rounded), products="bfloat16"),
    ],
)
