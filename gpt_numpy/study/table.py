"""A gradient report as a table: a line a tensor and a line for every broken rule, in text and in HTML.

The table has two forms: all columns where a line has ``WIDE`` characters or more, six columns where a line is shorter. FAILED
is red on a terminal (never with ``NO_COLOR`` in the environment).
"""

from __future__ import annotations

import html as _html
import os
import sys
import textwrap

from ..host import terminal

WIDE = 152  # characters that all columns take
_FULL = "{:<38} {:<24} {:>13} {:>8}  {:<14} {:>13} {:>13} {:>9} {:>11}  {}"
_NARROW = "{:<{room}} {:>11} {:>8}  {:<14}{:>12} {}"
_NAMES = ("layer", "tensor", "checked", "error", "worst at", "analytic", "numeric", "ulps", "dot product", "")
LEGEND = (
    "error: ‖analytic − numeric‖ / the larger norm, over what was checked; worst at: the entry, or random direction, that "
    "disagrees most; ulps: the distance of its two values in units of their last binary digit"
)
DOT_LEGEND = (
    "dot product: |⟨u, Jv⟩ − ⟨Jᵀu, v⟩| / (‖Jᵀu‖ · ‖v‖) for random u and v, J the Jacobian of the forward: Jv from the complex "
    "step, Jᵀu from the backward. There is no step size, so 1e-13 is the limit (–: the forward takes no complex numbers). "
    "Differences and dot product both pass where the forward itself is wrong: with a mask that shows a key too many, the "
    "gradient is the right gradient of the wrong function. The check 'visibility' finds it: it compares the keys that get a "
    "gradient with those that may be seen."
)


def legend(dots=True, width=None):
    """What the columns mean, in lines of at most ``width`` characters; ``dots``: also the dot product's, and what it misses."""
    width = max(40, min(line_width(width), 87))
    return "\n".join(textwrap.fill(text, width) for text in ((LEGEND, DOT_LEGEND) if dots else (LEGEND,)))


def heading(layer=None, width=None, dots=True):
    """The table's first line. ``layer``: "" for a table of one layer, which leaves out the layer's name.

    dots: whether a column shows the error of the dot-product test.
    """
    columns, names = line_width(width), _NAMES if dots else (*_NAMES[:-2], "", "")
    if columns >= WIDE and layer is None:
        return _FULL.format(*names).rstrip()
    if columns >= WIDE - 39 and layer == "":
        return _FULL.format(*names)[39:].rstrip()
    first = "tensor" if layer == "" else "layer, tensor"
    return _NARROW.format(first, "checked", "error", "worst at", names[-2], "", room=_room(columns)).rstrip()


def has_dots(report):
    """Whether the dot-product test was made for any tensor of the report."""
    return any(check.dot_product is not None for check in report.tensors)


def lines(layer, report, width=None, dots=True):
    """The lines of one ``GradientReport``; ``layer`` names what was checked ("": the table is of one layer)."""
    columns = line_width(width)
    for check in report.tensors:
        layer_name, tensor, count, error, where, analytic, numeric, ulps, dot, verdict = cells(layer, check)
        dot = dot if dots else ""
        if columns >= WIDE or (layer == "" and columns >= WIDE - 39):
            text = _FULL.format(layer_name, tensor, count, error, where, analytic, numeric, ulps, dot, "")
            text = text[39:] if layer == "" else text
        else:
            room = _room(columns)
            name = tensor if layer == "" else f"{layer}: {tensor}"
            name = name if len(name) <= room else f"{name[: room - 1]}…"
            text = _NARROW.format(name, count, error, where, dot, "", room=room)
        yield text + verdict_text(verdict)
    for violation in report.violations:
        yield f"{layer}{': ' * bool(layer)}{violation.check}: {violation.message}  {verdict_text('FAILED')}"


def cells(layer, check):
    """The ten texts of one ``TensorCheck``."""
    size = 1
    for extent in check.shape:
        size *= extent
    count = f"{check.checked}/{size}" if check.method == "entries" else f"{check.checked} dirs"
    where = "[" + ",".join(map(str, check.where)) + "]" if check.method == "entries" else f"direction {check.where[0]}"
    return (
        layer,
        check.tensor,
        count,
        f"{check.error:.1e}",
        where,
        f"{check.analytic:+.6e}",
        f"{check.numeric:+.6e}",
        f"{check.ulps:.2g}",
        "–" if check.dot_product is None else f"{check.dot_product:.1e}",
        "ok" if check.passed else "FAILED",
    )


def verdict_text(verdict):
    """The verdict, red and bold where it is FAILED and standard output is a terminal that shows colours."""
    coloured = verdict == "FAILED" and terminal.wants_colour("auto", sys.stdout)
    return f"\x1b[1;31m{verdict}\x1b[0m" if coloured else verdict


def html(report):
    """The table as HTML, for notebooks."""
    dots = has_dots(report)
    rows = ["".join(f"<th>{name}</th>" for name in (_NAMES if dots else (*_NAMES[:-2], ""))[1:])]
    for check in report.tensors:
        *texts, dot, verdict = cells("", check)[1:]
        texts += [dot] if dots else []
        style = "" if verdict == "ok" else ' style="color: #c00; font-weight: bold"'
        body = "".join(f"<td>{_html.escape(text)}</td>" for text in texts)
        rows.append(f"{body}<td{style}>{verdict}</td>")
    for violation in report.violations:
        text = _html.escape(f"{violation.check}: {violation.message}")
        rows.append(f'<td colspan="{7 + dots}">{text}</td><td style="color: #c00; font-weight: bold">FAILED</td>')
    table = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table>{table}</table><p><small>{_html.escape(legend(dots))}</small></p>"


def line_width(width=None):
    """The characters of a line: ``width``, or the terminal's; a file or a pipe gets all columns."""
    if width is not None:
        return width
    return terminal.columns() if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE


def _room(columns):
    """Characters for the name of a tensor in the narrow form."""
    return max(20, min(63, columns - 58))
