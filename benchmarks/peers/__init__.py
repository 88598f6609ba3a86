"""Whole programs next to their peers: each contender in a process of its own, asked for one step in turn.

Separate processes keep thread pools apart (two spinning pools on two cores halve each other's speed), and the operating
system reports the peak memory of each. The coordinator starts all processes and lets each warm up alone. Then the
processes take turns, one timed step of each, round after round, so that other load on the machine affects all of
them. Between two steps the coordinator waits until the threads of the first have stopped spinning. A contender that
misses its oracle is not timed. A contender whose package is missing is named with the command that installs the
package, and left out.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

from gpt_numpy.config import GPTConfig
from gpt_numpy.machine.cost import step_flops

from .. import timing
from . import generation, operations, problem

SETTLE_SECONDS = 0.3
TOO_SLOW = 10  # a contender this many times slower than ours is timed once, so that the others need not wait
ROOT = pathlib.Path(__file__).parents[2]  # where `benchmarks` is importable
INSTALL = 'pip install ".[peers]"'


class Run(NamedTuple):
    summary: str
    spec: dict  # what every contender is given
    contenders: dict  # name → module in this package
    unit: str = "step"
    make_folder: Callable | None = None  # (folder, spec): writes what all contenders read; spec["folder"] tells them
    tolerance: Callable = lambda name, spec: float("inf")  # the largest error of a contender
    flops: Callable | None = None  # spec → operations of a unit, which are compared with the machine's limit


_ROUNDED = ("bf16", "bfloat16")  # in the names of contenders whose products are in bfloat16
_GPT2 = dict(vocab_size=50257, n_layer=12, n_head=12, n_embd=768)
_TRAINERS = {
    "gpt_numpy": "ours",
    "gpt_numpy recompute": "ours",
    "gpt_numpy bfloat16": "ours",
    "pytorch eager": "torch_gpt",
    "pytorch compiled": "torch_gpt",
    "pytorch bf16": "torch_gpt",
    "jax jit": "jax_gpt",
}
_LLAMA_TRAINERS = {
    "gpt_numpy": "ours",
    "gpt_numpy bfloat16": "ours",
    "transformers eager": "torch_llama",
    "transformers compiled": "torch_llama",
    "transformers bf16": "torch_llama",
}
_STEP = "forward + backward + clip + AdamW"


def _step_flops(spec):
    return sum(step_flops(problem.config(spec), spec["batch_size"], spec["block_size"]).values())


def _training(summary, spec, contenders=_TRAINERS):
    return Run(f"{summary}: {_STEP}", spec, contenders, flops=_step_flops)


def _training_llama(batch_size, block_size):
    spec = problem.spec_of(GPTConfig.preset("llama-135m"), batch_size, block_size)
    return _training(f"Llama of 135M parameters, B={batch_size} T={block_size}", spec, _LLAMA_TRAINERS)


RUNS = (
    {
        "train-124m-short": _training("GPT-2 124M, B=4 T=64", dict(**_GPT2, batch_size=4, block_size=64)),
        "train-124m-long": _training("GPT-2 124M, B=4 T=1024", dict(**_GPT2, batch_size=4, block_size=1024)),
        "train-small": _training(
            "L=4 C=128 heads=4, B=12 T=64",
            dict(vocab_size=65, n_layer=4, n_head=4, n_embd=128, batch_size=12, block_size=64),
        ),
        "train-llama-short": _training_llama(4, 64),
        "train-llama-long": _training_llama(2, 512),
    }
    | {
        name: Run(*problem, generation.make_folder, generation.tolerance)
        for name, problem in generation.PROBLEMS.items()
    }
    | {
        name: Run(*problem, operations.make_folder, operations.tolerance, operations.flops)
        for name, problem in operations.PROBLEMS.items()
    }
)


class Contender:
    """A worker process: started, told what to do, asked for one timed step at a time."""

    def __init__(self, name, module, spec):
        self.name = name
        command = [sys.executable, "-m", "benchmarks.peers.worker", module, name, json.dumps(spec)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.times = []
        self.info = self._answer()

    def step(self):
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        self.times.append(self._answer()["seconds"])

    def stop(self):
        """End the process; returns what it says of itself (peak memory, last loss)."""
        if "missing" not in self.info:
            self.process.stdin.write("stop\n")
            self.process.stdin.flush()
            self.info |= self._answer()
        self.process.stdin.close()
        self.process.wait()
        return self.info

    def _answer(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.name}: its process ended (exit code {self.process.wait()})")


def compare(run, rounds, only=None):
    """Time the contenders of ``run`` in turn; returns a dict for each."""
    with tempfile.TemporaryDirectory() as folder:
        spec = run.spec
        if run.make_folder is not None:
            run.make_folder(folder, spec)
            spec = spec | {"folder": folder}
        return _compare(run, spec, rounds, only)


def _compare(run, spec, rounds, only):
    contenders, results = [], {}
    for name, module in run.contenders.items():
        if only and name not in only:
            continue
        contender = Contender(name, module, spec)
        if "missing" in contender.info:
            results[name] = {"missing": contender.info["missing"], "install": INSTALL}
            contender.stop()
        elif not contender.info.get("error", 0.0) <= run.tolerance(name, spec):  # NaN is no better than too much
            results[name] = {"wrong": contender.info["error"]}
            contender.stop()
        else:
            contenders.append(contender)
    ours = next((c for c in contenders if c.name == "gpt_numpy"), None)
    for _ in range(rounds):
        for contender in contenders:
            if ours and contender.times and contender.times[-1] > TOO_SLOW * ours.times[-1]:
                continue
            time.sleep(SETTLE_SECONDS)
            contender.step()
    for contender in contenders:
        results[contender.name] = timing.summary(contender.times) | contender.stop()
    for contender in contenders:
        if ours:
            # Round by round, so that a drift of the machine's speed cancels.
            ratios = [theirs / mine for theirs, mine in zip(contender.times, ours.times)]
            results[contender.name]["ratio_to_ours"] = statistics.median(ratios)
    return results


def add_shares(results, run, limits):
    """Add each contender's share of the limit of its products (``timing.limits``), where the run counts operations."""
    flops = run.flops(run.spec) if run.flops is not None else 0
    for name, r in results.items():
        if flops and "median" in r:
            products = "bfloat16" if any(word in name for word in _ROUNDED) else "float32"
            r["limit"], r["share"] = products, flops / r["median"] / 1e9 / limits[timing.LIMIT[products]]


def print_table(results, unit="step"):
    """One row a contender: median a ``unit``, spread, ratio to ours, share of the limit of its products (by name), peak
    memory, page faults, last loss or largest error."""
    rounds = max((r["runs"] for r in results.values() if "runs" in r), default=0)
    value = "error" if any("error" in r for r in results.values()) else "loss"
    heads = f"{'× ours':>9}{'of limit':>14}{'peak RSS':>10}{'faults':>10}{value:>9}{'warm-up':>9}"
    print(f"  {'contender':22}{'a ' + unit:>16}{'quartiles':>22}{heads}")
    for name, r in results.items():
        if "missing" in r:
            print(f"  {name:22}not installed ({r['missing']}): {r['install']}")
            continue
        if "wrong" in r:
            print(f"  {name:22}misses its oracle by {r['wrong']:.2e}, not timed")
            continue
        spread = f"{timing.format_seconds(r['low'])} – {timing.format_seconds(r['high'])}"
        share = f"{r['share']:.0%} {r['limit']}" if "share" in r else ""
        number = f"{r['error']:.1e}" if value == "error" else f"{r['loss']:.4f}"
        print(
            f"  {name:22}{timing.format_seconds(r['median']):>16}{spread:>22}{r.get('ratio_to_ours', 1):>9.2f}"
            f"{share:>14}{r['peak_bytes'] / 1e9:>7.2f} GB{r['faults']:>10,.0f}{number:>9}{r['warm_up']:>7.1f} s"
        )
        if r["runs"] < rounds:
            print(f"  {'':22}timed {r['runs']} of {rounds} times: more than {TOO_SLOW} times as slow as ours")
        for what, figure in r.get("more", {}).items():
            print(f"  {'':22}{what}: {figure}")
