"""``gpt-numpy runs``: training runs side by side, in a table and one picture."""

import sys
from pathlib import Path

from ..host import terminal

COLUMNS = ("run", "step", "train", "val", "best", "bits/byte", "tok/s", "time", "settings that differ")


EXAMPLES = (
    ("gpt-numpy runs", "all runs below runs/, the best first"),
    ("gpt-numpy runs --plot all.png", "their curves in one picture"),
    ("gpt-numpy runs runs/notes-1 runs/notes-2", "these two"),
)


def configure(parser):
    parser.add_argument("runs", nargs="*", default=["runs"], metavar="DIR", help="runs, or folders that hold some")
    parser.add_argument("--plot", metavar="FILE.png", help="draw all their curves into one picture (needs matplotlib)")
    parser.add_argument("--sort", default="best", choices=("best", "name"), help="order of the table")


def run(args):
    from ..errors import ConfigError

    found = find_runs(args.runs)
    if not found:
        raise ConfigError("no runs", path=", ".join(args.runs), expected="folders with a metrics.jsonl")
    rows = summarise(found)
    if args.sort == "best":
        rows.sort(key=lambda row: row["sort"])
    print(terminal.fitted(format_table([[row[column] for column in COLUMNS] for row in rows]), sys.stdout))
    if args.plot:
        _plot(args.plot, found)


def find_runs(paths):
    """The run folders that ``paths`` are or hold, each once, in order."""
    from ..training.metrics import FILE_NAME

    found = {}
    for path in map(Path, paths):
        inner = sorted(path.glob(f"*/{FILE_NAME}")) if path.is_dir() else []
        for log in [path / FILE_NAME] if (path / FILE_NAME).exists() else inner:
            found.setdefault(log.parent.resolve(), log.parent)
    return list(found.values())


def summarise(runs):
    """One mapping column → text for each run, and ``sort``, its best validation loss."""
    from ..training.metrics import FILE_NAME, read_metrics

    settings = [_settings(run) for run in runs]
    differing = _differing(settings)
    rows = []
    for run, values in zip(runs, settings):
        records = read_metrics(run / FILE_NAME)
        train = [r for r in records if r.get("kind") == "train"]
        validation = [r for r in records if r.get("kind") in ("validation", "final")]
        last, final = (train or [{}])[-1], (validation or [{}])[-1]
        best = min((r["loss"] for r in validation), default=float("inf"))
        speeds = sorted(r["tokens_per_second"] for r in train)
        rows.append(
            {
                "run": str(run),
                "step": f"{max((r['step'] for r in records), default=0):,}",
                "train": _number(last.get("loss")),
                "val": _number(final.get("loss")),
                "best": _number(best),
                "bits/byte": _number(final.get("bits_per_byte")),
                "tok/s": f"{speeds[len(speeds) // 2]:,.0f}" if speeds else "-",
                "time": _duration(last.get("seconds")),
                "sort": best,
                "settings that differ": " ".join(f"{name}={_short(values.get(name))}" for name in differing),
            }
        )
    return rows


def _settings(run):
    from ..errors import ConfigError
    from ..training import config_file

    try:
        return config_file.read(run / "config.toml")
    except (OSError, ConfigError):
        return {}  # a run is still worth its line in the table


def _differing(settings):
    names = {name: None for values in settings for name in values}
    return [name for name in names if len({repr(values.get(name)) for values in settings}) > 1]


def format_table(rows):
    """Columns aligned: the first and the last to the left, numbers to the right."""
    rows = [list(COLUMNS), *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    left = (0, len(COLUMNS) - 1)
    lines = [
        "  ".join(f"{cell:<{w}}" if i in left else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths)))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _plot(path, runs):
    from ..errors import ConfigError
    from ..training import plots
    from ..training.metrics import FILE_NAME, read_metrics

    if not plots.available():
        raise ConfigError("matplotlib is not installed", field="--plot", expected='pip install ".[plot]"')
    plots.draw(path, {str(run): read_metrics(run / FILE_NAME) for run in runs})
    print(f"drawn to {path}")


def _number(value):
    return "-" if value is None or value == float("inf") else f"{value:.4f}"


def _short(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else "-" if value is None else value


def _duration(seconds):
    if seconds is None:
        return "-"
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"
