"""Causal attention forward and backward with its seven products in bfloat16, next to attention in float32."""

from gpt_numpy import kernels
from gpt_numpy.kernels import rounded
from gpt_numpy.layers import rounded as oracle

from ..problems import ROUNDED_TOLERANCE
from ..problems.operations import PROBLEMS
from . import Case, Rung, by, keeping

_PROBLEM = PROBLEMS["attention"]._replace(summary="causal attention in bfloat16", tolerance=ROUNDED_TOLERANCE)
CASE = Case(
    name="attention_bfloat16",
    problem=_PROBLEM,
    size=dict(B=4, T=1024, n_head=12, head_size=64),
    small_size=dict(B=1, T=24, n_head=2, head_size=16),
    rungs=[
        Rung("numpy, rounded", by(_PROBLEM, oracle), small=True),
        Rung("kernels, float32", keeping(_PROBLEM, kernels)),
        Rung("kernels, bfloat16", keeping(_PROBLEM, rounded), products="bfloat16"),
    ],
)
