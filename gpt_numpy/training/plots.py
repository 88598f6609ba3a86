"""``loss.png``: the curves of a run in four panels; and several runs in one picture. Needs matplotlib (the ``plot`` extra)."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np

from ..files import durable
from ..wording import counted

# Colours that most colour-blind people can tell apart (Paul Tol, "muted", with black for its grey). Later runs are dashed.
COLOURS = ("#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#44AA99", "#DDCC77", "#AA4499", "#999933", "#000000")
_DASHES = ("-", "--", ":")
PANELS = (
    ("loss", "loss (nats a token)"),
    ("learning_rate", "learning rate"),
    ("gradient_norm", "norm of the gradient"),
    ("tokens_per_second", "speed (tokens a second)"),
)
_LONGEST_NAME = 34  # characters of a run's name in the legend


def available():
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(path, runs, unigram=None, title=None, clip=None):
    """Draw ``runs``, a mapping name → records of ``metrics.jsonl``, to the image file ``path``.

    unigram: the loss of the unigram baseline. title: title of the picture, such as the model and its data.
    clip: the largest gradient norm that is not scaled down.
    """
    figure = new_figure(12.5 if len(runs) > 1 else 11, 7)
    panels = figure.subplots(2, 2)
    names = dict(zip(runs, short_names(runs)))
    for axes, (field, label) in zip(panels.flat, PANELS):
        for number, (name, records) in enumerate(runs.items()):
            _draw_field(axes, field, records, names[name], number, alone=len(runs) == 1)
        axes.set(title=label, xlabel="step")
        axes.grid(alpha=0.25)
    panels = dict(zip((field for field, _ in PANELS), panels.flat))
    if unigram is not None:
        panels["loss"].axhline(unigram, color="0.5", linestyle=":", label=f"unigram model {unigram:.3f}")
    if clip:
        panels["gradient_norm"].axhline(clip, color="0.5", linestyle=":", label=f"clipped at {clip:g}")
    for field, axes in panels.items():
        _legend(figure, axes, beside=len(runs) > 1 and field == "loss", none=len(runs) > 1 and field != "loss")
    panels["tokens_per_second"].set_ylim(bottom=0)
    panels["tokens_per_second"].yaxis.set_major_formatter("{x:,.0f}")
    figure.suptitle(title or (next(iter(runs)) if len(runs) == 1 else counted(len(runs), "run")), fontsize="medium")
    save(figure, path)


def short_names(runs):
    """Names for a legend: without the folders and settings that all names share, and cut to the legend's width.

    >>> short_names(["runs/a-1", "runs/b-1"])
    ['a-1', 'b-1']
    """
    names = [str(name) for name in runs]
    if len(names) > 1:
        folder = os.path.commonpath(names) if all(os.path.isabs(n) == os.path.isabs(names[0]) for n in names) else ""
        names = [os.path.relpath(name, folder) if folder else name for name in names]
        common = os.path.commonprefix(names).rfind(",") + 1  # settings that all runs of a sweep share
        names = [name[common:] for name in names]
    return [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]


def smooth(values, share=0.04):
    """The mean over a window around each value. ``share``: the window's length as a share of all values."""
    values = np.asarray(values, float)
    reach = int(len(values) * share / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - reach, 0)
    last = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def colour(number):
    """(colour, line style) of the run with this number."""
    return COLOURS[number % len(COLOURS)], _DASHES[number // len(COLOURS) % len(_DASHES)]


def _draw_field(axes, field, records, name, number, alone):
    color, dashes = colour(number)
    steps, values = _points(records, "train", field)
    if len(steps):
        if field == "loss":
            axes.plot(steps, values, color=color, alpha=0.2, linewidth=0.8)
            values = smooth(values)
        elif not alone:
            values = smooth(values)
        label = f"training, smoothed {values[-1]:.3f}" if field == "loss" and alone else None
        axes.plot(steps, values, dashes, color=color, linewidth=1.0 if field == "loss" else 1.2, label=label)
        if field == "tokens_per_second" and alone:
            median = float(np.median(values))
            axes.axhline(median, color="0.5", linestyle=":", label=f"median {median:,.0f}")
        if field == "learning_rate":
            axes.ticklabel_format(axis="y", scilimits=(-2, 3))
    steps, values = _points(records, "validation", field)
    if len(steps):
        best = int(np.argmin(values))
        label = f"validation {values[-1]:.3f}, best {values[best]:.3f} at step {steps[best]:,}"
        label = label if alone else f"{name}: {values[best]:.3f}"
        # Validation is drawn on top, with a mark for each evaluation.
        color = COLOURS[1] if alone else color
        axes.plot(steps, values, f"o{dashes}", color=color, markersize=3, linewidth=1.4, label=label)
    elif not alone and field == "loss":
        axes.plot([], [], dashes, color=color, label=name)


def _points(records, kind, field):
    points = [(r["step"], r[field]) for r in records if r.get("kind") == kind and field in r]
    return tuple(map(np.array, zip(*points))) if points else (np.array([]), np.array([]))


def _legend(figure, axes, beside, none):
    handles, labels = axes.get_legend_handles_labels()
    if not handles or none:
        return
    if beside:
        figure.legend(handles, labels, loc="outside right upper", fontsize="small", title="validation, best")
    else:
        axes.legend(fontsize="small")


def new_figure(width, height):
    """An empty figure of that size in inches, drawn without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure, path):
    """Write a picture; a failure leaves the old file."""
    temporary = Path(path).with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110)
    durable.replace(temporary, path)


def draw_sweep(path, axes, runs, title):
    """Draw a sweep: the best validation loss against the first setting, and the curves of all runs.

    axes: setting → its values. runs: list of (setting → value, name, records).
    """
    figure = new_figure(12.5, 5)
    left, right = figure.subplots(1, 2)
    (first, values), *others = axes.items()
    groups: dict = {}
    for number, (setting, name, records) in enumerate(runs):
        steps, losses = _points(records, "validation", "loss")
        color, dashes = colour(number)
        right.plot(steps, losses, dashes, color=color, linewidth=1.2, label=name)
        if len(losses):
            key = tuple((other, setting[other]) for other, _ in others)
            groups.setdefault(key, []).append((setting[first], float(np.min(losses))))
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    for number, (key, points) in enumerate(groups.items()):
        color, dashes = colour(number)
        where = [x if numeric else values.index(x) for x, _ in points]
        label = ", ".join(f"{other} {value}" for other, value in key) or None
        left.plot(where, [y for _, y in points], f"o{dashes}", color=color, label=label)
    if not numeric:
        left.set_xticks(range(len(values)), map(str, values))
    elif min(values) > 0 and max(values) / min(values) >= 4:
        left.set_xscale("log")
        left.set_xticks(values, [f"{value:g}" for value in values])
        left.minorticks_off()
    left.set(title="best validation loss (nats a token)", xlabel=first.replace("_", " "))
    right.set(title="validation loss (nats a token)", xlabel="step")
    for panel in (left, right):
        panel.grid(alpha=0.25)
    _legend(figure, left, beside=False, none=False)
    handles, labels = right.get_legend_handles_labels()
    if handles:
        figure.legend(handles, short_names(labels), loc="outside right upper", fontsize="small")
    figure.suptitle(title, fontsize="medium")
    save(figure, path)
