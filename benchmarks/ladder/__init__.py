"""The ladder: for each operation, rungs from plain loops to explicit vectors.

A ``Case`` is a problem (``benchmarks.problems``) with its rungs. The first rungs are so slow that they run on a smaller
problem. Their rates are comparable with those of other rungs, their times are not. The table marks them with a star.
"""

from __future__ import annotations

import importlib
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpt_numpy.workspace import Workspace

from .. import timing
from ..problems import Problem, error_against, fresh

CASES = (
    "attention",
    "attention_bfloat16",
    "gemm",
    "gemm_bfloat16",
    "layernorm",
    "gelu",
    "head_cross_entropy",
    "adamw",
    "bpe",
)


class Rung(NamedTuple):
    name: str
    run: Callable  # inputs -> tuple of arrays (or floats)
    small: bool = False  # runs on the small problem
    products: str = "float32"  # the limit of multiply-adds that this rung is compared with


class Case(NamedTuple):
    name: str
    problem: Problem
    size: dict
    small_size: dict
    rungs: list

    @property
    def summary(self):
        return self.problem.summary


class Result(NamedTuple):
    case: str
    rung: str
    error: float
    passed: bool
    compile_seconds: float
    seconds: dict | None
    gflops: float | None
    gbytes: float | None
    share: float | None  # of the roofline at this arithmetic intensity
    memory: int | None  # peak bytes allocated by a call
    size: dict
    products: str = "float32"  # of the limit


def load(name):
    """The ``Case`` of that name."""
    return importlib.import_module(f".{name}", __name__).CASE


def climb(case, machine, report):
    """Check every rung, time those that pass, in turn; ``report`` is called with each ``Result``."""
    results = []
    for small in (True, False):
        rungs = [rung for rung in case.rungs if rung.small == small]
        if not rungs:
            continue
        size = case.small_size if small else case.size
        inputs = case.problem.inputs(size)
        expected = case.problem.oracle(inputs)
        checked = [_check(rung, inputs, expected, case.problem.tolerance) for rung in rungs]
        sound = {rung.name: (lambda r=rung: r.run(inputs)) for rung, c in zip(rungs, checked) if c["passed"]}
        times = timing.interleaved(sound) if sound else {}
        for rung, check in zip(rungs, checked):
            result = _result(case, rung, size, check, times.get(rung.name), machine)
            results.append(result)
            report(result)
    return results


def by(problem, ops):
    """A rung's ``run(inputs)``: the problem solved by a namespace of ops."""
    return lambda inputs: problem.through(ops, inputs, np.empty)


def keeping(problem, ops):
    """The rung's ``run(inputs)`` with outputs in memory that is kept from call to call, as in training.

    The operating system provides fresh memory page by page, which takes longer than many kernels take to fill it.
    """
    workspace = Workspace()
    return lambda inputs: problem.through(ops, inputs, workspace.begin("outputs"))


def _check(rung, inputs, expected, tolerance):
    copy = fresh(inputs)
    outputs, first = timing.with_result(lambda: rung.run(copy))  # compiles
    error = error_against(expected, outputs)
    again = timing.once(lambda: rung.run(copy))
    tracemalloc.start()
    rung.run(copy)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"error": error, "passed": error <= tolerance, "compile": max(first - again, 0.0), "memory": memory}


def _result(case, rung, size, check, seconds, machine):
    base = dict(
        case=case.name,
        rung=rung.name,
        error=check["error"],
        passed=check["passed"],
        compile_seconds=check["compile"],
        size=size,
        products=rung.products,
    )
    if seconds is None:
        return Result(**base, seconds=None, gflops=None, gbytes=None, share=None, memory=None)
    summary = timing.summary(seconds)
    gflops = case.problem.flops(**size) / summary["median"] / 1e9
    gbytes = case.problem.bytes(**size) / summary["median"] / 1e9
    share = max(gflops / machine[timing.LIMIT[rung.products]], gbytes / machine["gbytes"])
    return Result(**base, seconds=summary, gflops=gflops, gbytes=gbytes, share=share, memory=check["memory"])
