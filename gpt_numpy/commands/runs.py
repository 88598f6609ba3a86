"""``gpt-numpy runs``: training runs side by side, in a table, in one picture, or live."""

import json
import sys
import time
from pathlib import Path

from ..host import terminal

EXAMPLES = (
    ("gpt-numpy runs", "all runs below runs/, the best first"),
    ("gpt-numpy runs --watch", "the same, drawn again every two seconds while a run goes on"),
    ("gpt-numpy runs --plot all.png", "their curves in one picture"),
    ("gpt-numpy runs runs/notes-1 runs/notes-2 --json", "two runs, for a program to read"),
)
COLUMNS = ("run", "step", "train", "val", "best", "bits/byte", "tok/s", "time", "settings that differ")
# Losses of two runs can be compared where these settings agree: they decide the text, its tokens and its validation part.
COMPARABLE = ("data", "separator", "split", "normalize", "validation_fraction", "split_seed", "tokenizer", "vocab_size")
_CHART_ROWS = 12
_CLEAR = "\x1b[H\x1b[J"


def configure(parser):
    parser.add_argument("runs", nargs="*", default=["runs"], metavar="DIR", help="runs, or folders that hold runs")
    parser.add_argument("--plot", metavar="FILE.png", help="draw all their curves into one picture (needs matplotlib)")
    parser.add_argument("--sort", default="best", choices=("best", "name"), help="order of the table")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON instead of the table")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=2.0,
        metavar="SECONDS",
        help="draw the table and the newest run's losses again and again, until Ctrl-C",
    )


def run(args):
    from ..errors import ConfigError

    if args.watch is not None:
        return watch(lambda: frame(args), args.watch)
    found = find_runs(args.runs)
    if not found:
        raise ConfigError("no runs", path=", ".join(args.runs), expected="folders with a metrics.jsonl")
    if args.json:
        print(json.dumps([figures(run) for run in found], indent=2))
    else:
        print(terminal.fitted(table(found, args.sort), sys.stdout))
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


def figures(run):
    """The figures of a run in JSON's types; None for figures that have not been measured yet."""
    from ..training.metrics import FILE_NAME, read_metrics

    records = read_metrics(run / FILE_NAME)
    train = [r for r in records if r.get("kind") == "train"]
    validation = [r for r in records if r.get("kind") in ("validation", "final")]
    last, final = (train or [{}])[-1], (validation or [{}])[-1]
    speeds = sorted(r["tokens_per_second"] for r in train if "tokens_per_second" in r)
    return {
        "run": str(run),
        "step": max((r["step"] for r in records), default=0),
        "train_loss": last.get("loss"),
        "validation_loss": final.get("loss"),
        "best_validation_loss": min((r["loss"] for r in validation), default=None),
        "bits_per_byte": final.get("bits_per_byte"),
        "tokens_per_second": speeds[len(speeds) // 2] if speeds else None,
        "seconds": last.get("seconds"),
        "finished": any(r.get("kind") == "final" for r in records),
        "settings": _settings(run),
    }


def table(runs, sort="best"):
    """The table of all runs; runs that were validated on different text or tokens are in different parts."""
    groups = {}
    rows = summarise(runs)
    unknown = next((row["kind"] for row in rows if row["kind"]), "")  # part for a run without settings
    for row in rows:
        groups.setdefault(row["kind"] or unknown, []).append(row)
    parts = []
    for kind, rows in groups.items():
        if sort == "best":
            rows.sort(key=lambda row: row["sort"])
        heading = f"validated alike: {kind}\n" if len(groups) > 1 else ""
        parts.append(heading + format_table([[row[column] for column in COLUMNS] for row in rows]))
    note = "\n\nlosses compare within a part; between parts only bits/byte do, and only for the same text"
    return "\n\n".join(parts) + note * (len(groups) > 1)


def summarise(runs):
    """For each run a mapping column → text, with ``sort``, its best loss, and ``kind``, its validation text."""
    found = [figures(run) for run in runs]
    settings = [one["settings"] for one in found]
    differing = _differing(settings)
    rows = []
    for one, values in zip(found, settings):
        best, speed = one["best_validation_loss"], one["tokens_per_second"]
        rows.append(
            {
                "run": one["run"],
                "step": f"{one['step']:,}",
                "train": _number(one["train_loss"]),
                "val": _number(one["validation_loss"]),
                "best": _number(best),
                "bits/byte": _number(one["bits_per_byte"]),
                "tok/s": "-" if speed is None else f"{speed:,.0f}",
                "time": _duration(one["seconds"]),
                "sort": float("inf") if best is None else best,
                "kind": " ".join(f"{n}={_short(values[n])}" for n in COMPARABLE if values.get(n) not in (None, "")),
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
        return {}  # the run keeps its line in the table


def _differing(settings):
    names = {name: None for values in settings for name in values}
    return [name for name in names if len({repr(values.get(name)) for values in settings}) > 1]


def format_table(rows, columns=None):
    """Columns aligned: the first and the last to the left, numbers to the right.

    ``columns`` is the width in characters (default: the terminal's, or no limit). Where a row is longer, its last cell gets
    a line of its own; then the least important columns are left out.
    """
    columns = columns or (terminal.columns() if sys.stdout.isatty() else None)
    shown = list(COLUMNS)
    rows = [list(COLUMNS), *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]

    def needed(names):
        return sum(widths[COLUMNS.index(name)] + 2 for name in names) - 2

    below = columns is not None and needed(shown) > columns
    if below:
        shown.remove(COLUMNS[-1])
        for name in ("time", "bits/byte", "tok/s", "train"):
            if needed(shown) > columns:
                shown.remove(name)
    lines = []
    for row in rows:
        cells = [(name, row[COLUMNS.index(name)], widths[COLUMNS.index(name)]) for name in shown]
        left = (COLUMNS[0], COLUMNS[-1])
        lines.append("  ".join(f"{cell:<{w}}" if name in left else f"{cell:>{w}}" for name, cell, w in cells).rstrip())
        if below and row is not rows[0] and row[-1]:
            lines.append(f"    {row[-1]}")
    return "\n".join(lines)


# ---- live --------------------------------------------------------------------------------------------------------


def watch(show, seconds):
    """Write the result of ``show`` again and again until Ctrl-C; into a pipe or file, once. Returns 0."""
    if not terminal.is_interactive(sys.stdout):
        print(show())
        return 0
    screen = terminal.unescaped(sys.stdout)
    try:
        while True:
            screen.write(f"{_CLEAR}{terminal.printable(show())}\n")
            screen.flush()
            time.sleep(max(0.1, seconds))
    except KeyboardInterrupt:
        return 0


def frame(args):
    """The table, and the losses of the newest run."""
    from ..training.metrics import FILE_NAME, read_metrics

    found = find_runs(args.runs)
    if not found:
        return f"no runs in {', '.join(args.runs)} yet"
    newest = max(found, key=lambda run: (run / FILE_NAME).stat().st_mtime)
    records = read_metrics(newest / FILE_NAME)
    picture = chart(records, terminal.columns() - 2)
    return f"{table(found, args.sort)}\n\n{newest}: training loss ·, validation loss o\n{picture}"


def chart(records, columns, rows=_CHART_ROWS):
    """Losses against steps in ``columns`` × ``rows`` characters, with their range at the left."""
    points = [(r["step"], r["loss"], r["kind"]) for r in records if r.get("kind") in ("train", "validation")]
    points = [(step, loss, kind) for step, loss, kind in points if loss == loss]
    if not points:
        return "(nothing measured yet)"
    last, low, high = max(p[0] for p in points), min(p[1] for p in points), max(p[1] for p in points)
    room = max(10, columns - 9)
    canvas = [[" "] * room for _ in range(rows)]
    for step, loss, kind in sorted(points, key=lambda point: point[2] == "validation"):
        across = round(step / max(last, 1) * (room - 1))
        down = round((high - loss) / max(high - low, 1e-12) * (rows - 1))
        canvas[down][across] = "o" if kind == "validation" else "·"
    labels = [f"{high:8.4g}"] + [" " * 8] * (rows - 2) + [f"{low:8.4g}"]
    lines = [f"{label}│{''.join(line).rstrip()}" for label, line in zip(labels, canvas)]
    return "\n".join([*lines, f"{' ' * 8}└{'─' * room}", f"{' ' * 9}0{f'step {last:,}':>{room - 1}}"])


def _plot(path, runs):
    from ..errors import ConfigError
    from ..training import plots
    from ..training.metrics import FILE_NAME, read_metrics

    if not plots.available():
        raise ConfigError("matplotlib is not installed", field="--plot", expected='pip install ".[plot]"')
    plots.draw(path, {str(run): read_metrics(run / FILE_NAME) for run in runs})
    print(f"drawn to {path}")


def _number(value):
    return "-" if value is None else f"{value:.4f}"


def _short(value):
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else "-" if value is None else value


def _duration(seconds):
    if seconds is None:
        return "-"
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"
