"""One training step by operation: launches, time, share of the machine's limit, and what Python itself takes.

Every launch of a kernel is timed while whole steps run. A product is named by its shape, M × N × K. The share of a
product, and of attention, is of the machine's peak of multiply-adds in the step's ``--products``. The share of all other
kernels is of the machine's speed of reading memory, with each argument array counted once; arrays that are still in a
cache can make that share more than 100 %. "Python" is the time of a step outside all launches.
"""

import math
import statistics
import time
from collections import defaultdict

import numpy as np

from gpt_numpy.config import GPTConfig
from gpt_numpy.kernels.gemm.blocked import Operands
from gpt_numpy.products import PRODUCTS

from . import timing
from .peers import problem

SHAPES = {
    "small": dict(vocab_size=65, n_layer=4, n_head=4, n_embd=128, batch_size=12, block_size=64),
    "124m": dict(vocab_size=50257, n_layer=12, n_head=12, n_embd=768, batch_size=4, block_size=64),
    "124m-long": dict(vocab_size=50257, n_layer=12, n_head=12, n_embd=768, batch_size=4, block_size=1024),
    "llama-135m": problem.spec_of(GPTConfig.preset("llama-135m"), batch_size=4, block_size=64),
    "llama-135m-long": problem.spec_of(GPTConfig.preset("llama-135m"), batch_size=2, block_size=512),
}


def configure(parser):
    """Add the command's arguments to its parser."""
    parser.add_argument("names", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)} (default: small)")
    parser.add_argument(
        "--products", default="float32", choices=PRODUCTS, help="arithmetic of the step's matrix products"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of measuring for each shape")


def run(args):
    """Measure and print each shape; returns what ``--json`` writes."""
    limits = timing.limits()
    print(timing.limits_line(limits))
    results = {}
    for name in args.names or ["small"]:
        results[name] = measure(SHAPES[name], args.seconds, args.products)
        _print(name, results[name], limits, args.products)
    return {"limits": limits, "steps": results}


def measure(spec, seconds, products="float32"):
    """{"seconds", "python", "rows"} of a step of this shape, each the median over as many steps as fit ``seconds``.

    A row: name, launches of a step, seconds of a step, operations and bytes of a step.
    """
    from gpt_numpy.kernels.runtime import threads

    from .peers import ours

    step = ours.prepare(f"gpt_numpy {products}", spec)
    for _ in range(3):
        step()
    steps, totals = [], []
    end = time.perf_counter() + seconds
    while len(steps) < 3 or time.perf_counter() < end:
        rows = defaultdict(lambda: [0, 0.0, 0, 0])

        def note(launcher, args, took, rows=rows):
            row = rows[_name(launcher, args)]
            operations, size = _cost(launcher, args)
            for i, more in enumerate((1, took, operations, size)):
                row[i] += more

        before = threads.observe(note)
        start = time.perf_counter()
        try:
            step()
        finally:
            threads.observe(before)
        totals.append(time.perf_counter() - start)
        steps.append(rows)
    rows = [
        dict(
            name=name,
            launches=row[0],
            seconds=statistics.median(s[name][1] for s in steps),
            operations=row[2],
            bytes=row[3],
        )
        for name, row in steps[-1].items()
    ]
    python = statistics.median(t - sum(r[1] for r in s.values()) for t, s in zip(totals, steps))
    return {"seconds": statistics.median(totals), "python": python, "rows": rows}


def _name(launcher, args):
    where = launcher.__module__.removeprefix("gpt_numpy.kernels.")
    if where == "gemm.blocked":
        return "product {} × {} × {}".format(*_sizes(launcher, args))
    kind = launcher.__name__.strip("_")
    return where if where.endswith(kind) else f"{where} {kind}"


def _sizes(launcher, args):
    """M, N and K of a product, which are fields of ``Operands``; these follow the launcher's named arguments."""
    fields = args[launcher.__wrapped__.__code__.co_argcount :]
    return fields[Operands._fields.index("M") :][:3]


def _cost(launcher, args):
    """Operations of a product; for any other kernel, bytes of its arrays."""
    where = launcher.__module__.removeprefix("gpt_numpy.kernels.")
    if where == "gemm.blocked":
        return 2 * math.prod(_sizes(launcher, args)), 0
    if where in ("attention.forward", "attention.backward"):
        q, k = [array for array in args if getattr(array, "ndim", 0) == 4][:2]
        B, Tq, n_head, head_size = q.shape
        pairs = Tq * (k.shape[1] - Tq) + Tq * (Tq + 1) // 2
        products = 2 if where == "attention.forward" else 5
        return products * 2 * B * n_head * head_size * pairs, 0
    return 0, sum(array.nbytes for array in args if isinstance(array, np.ndarray))


def _print(name, result, limits, products):
    peak = limits[timing.LIMIT[products]]
    print(f"\n{name}: {', '.join(f'{key} {value}' for key, value in SHAPES[name].items())}; products in {products}")
    print(f"  {'launches of':34}{'calls':>6}{'ms a step':>11}{'of step':>9}{'GFLOP/s':>9}{'GB/s':>7}{'of limit':>10}")
    for row in sorted(result["rows"], key=lambda row: -row["seconds"]):
        rates = [row[kind] / row["seconds"] / 1e9 for kind in ("operations", "bytes")]
        share = max(rates[0] / peak, rates[1] / limits["gbytes"])
        shown = "".join(f"{rate:>{width}.3g}" if rate else " " * width for rate, width in zip(rates, (9, 7)))
        part = row["seconds"] / result["seconds"]
        print(f"  {row['name']:34}{row['launches']:>6}{row['seconds'] * 1e3:>11.3f}{part:>9.1%}{shown}{share:>10.0%}")
    operations = sum(row["operations"] for row in result["rows"])
    rate = operations / result["seconds"] / 1e9
    print(f"  {'Python':34}{'':>6}{result['python'] * 1e3:>11.3f}{result['python'] / result['seconds']:>9.1%}")
    print(f"  {'a whole step':34}{'':>6}{result['seconds'] * 1e3:>11.3f}{'':>9}{rate:>9.4g}{'':>7}{rate / peak:>10.0%}")
