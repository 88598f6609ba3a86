"""The ladder: for each operation, rungs from plain loops to explicit vectors.

A ``Case`` is an operation with a float64 oracle (the specification in ``gpt_numpy.layers``) and its rungs. The
first rungs are so slow that they run on a smaller problem; rates stay comparable, times do not, and the table says
which is which.
"""

from __future__ import annotations

import importlib
import time
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpt_numpy.workspace import Workspace

from .. import timing

CASES = ("attention", "gemm", "layernorm", "gelu", "head_cross_entropy", "adamw", "bpe")


class Rung(NamedTuple):
    name: str
    run: Callable  # inputs -> tuple of arrays (or floats)
    small: bool = False  # runs on the small problem


class Case(NamedTuple):
    name: str
    summary: str
    size: dict
    small_size: dict
    make: Callable  # (rng, **size) -> inputs, float32
    oracle: Callable  # inputs -> tuple of float64 arrays
    rungs: list
    flops: Callable  # (**size) -> number
    bytes: Callable  # (**size) -> number: what must cross the memory bus at least
    tolerance: float  # largest error allowed, relative to the largest entry of each output


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
        inputs = case.make(np.random.default_rng(0), **size)
        expected = case.oracle(inputs)
        checked = [_check(rung, inputs, expected, case.tolerance) for rung in rungs]
        sound = {rung.name: (lambda r=rung: r.run(inputs)) for rung, c in zip(rungs, checked) if c["passed"]}
        times = timing.interleaved(sound) if sound else {}
        for rung, check in zip(rungs, checked):
            result = _result(case, rung, size, check, times.get(rung.name), machine)
            results.append(result)
            report(result)
    return results


def fresh(inputs):
    """``inputs`` with arrays of their own, for a rung that works in place."""
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in inputs.items()}


def keeping(run):
    """A rung's ``run(inputs, alloc)`` with outputs in memory that stays from call to call, as in training.

    Fresh memory comes page by page from the operating system, which takes longer than many kernels take to fill it.
    """
    workspace = Workspace()
    return lambda inputs: run(inputs, workspace.begin("outputs"))


def error_against(expected, outputs):
    """Largest error of any output, relative to that output's largest entry. NaN where shapes or values are off."""
    worst = 0.0
    for want, got in zip(expected, outputs, strict=True):
        want, got = np.asarray(want, np.float64), np.asarray(got, np.float64)
        if want.shape != got.shape or not np.isfinite(got).all():
            return float("nan")
        scale = max(float(np.abs(want).max(initial=0)), 1e-30)
        worst = max(worst, float(np.abs(want - got).max(initial=0)) / scale)
    return worst


def _check(rung, inputs, expected, tolerance):
    start = time.perf_counter()
    copy = fresh(inputs)
    outputs = rung.run(copy)  # compiles
    first = time.perf_counter() - start
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
    )
    if seconds is None:
        return Result(**base, seconds=None, gflops=None, gbytes=None, share=None, memory=None)
    summary = timing.summary(seconds)
    gflops = case.flops(**size) / summary["median"] / 1e9
    gbytes = case.bytes(**size) / summary["median"] / 1e9
    share = max(gflops / machine["gflops"], gbytes / machine["gbytes"])
    return Result(**base, seconds=summary, gflops=gflops, gbytes=gbytes, share=share, memory=check["memory"])
