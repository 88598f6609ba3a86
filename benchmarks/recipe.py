"""A whole training run from process start to the last figure, next to the same recipe in PyTorch.

    python -m benchmarks recipe --data tinyshakespeare.txt
    python -m benchmarks recipe --data tinyshakespeare.txt --rounds 5    # five seeds: mean loss and its deviation

Ours is ``scripts/shakespeare_char.py``, which besides training evaluates, samples, and writes two checkpoints and a
picture. The runs alternate, each in a process of its own. Round n uses seed n for initial values and batches. The loss is
that over the whole validation text. Both start from matrices of the same standard deviation; nanoGPT's is
``--init-std 0.02``. Our kernels come from numba's cache, which a run of a few steps fills beforehand.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import timing
from .peers import INSTALL, ROOT

INIT_STD = 0.05  # that of scripts/shakespeare_char.py
_ROUNDED = ("--products", "bfloat16")
CONTENDERS = {"gpt_numpy": (), "gpt_numpy bfloat16": _ROUNDED, "pytorch": None}  # name → flags of our script


def configure(parser):
    """Declare the arguments of ``python -m benchmarks recipe``."""
    parser.add_argument("--data", type=Path, required=True, help="the text to train on, such as tinyshakespeare.txt")
    parser.add_argument("--rounds", type=int, default=1, help="runs of either program, each with a seed of its own")
    parser.add_argument(
        "--init-std", type=float, default=INIT_STD, help="standard deviation of both models' first matrices"
    )
    parser.add_argument("--only", action="append", choices=CONTENDERS, help="run this contender only; again for each")


def run(args):
    """Time the runs; name → seconds and loss."""
    data, std = args.data.resolve(), args.init_std
    contenders = {name: flags for name, flags in CONTENDERS.items() if name in (args.only or CONTENDERS)}
    _ours(data, "--max-steps", "3")
    _ours(data, "--max-steps", "3", *_ROUNDED)
    results = {name: [] for name in contenders}
    for seed in range(1, args.rounds + 1):
        for name, flags in contenders.items():
            start = time.perf_counter()
            loss = _torch(data, seed, std) if flags is None else _ours(data, *flags, "--seed", seed, "--init-std", std)
            results[name].append((time.perf_counter() - start, loss))
            if loss is None:
                print(f"  {name:20}not installed: {INSTALL}")
            else:
                seconds = timing.format_seconds(results[name][-1][0])
                print(f"  {name:20}seed {seed}{seconds:>10}   validation loss {loss:.4f}", flush=True)
    summaries = {name: _summary(runs) for name, runs in results.items()}
    if args.rounds > 1:
        for name, found in summaries.items():
            if "missing" not in found:
                print(f"  {name:20}{_in_words(found)}")
    return summaries


def _summary(runs):
    seconds, losses = zip(*runs)
    if losses[0] is None:
        return {"missing": "torch"}
    spread = statistics.stdev(losses) if len(losses) > 1 else 0.0
    loss = {"validation_loss": statistics.mean(losses), "validation_loss_deviation": spread}
    return timing.summary(seconds) | loss | {"validation_losses": losses}


def _in_words(found):
    loss, spread = found["validation_loss"], found["validation_loss_deviation"]
    return f"median{timing.format_seconds(found['median']):>10}   validation loss {loss:.4f} ± {spread:.4f}"


def _ours(data, *flags):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        command = [sys.executable, ROOT / "scripts" / "shakespeare_char.py", "--data", data, "--out", out, *flags]
        subprocess.run(
            [*map(str, command)],
            cwd=ROOT,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stderr=subprocess.DEVNULL,
            check=True,
        )
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads(lines[-1])["loss"]


def _torch(data, seed, std):
    command = [sys.executable, "-m", "benchmarks.peers.torch_recipe", data, seed, std]
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
    if "No module named 'torch'" in done.stderr:
        return None
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])["validation_loss"]
