"""Single operations next to their peers: every contender gets the same problem of ``benchmarks.problems``.

A folder is made with the right answer in float64. A contender's first result is compared with that answer. A step is
then as many calls as fit ``TURN`` seconds, and the time of a step is their median.
"""

from __future__ import annotations

import os
import statistics

import numpy as np

from .. import timing
from ..problems import ROUNDED_TOLERANCE, error_against
from ..problems import operations as problems

TURN = 0.3  # seconds

_OURS, _TORCH = "operation_ours", "operation_torch"
_CONTENDERS = {"gpt_numpy": _OURS, "pytorch eager": _TORCH, "pytorch compiled": _TORCH}
_BFLOAT16 = {"gpt_numpy bfloat16": _OURS, "pytorch bf16": _TORCH}
_PRODUCTS = {"gpt_numpy": _OURS, "NumPy": _OURS, "pytorch eager": _TORCH} | _BFLOAT16


def _problem(operation, **size):
    summary = f"{problems.PROBLEMS[operation].summary}, {' × '.join(map(str, size.values()))}"
    contenders = _CONTENDERS | _BFLOAT16 if operation == "attention" else _CONTENDERS
    more = (_PRODUCTS, "block") if operation == "block" else (contenders, "call")
    return summary, dict(operation=operation, size=size), *more


# name → (summary, spec, contenders, unit of time)
PROBLEMS = {
    "attention": _problem("attention", B=4, T=1024, n_head=12, head_size=64),
    "layernorm": _problem("layernorm", rows=4096, columns=768),
    "layernorm-small": _problem("layernorm", rows=768, columns=128),
    "gelu": _problem("gelu", rows=4096, columns=3072),
    "gelu-small": _problem("gelu", rows=768, columns=512),
    "cross-entropy": _problem("cross-entropy", rows=1024, vocab_size=50257),
    "cross-entropy-small": _problem("cross-entropy", rows=768, vocab_size=65),
    "adamw": _problem("adamw", n=1 << 25),
    "adamw-small": _problem("adamw", n=811_000),
    "gemm-long": _problem("block", rows=4096, columns=768),
    "gemm-short": _problem("block", rows=256, columns=768),
    "gemm-small": _problem("block", rows=768, columns=128),
}


def problem_of(spec):
    """The ``Problem`` that a spec names."""
    return problems.PROBLEMS[spec["operation"]]


def inputs(spec):
    """name → array of the problem, seeded, in the order in which the operation takes them."""
    return problem_of(spec).inputs(spec["size"])


def tolerance(name, spec):
    """The largest error that a contender may make, relative to the largest entry of each output."""
    return ROUNDED_TOLERANCE if name in _BFLOAT16 else problem_of(spec).tolerance


def flops(spec):
    """Operations of the products in a call, or None for an operation that memory limits."""
    if spec["operation"] not in ("attention", "block"):
        return None
    return problem_of(spec).flops(**spec["size"])


def make_folder(folder, spec):
    """Write the right outputs, output by output, as ``0.npy`` and so on."""
    for i, output in enumerate(problem_of(spec).oracle(inputs(spec))):
        np.save(os.path.join(folder, f"{i}.npy"), np.asarray(output, np.float32))


def error_of(outputs, spec):
    """The largest error of any output, relative to the largest entry of that output; NaN for a wrong shape or a NaN."""
    right = [np.load(os.path.join(spec["folder"], f"{i}.npy")) for i in range(len(outputs))]
    return error_against(right, outputs)


def timed(call):
    """The median seconds of the calls of a turn."""
    return statistics.median(timing.turn(call, TURN)[1:])


def step_of(call, spec, outputs):
    """A worker's step, which times ``call``; ``outputs`` of the first call are compared with the right ones."""
    error = error_of(outputs, spec)
    return lambda: (error, timed(call))


def products_step(spec, arrays, multiply, empty, to_numpy=np.asarray):
    """A worker's step that times each product: ``multiply`` takes a, b, out, and whether a and b are transposed."""
    calls = {}
    for title, a, b, a_t, b_t in problems.products_of_a_block(arrays):
        out = empty((a.shape[1] if a_t else a.shape[0], b.shape[0] if b_t else b.shape[1]))
        calls[title] = (a, b, out, a_t, b_t)
        multiply(*calls[title])
    error, seconds = error_of([to_numpy(call[2]) for call in calls.values()], spec), {title: [] for title in calls}

    def step():
        turn = {title: timed(lambda call=call: multiply(*call)) for title, call in calls.items()}
        for title, spent in turn.items():
            seconds[title].append(spent)
        return error, sum(turn.values())

    def report():
        lines = {}
        for title, (a, _, out, a_t, _) in calls.items():
            matrix, product = title.split()
            operations = 2 * out.shape[0] * out.shape[1] * (a.shape[0] if a_t else a.shape[1])
            lines.setdefault(product, []).append(f"{matrix} {operations / statistics.median(seconds[title]) / 1e9:.0f}")
        return {product: ", ".join(rates) + " GFLOP/s" for product, rates in lines.items()}

    step.report = report
    return step
