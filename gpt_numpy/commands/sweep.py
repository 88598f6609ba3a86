"""``gpt-numpy sweep``: one training run for every combination of some settings, resumable, with a table and a picture."""

import json
from pathlib import Path

from ..errors import ConfigError
from ..training.settings import Settings
from . import train

EXAMPLES = (
    ("gpt-numpy sweep notes/ --set learning_rate=1e-3,3e-4 --set n_embd=64,128", "four runs, one after the other"),
    ("gpt-numpy sweep notes/ --set seed=1,2,3 --max-steps 500", "flags of 'gpt-numpy train' hold for all runs"),
)
WORDS = train.WORDS


def configure(parser):
    parser.add_argument(
        "--set",
        action="append",
        required=True,
        metavar="NAME=V1,V2",
        help="a setting and its values; repeatable: all combinations are trained",
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON at the end")
    train.configure(parser)
    for action in parser._actions:
        if action.dest == "out":
            action.help = "the sweep's folder (default: a new one in sweeps/); the same one goes on with the sweep"


def run(args):
    from ..sweeping import PICTURE, Sweep, parse_axes

    for flag in ("resume", "mpi", "dry_run"):
        if getattr(args, flag):
            field = f"--{flag.replace('_', '-')}"
            raise ConfigError("not for a sweep, which goes on by itself when run again", field=field)
    axes = parse_axes(args.set)
    settings = Settings.from_mapping(train.values_of(args)[0])
    sweep = Sweep(Path(args.out) if args.out else Path(), settings, axes)
    if not args.out:
        sweep = sweep._replace(folder=_folder(sweep))
    ended, code = {}, 0
    for run, reason, code in sweep.train():
        ended[run.name] = reason
        if code:
            break
    rows = [_row(run, ended.get(run.name, run.state())) for run in sweep.runs()]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"\n{format_table(rows)}")
    if _draw(sweep):
        print(f"drawn to {sweep.folder / PICTURE}")
    if code:
        print(f"to go on: the same command again, with --out {sweep.folder}")
    return code


def _folder(sweep):
    """The first of sweeps/NAME-1, -2, … that does not exist, or that holds a sweep with the same settings."""
    from ..training.run_folder import free_name

    stem = free_name(sweep.base.data).name.rpartition("-")[0]
    number = 1
    while (folder := Path("sweeps") / f"{stem}-{number}").exists() and not sweep.is_in(folder):
        number += 1
    return folder


def _row(run, state):
    records = [r for r in run.records() if r.get("kind") in ("validation", "final")]
    best = min((r["loss"] for r in records), default=None)
    final = next((r["loss"] for r in records if r["kind"] == "final"), None)
    return {**run.values, "best": best, "final": final, "state": state, "folder": str(run.folder)}


def format_table(rows):
    """The rows, best first, with a star at the best of all."""
    rows = sorted(rows, key=lambda row: float("inf") if row["best"] is None else row["best"])
    names = [name for name in rows[0] if name != "folder"]
    cells = [names] + [["-" if row[n] is None else _cell(n, row[n]) for n in names] for row in rows]
    if rows[0]["best"] is not None:
        cells[1][names.index("best")] += " *"
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths)).rstrip() for line in cells)


def _cell(name, value):
    if name in ("best", "final"):
        return f"{value:.4f}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _draw(sweep):
    from ..sweeping import PICTURE
    from ..training import plots

    if not plots.available():
        return False
    runs = [(run.values, run.name, run.records()) for run in sweep.runs()]
    title = f"{sweep.folder}: {' × '.join(sweep.axes)} on {', '.join(sweep.base.data)}"
    plots.draw_sweep(sweep.folder / PICTURE, sweep.axes, runs, title)
    return True
