"""Change one part of a model at a time, with the same budget of operations for each: what does the part do to the loss?

    gpt-numpy download shakespeare
    python scripts/ablate.py                        # 10 models, three seeds each
    python scripts/ablate.py notes/ --steps 2000    # on a text of your own, with a larger budget

The base is GPT-2 in nanoGPT's small shape. Each other model replaces one part by that of today's models; ``llama`` replaces
five. Widths are chosen so that every model has about as many parameters as the base. The budget is counted in operations of
matrix products (``gpt_numpy.machine.cost``), so a model whose step is cheaper makes more steps. Norms, rotations and
activations are not in that count; the column of seconds shows what they cost.

A run is a folder of ``gpt-numpy train``, and a finished run is kept: after an interruption the same command goes on, and
more seeds or a new entry of ``VARIANTS`` cost their own runs only. The table is written to ``ablation.json`` too, and drawn
to ``ablation.png`` (needs matplotlib).

How to read the table: a difference from the base is the mean over seeds of the difference between two runs of the same
seed, with the standard deviation of those differences. Three seeds tell a difference from noise only where the difference is
a few times as large as the deviation. Rows have a star where noise alone would make so large a difference in one case of
twenty; of nine such rows, one may well have its star by chance.

Tiny Shakespeare by characters, ``--steps 400`` (1,526 GFLOP a run), seeds 1, 2 and 3; all but ``window``:

    model      parameters  validation loss      against gpt2
    gpt2          809,856  2.3380 ± 0.0032
    rmsnorm       808,704  2.3373 ± 0.0050  -0.0007 ± 0.0021
    rotary        801,664  2.0980 ± 0.0172  -0.2400 ± 0.0188  *
    swiglu        814,656  2.3182 ± 0.0087  -0.0198 ± 0.0119
    n_kv_head     809,600  2.3423 ± 0.0038  +0.0042 ± 0.0045
    no_bias       804,096  2.3453 ± 0.0040  +0.0072 ± 0.0011  *
    untied        818,176  2.3322 ± 0.0020  -0.0058 ± 0.0030
    qk_norm       810,112  2.2278 ± 0.0214  -0.1102 ± 0.0230  *
    llama         795,904  2.0045 ± 0.0054  -0.3335 ± 0.0036  *

So short a training shows how soon a model learns, not where it ends. Rotary positions are no parameters to be learned, which
is most of the difference here; norms of queries and keys help early steps as well. RMSNorm, shared heads and an untied head
change nothing that three seeds could tell.
"""

import contextlib
import io
import json
import math
import statistics
import sys
from pathlib import Path

from gpt_numpy.command_line import Parser
from gpt_numpy.commands import execute, prepare
from gpt_numpy.config import check_integer
from gpt_numpy.errors import ConfigError
from gpt_numpy.files import durable
from gpt_numpy.host import terminal
from gpt_numpy.machine.cost import step_flops
from gpt_numpy.parameters import count
from gpt_numpy.sweeping import Run, train_runs
from gpt_numpy.training import Settings, config_file, plots
from gpt_numpy.training.plan.corpus import load_corpus

BASE = Settings(
    data=("data/shakespeare/tinyshakespeare.txt",),
    tokenizer="char",
    n_layer=4,
    n_head=4,
    n_embd=128,
    block_size=64,
    batch_size=12,
    learning_rate=1e-3,
    eval_every=100,
    eval_windows=240,
    final_tokens=0,
    sample_every=0,
    save_every=500,
    keep=1,
)
QUICK = dict(n_layer=2, n_head=2, n_embd=32, block_size=16, batch_size=4, warmup_steps=2, eval_every=4, eval_windows=4)
STEPS, QUICK_STEPS = 1000, 8  # of the base
# number of seeds → Student's t: noise alone exceeds so many standard errors in one case of twenty
_STUDENT = {2: 12.7, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57}


def variants(base):
    """Name → the settings that replace those of ``base``."""
    C, heads = base.n_embd, base.n_head // 2
    gated = round(8 / 3 * C / 8) * 8  # three matrices C × gated have the numbers of two C × 4C
    freed = 4 * C + C // 2  # half the heads of keys and values free C² numbers a block, which the mlp gets
    swiglu, shared = dict(mlp="swiglu", n_inner=gated), dict(n_kv_head=heads, n_inner=freed)
    both = dict(mlp="swiglu", n_inner=3 * C, n_kv_head=heads)  # 9 C² numbers, as in ``freed``
    return {
        "gpt2": {},
        "rmsnorm": dict(norm="rmsnorm"),
        "rotary": dict(positions="rotary"),
        "swiglu": swiglu,
        "n_kv_head": shared,
        "no_bias": dict(bias="none"),
        "untied": dict(tied=False),
        "qk_norm": dict(qk_norm=True),
        "window": dict(sliding_window=base.block_size // 4),
        "llama": dict(norm="rmsnorm", positions="rotary", bias="none", **both),
    }


def configure(parser):
    """Add the script's arguments."""
    parser.add_argument("data", nargs="*", help=f"text files and folders (default: {' '.join(BASE.data)})")
    parser.add_argument("--out", default="ablation", metavar="DIR", help="folder of the runs (default: ablation)")
    parser.add_argument(
        "--steps", type=int, help=f"steps of the base, whose operations every model gets (default: {STEPS})"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds of every model (default: 1 2 3)")
    names = list(variants(BASE))
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=f"models of: {', '.join(names)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a very small model and budget: shows that all runs, no more"
    )


def run(args):
    """Train what is not finished yet, then print, write and draw the table."""
    steps = check_integer("--steps", args.steps or (QUICK_STEPS if args.quick else STEPS), minimum=1)
    base = BASE.replace(**(QUICK if args.quick else {}), **({"data": tuple(args.data)} if args.data else {}))
    vocab_size = load_corpus(base).tokenizer.n_vocab
    folder, seeds = Path(args.out), list(dict.fromkeys(args.seeds))
    rows = {}
    for name in dict.fromkeys(["gpt2", *args.only]):
        settings = base.replace(**variants(base)[name])
        rows[name] = _row(settings, base, vocab_size, steps)
        own = settings.replace(max_steps=rows[name]["steps"])
        rows[name]["runs"] = [Run({"seed": s}, own.replace(seed=s), folder / f"{name}-seed-{s}") for s in seeds]
    runs = [run for row in rows.values() for run in row["runs"]]
    for one in runs:
        _check_same(one)
    code = _train(runs)
    for row in rows.values():
        _measure(row, rows["gpt2"])
    print(f"\n{table(rows)}")
    _write(folder, rows, steps)
    if code:
        print(f"to go on: the same command again (finished runs in {folder} are kept)")
    return code


def _row(settings, base, vocab_size, steps):
    """The cost of a model, and how many of its steps have the operations of ``steps`` steps of the base."""
    shape = base.batch_size, base.block_size
    budget = steps * sum(step_flops(base.model_config(vocab_size), *shape).values())
    config = settings.model_config(vocab_size)
    step = sum(step_flops(config, *shape).values())
    own = max(1, round(budget / step))
    return {"parameters": count(config), "steps": own, "operations": own * step}


def _check_same(run):
    """``ConfigError`` where the run's folder holds a run with other settings: another budget, text or script."""
    if (run.folder / "config.toml").exists():
        kept = Settings.from_mapping(config_file.read(run.folder / "config.toml"))
        if kept != run.settings:
            raise ConfigError("a run with other settings is in this folder", path=run.folder, expected="another --out")


def _train(runs):
    """Train the unfinished runs, one line each; returns the exit code of the last."""
    quiet = io.StringIO()
    for_each = train_runs(runs, say=lambda text: print(text, file=sys.stderr))
    code = 0
    while code == 0:
        with contextlib.redirect_stdout(quiet):
            ended = next(for_each, None)
        if ended is None:
            break
        run, reason, code = ended
        loss = _final(run)
        print(f"{run.name:22} {'-' if loss is None else f'{loss:.4f}'}  {reason}", file=sys.stderr)
    return code


def _final(run):
    """The validation loss at the end of a run, or None."""
    return next((record["loss"] for record in run.records() if record.get("kind") == "final"), None)


def _measure(row, base):
    """Add losses, mean, deviation, the difference from the base's runs and the seconds of training to ``row``."""
    losses = [_final(run) for run in row["runs"]]
    pairs = [(mine, theirs) for mine, theirs in zip(losses, map(_final, base["runs"])) if None not in (mine, theirs)]
    seconds = [max((record.get("seconds", 0.0) for record in run.records()), default=0.0) for run in row["runs"]]
    row["losses"] = [loss for loss in losses if loss is not None]
    row["seconds"] = statistics.median(seconds)
    row["mean"], row["deviation"] = _mean_and_deviation(row["losses"])
    row["difference"], row["difference_deviation"] = _mean_and_deviation([mine - theirs for mine, theirs in pairs])


def _mean_and_deviation(values):
    mean = statistics.fmean(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None


def is_clear(row):
    """Whether the difference from the base is larger than what noise alone makes in one case of twenty."""
    number, difference, deviation = len(row["losses"]), row["difference"], row["difference_deviation"]
    if difference is None or not deviation:
        return False
    return abs(difference) > _STUDENT.get(number, 2.5) * deviation / math.sqrt(number)


def table(rows):
    """The rows as aligned text."""
    cells = [["model", "parameters", "steps", "GFLOP", "seconds", "validation loss", "against gpt2", ""]]
    for name, row in rows.items():
        against = "" if name == "gpt2" else _with_deviation(row["difference"], row["difference_deviation"], "+.4f")
        numbers = (
            f"{row['parameters']:,}",
            f"{row['steps']:,}",
            f"{row['operations'] / 1e9:,.1f}",
            f"{row['seconds']:.1f}",
        )
        loss = _with_deviation(row["mean"], row["deviation"], ".4f")
        cells.append([name, *numbers, loss, against, "*" * is_clear(row)])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    ends = "\n* noise alone makes so large a difference in one case of twenty"
    lines = [
        "  ".join(
            f"{cell:{'<' if column in (0, 7) else '>'}{width}}"
            for column, (cell, width) in enumerate(zip(line, widths))
        )
        for line in cells
    ]
    return "\n".join(line.rstrip() for line in lines) + ends * any(map(is_clear, rows.values()))


def _with_deviation(mean, deviation, form):
    if mean is None:
        return "-"
    return f"{mean:{form}}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _write(folder, rows, steps):
    """``ablation.json`` and, with matplotlib, ``ablation.png``."""
    record = {name: {k: v for k, v in row.items() if k != "runs"} for name, row in rows.items()}
    text = json.dumps({"steps_of_the_base": steps, "models": record}, indent=2) + "\n"
    durable.write_file(folder / "ablation.json", text.encode())
    if plots.available() and rows["gpt2"]["losses"]:
        draw(folder / "ablation.png", rows)
        print(f"drawn to {folder / 'ablation.png'}")


def draw(path, rows):
    """Left: every run's loss as a dot, the mean as a bar, the base's mean and deviation as a band. Right: the curves."""
    rows = {name: row for name, row in rows.items() if row["losses"]}
    figure = plots.new_figure(12.5, 5)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    mean, deviation = rows["gpt2"]["mean"], rows["gpt2"]["deviation"] or 0.0
    left.axvspan(mean - deviation, mean + deviation, color="0.9", label="gpt2: mean ± deviation")
    for number, (name, row) in enumerate(rows.items()):
        color, dashes = plots.colour(number)
        left.plot(row["losses"], [number] * len(row["losses"]), "o", color=color, alpha=0.6)
        left.plot([row["mean"]] * 2, [number - 0.3, number + 0.3], color=color, linewidth=2)
        share, losses = _curve(row)
        right.plot(share, losses, dashes, color=color, linewidth=1.2, label=name)
    left.set_yticks(range(len(rows)), [f"{name} *" if is_clear(row) else name for name, row in rows.items()])
    left.invert_yaxis()
    left.set(title="validation loss at the end (nats a token): every seed, and the mean")
    left.legend(fontsize="small")
    right.set(title="validation loss, mean over seeds", xlabel="share of the budget of operations")
    right.legend(fontsize="small")
    for panel in (left, right):
        panel.grid(alpha=0.25)
    figure.suptitle(
        f"One part changed at a time, {rows['gpt2']['operations'] / 1e9:,.0f} GFLOP each", fontsize="medium"
    )
    plots.save(figure, path)


def _curve(row):
    """(shares of the budget, mean validation losses) at the steps that all seeds of a row have validated."""
    kept = [{r["step"]: r["loss"] for r in run.records() if r.get("kind") == "validation"} for run in row["runs"]]
    kept = [losses for losses in kept if losses]
    steps = sorted(set.intersection(*map(set, kept))) if kept else []
    return [step / row["steps"] for step in steps], [statistics.fmean(losses[s] for losses in kept) for s in steps]


def main():
    """The script: parse, run, and end with the exit code."""
    parser = Parser(description=__doc__.partition("\n")[0])
    configure(parser)
    prepare(parser, sys.modules[__name__])
    raise SystemExit(terminal.run_program("ablate.py", lambda: execute(parser.parse_args()), survives=True))


if __name__ == "__main__":
    main()
