"""The error of a difference quotient against its step: the V-curve.

(f(x + h) − f(x − h)) / 2h has two errors. Truncation: the Taylor series is cut off after f', an error of
h² · f'''/6, which falls as h falls. Rounding: the two values agree in most of their digits, and subtracting
them leaves an error of about ε·|f|; divided by h, this is ε·|f|/h, which rises as h falls. Drawn against h on
logarithmic axes, the sum has the shape of a V. Its lowest point is near h = ε^(1/3) ≈ 6e-6, with an error near
ε^(2/3) ≈ 4e-11. A gradient check therefore has a best step, and even a correct gradient has about this error.

The complex step, Im f(x + ih) / h, subtracts nothing: its curve is a flat line at ε for any small enough h
(Squire and Trapp 1998).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .gradients import check_gradients

STEPS = tuple(10.0 ** (-exponent / 2) for exponent in range(2, 25))  # 1e-1 to 1e-12

_METHODS = {"central": "central differences", "complex": "complex step"}
_STYLES = {
    "central": {"color": "#332288", "marker": "o", "markersize": 2.5, "linewidth": 1.2},
    "complex": {"color": "#CC6677", "linestyle": "--", "linewidth": 1.4},
}


class VCurve(NamedTuple):
    """Relative error for each step, of all gradients of a case together (the largest tensor's)."""

    name: str
    method: str
    steps: tuple
    errors: tuple

    @property
    def best(self):
        """``(step, error)`` at the lowest point."""
        i = int(np.argmin(self.errors))
        return self.steps[i], self.errors[i]

    def slope(self, first, last):
        """Least-squares exponent p of error ∝ h^p over the steps from ``first`` down to ``last``."""
        points = [
            (math.log10(h), math.log10(e)) for h, e in zip(self.steps, self.errors) if last <= h <= first and e > 0
        ]
        return float(np.polyfit(*zip(*points), 1)[0])


def v_curve(case, method="central", steps=STEPS, seed=0):
    """The ``VCurve`` of a ``Case``; tensors are checked along directions where that is quicker."""
    errors = []
    for step in steps:
        # A tolerance of 0 also allows no rounding error: the curve shows the bare error.
        report = check_gradients(
            case.forward,
            case.backward,
            case.inputs,
            method=method,
            step=step,
            seed=seed,
            tolerance=math.inf,
            max_entries=40,
            n_directions=6,
        )
        errors.append(max(t.error for t in report.tensors))
    return VCurve(case.name, method, tuple(steps), tuple(errors))


def lines(curve, width=48):
    """The curve as text, one step a line: the longer the bar, the larger the error."""
    yield _title(curve)
    for step, error in zip(curve.steps, curve.errors):
        digits = 16 + math.log10(max(error, 1e-17))
        bar = "#" * max(0, round(width * digits / 18))
        yield f"  h {step:7.1e}  error {error:7.1e}  {bar}"
    yield "  best: h {:.1e}, error {:.1e}".format(*curve.best)


def plot(curves, path):
    """Draw curves into a picture file: a panel for each case, with the two slopes that theory gives."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(curve.name for curve in curves))
    across = min(4, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(max(7.0, 3.3 * across), 1.2 + 2.6 * down), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    handles = {}
    for axes, name in zip(panels.flat, names):
        for curve in (curve for curve in curves if curve.name == name):
            style = _STYLES[curve.method]
            (line,) = axes.loglog(curve.steps, np.maximum(curve.errors, 1e-17), **style)
            handles.setdefault(_METHODS[curve.method], line)
        guide = {"color": "0.6", "linewidth": 1}
        (line,) = axes.loglog([1e-1, 1e-5], [1e-3, 1e-11], **guide)
        handles.setdefault("truncation, ∝ h²", line)
        (line,) = axes.loglog([1e-5, 1e-12], [1e-11, 1e-4], linestyle=":", **guide)
        handles.setdefault("rounding, ∝ 1/h", line)
        axes.set_title(name, fontsize="small")
        axes.grid(alpha=0.25)
    panels.flat[0].set(ylim=(1e-17, 10))
    panels.flat[0].invert_xaxis()
    figure.supxlabel("step h of the difference", fontsize="small")
    figure.supylabel("relative error of the gradient", fontsize="small")
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, fontsize="small")
    figure.savefig(path, dpi=130)


def _title(curve):
    return f"{curve.name}, {_METHODS[curve.method]}"
