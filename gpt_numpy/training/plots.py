"""``loss.png``: how a run went, in four panels; and several runs in one. Needs matplotlib (the ``plot`` extra)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..files import durable

PANELS = (
    ("loss", "loss (nats a token)"),
    ("learning_rate", "learning rate"),
    ("gradient_norm", "gradient norm"),
    ("tokens_per_second", "tokens / s"),
)


def available():
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(path, runs, unigram=None):
    """Draw ``runs``, a mapping name → records of ``metrics.jsonl``, to the image file ``path``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7))
    FigureCanvasAgg(figure)
    for axes, (field, title) in zip(figure.subplots(2, 2).flat, PANELS):
        for name, records in runs.items():
            color = None
            for kind, style in (("train", "-"), ("validation", "o--")):
                points = [(r["step"], r[field]) for r in records if r.get("kind") == kind and field in r]
                if points:
                    # A thin line for the noisy one; validation on top of it in the same colour.
                    alpha = 0.5 if kind == "train" and field == "loss" else 1.0
                    (line,) = axes.plot(
                        *zip(*points),
                        style,
                        label=f"{name} {kind}",
                        color=color,
                        alpha=alpha,
                        linewidth=1.2,
                        markersize=3,
                    )
                    color = line.get_color()
        if field == "loss" and unigram is not None:
            axes.axhline(unigram, color="grey", linestyle=":", label="unigram model")
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
    if figure.axes[0].get_legend_handles_labels()[0]:
        figure.axes[0].legend(fontsize="small")
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.08, top=0.95, hspace=0.3, wspace=0.2)
    temporary = Path(path).with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110)
    durable.replace(temporary, path)
