"""Pictures of the lessons, drawn as SVG text: no plotting library is needed.

Every function returns a ``Picture``. ``show(picture)`` displays it in a notebook and prints a version of letters and
shades in a terminal.
"""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np

_COLOURS = ("#4c78a8", "#e45756", "#54a24b", "#b279a2", "#eeca3b", "#9d755d", "#72b7b2", "#8a8a8a")
_SHADES = " ░▒▓█"
_FONT = 'font-family="sans-serif" font-size="12"'


class Picture:
    """One picture: ``svg`` for a notebook, ``text`` for a terminal, ``caption`` for both."""

    def __init__(self, body: Sequence[str], width: float, height: float, text: str, caption: str):
        self.text, self.caption = text, caption
        width = max(width, _width(caption))  # room for the caption
        self.svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height + 24:.0f}" '
            f'width="{width:.0f}" style="max-width: 100%" role="img" {_FONT}><title>{html.escape(caption)}</title>'
            f'<rect width="100%" height="100%" rx="6" fill="#ffffff"/>{"".join(body)}'
            f"{_label(width / 2, height + 14, caption)}</svg>"
        )

    def _repr_svg_(self):
        return self.svg

    def __str__(self):
        return f"{self.text.rstrip()}\n[{self.caption}]"


on_show = None  # a function that receives each picture instead of its display


def show(picture: Picture) -> None:
    """Display ``picture`` in a notebook, or print its text."""
    if on_show is not None:
        on_show(picture)
    elif "ipykernel" in sys.modules:
        from IPython.display import display

        display(picture)
    else:
        print(picture)


def heat(matrices: Mapping[str, np.ndarray], caption: str, rows: str = "", columns: str = "") -> Picture:
    """Matrices side by side, red for positive and blue for negative entries, each scaled by its own largest entry."""
    body, texts, x0, tallest = [], [], 10.0, 0.0
    for title, matrix in matrices.items():
        matrix = np.atleast_2d(np.asarray(matrix, dtype=float))
        n_rows, n_columns = matrix.shape
        size = min(28.0, 260 / max(n_rows, n_columns))
        peak = float(np.abs(matrix).max()) or 1.0
        body.append(_label(x0 + n_columns * size / 2, 16, title))
        frame = f'width="{n_columns * size:.1f}" height="{n_rows * size:.1f}" fill="#ffffff" stroke="#cccccc"'
        body.append(f'<rect x="{x0}" y="26" {frame}/>')
        for (i, j), value in np.ndenumerate(matrix):
            fill = _diverging(value / peak)
            if fill == "#ffffff" and matrix.size > 150:
                continue  # a large picture is small enough for a notebook without its empty cells
            x, y = x0 + j * size, 26 + i * size
            body.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{size:.1f}" fill="{fill}" stroke="#cccccc">'
                f"<title>[{i}, {j}] {value:.4g}</title></rect>"
            )
        bottom = 26 + n_rows * size
        axes = f"{rows} ↓ {columns} →; " if rows and columns else ""
        body.append(_label(x0, bottom + 16, f"{axes}largest {peak:.2g}", "start"))
        shades = ["".join(2 * _SHADES[round(4 * abs(v) / peak)] for v in row) for row in matrix]
        texts += [f"{title} (rows: {rows}, columns: {columns}; largest {peak:.2g})", *(f"  |{s}|" for s in shades)]
        x0 += max(n_columns * size, _width(f"{axes}largest {peak:.2g}")) + 36
        tallest = max(tallest, bottom + 20)
    return Picture(body, x0, tallest, "\n".join(texts), caption)


def curves(lines: Mapping[str, tuple], caption: str, x: str = "", y: str = "", log: bool = False) -> Picture:
    """Lines through (xs, ys) points, with the range of both axes; ``log`` draws log₁₀ of the ys."""
    legend = max(_width(name) for name in lines) + 20
    height, left, bottom = 240.0, 60.0, 30.0
    right = left + 340
    points = {n: [(float(a), math.log10(b) if log else float(b)) for a, b in zip(*p)] for n, p in lines.items()}
    everything = [p for line in points.values() for p in line]
    (x0, x1), (y0, y1) = ((min(v), max(v)) for v in zip(*everything))
    x1, y1 = x1 if x1 > x0 else x0 + 1, y1 if y1 > y0 else y0 + 1

    def position(a, b):
        return left + (right - left) * (a - x0) / (x1 - x0), (height - bottom) * (y1 - b) / (y1 - y0) + 8

    body = [f'<path d="M{left} 8V{height - bottom + 8}H{right}" fill="none" stroke="#999999"/>']
    for value, anchor in ((y0, height - bottom + 8), (y1, 16)):
        shown = 10**value if log else value
        body.append(_label(left - 6, anchor, f"{shown:.3g}", "end"))
    body += [_label(left, height, f"{x0:.3g}"), _label(right, height, f"{x1:.3g}")]
    body += [_label((left + right) / 2, height, x), _label(30, height / 2, y)]
    texts = [f"{y} against {x}"]
    for number, (name, line) in enumerate(points.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = "L".join("{:.1f} {:.1f}".format(*position(*p)) for p in line)
        body.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(_label(right + 8, 20 + 16 * number, name, "start", colour))
        picked = [line[round(i * (len(line) - 1) / 39)][1] for i in range(min(40, len(line)))]
        texts.append(f"  {_spark(picked, y0, y1)}  {name}")
    return Picture(body, right + legend, height, "\n".join(texts), caption)


def bars(values: Mapping[str, float], caption: str, unit: str = "") -> Picture:
    """One horizontal bar a value."""
    body, texts = [], []
    peak = max(max(values.values()), 1e-300)
    left = max(_width(name) for name in values) + 16
    for number, (name, value) in enumerate(values.items()):
        y = 8 + 24 * number
        body.append(_label(left - 6, y + 13, name, "end"))
        colour = _COLOURS[number % len(_COLOURS)]
        body.append(f'<rect x="{left:.1f}" y="{y}" width="{260 * value / peak:.1f}" height="18" fill="{colour}"/>')
        body.append(_label(left + 6 + 260 * value / peak, y + 13, f"{value:.3g} {unit}", "start"))
        texts.append(f"  {name:>24} {'█' * round(40 * value / peak):<40} {value:.3g} {unit}")
    room = max(_width(f"{value:.3g} {unit}") for value in values.values())
    return Picture(body, left + 280 + room, 12 + 24 * len(values), "\n".join(texts), caption)


def graph(nodes: Mapping[str, tuple], edges: Sequence[tuple], caption: str) -> Picture:
    """Boxes at (column, row) with lines of text, and arrows between them.

    nodes: name → (column, row, line, line, …); edges: (from, to) or (from, to, label).
    """
    body = [
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#555555"/></marker></defs>'
    ]
    shown = {name: [name, *lines] for name, (_, _, *lines) in nodes.items()}
    box = max(_width(line) for lines in shown.values() for line in lines) + 20
    beside = [label[0] for start, end, *label in edges if label and nodes[start][1] == nodes[end][1]]
    wide, high = box + max([26, *(_width(label) + 16 for label in beside)]), 74
    centres = {n: (10 + box / 2 + wide * c, 44 + high * r) for n, (c, r, *_) in nodes.items()}
    labels = []
    for start, end, *label in edges:
        (xa, ya), (xb, yb) = centres[start], centres[end]
        ax, ay = _rim(xb - xa, yb - ya, box / 2 + 2)
        line = f"M{xa + ax:.1f} {ya + ay:.1f}L{xb - ax:.1f} {yb - ay:.1f}"
        body.append(f'<path d="{line}" stroke="#555555" marker-end="url(#tip)"/>')
        if label:
            beside_line = (0, -5) if ya == yb else (6, -2) if yb > ya else (-6, -2)
            anchor = "middle" if ya == yb else "start" if yb > ya else "end"
            x, y = (xa + xb) / 2 + beside_line[0], (ya + yb) / 2 + beside_line[1]
            labels.append(_label(x, y, label[0], anchor, "#b2182b"))
    texts = []
    for name, lines in shown.items():
        x, y = centres[name]
        body.append(
            f'<rect x="{x - box / 2:.1f}" y="{y - 24:.1f}" width="{box:.1f}" height="48" rx="6" fill="#f4f1ea" '
            f'stroke="#777777"/>'
        )
        body += [_label(x, y + 4 + 14 * (i - (len(lines) - 1) / 2), line) for i, line in enumerate(lines)]
        to = [f"{end}{' (' + label[0] + ')' if label else ''}" for start, end, *label in edges if start == name]
        texts.append(f"  {' · '.join(lines):<44}" + (f" → {', '.join(to)}" if to else ""))
    columns, rows = max(n[0] for n in nodes.values()), max(n[1] for n in nodes.values())
    return Picture(body + labels, 20 + box + wide * columns, 82 + high * rows, "\n".join(texts), caption)


def grid(rows: Mapping[str, Sequence[tuple]], caption: str) -> Picture:
    """Rows of labelled cells: label → [(text, number of a colour), …]. Tokens, heads, caches."""
    body, texts = [], []
    longest = max((len(row) for row in rows.values()), default=0)
    columns = [max(_width(row[j][0]) for row in rows.values() if j < len(row)) + 14 for j in range(longest)]
    left = max(_width(label) for label in rows) + 16
    for number, (label, row) in enumerate(rows.items()):
        x, y = left, 8 + 30 * number
        body.append(_label(left - 8, y + 17, label, "end"))
        for (text, colour), width in zip(row, columns):
            fill = _COLOURS[colour % len(_COLOURS)]
            opacity = 0.08 if colour < 0 else 0.4
            body.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width - 3:.1f}" height="25" fill="{fill}" '
                f'fill-opacity="{opacity}" stroke="#777777"/>'
            )
            body.append(_label(x + (width - 3) / 2, y + 17, text))
            x += width
        texts.append(f"  {label:>16} " + "".join(f"[{text}]" for text, _ in row))
    return Picture(body, left + sum(columns) + 8, 12 + 30 * len(rows), "\n".join(texts), caption)


def _width(text):
    """Pixels that a line of text takes, at most."""
    return 7.2 * len(str(text))


def _label(x, y, text, anchor="middle", fill="#222222"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{html.escape(str(text))}</text>'


def _diverging(share):
    strength = round(255 * (1 - min(abs(share), 1) ** 0.7))
    return f"#ff{strength:02x}{strength:02x}" if share > 0 else f"#{strength:02x}{strength:02x}ff"


def _spark(values, low, high):
    steps = "▁▂▃▄▅▆▇█"
    return "".join(steps[round(7 * (v - low) / (high - low))] for v in values)


def _rim(dx, dy, half):
    """From the centre of a box, ``2 · half`` wide, to its rim, in the direction (dx, dy)."""
    scale = min(half / abs(dx) if dx else math.inf, 26 / abs(dy) if dy else math.inf)
    return dx * scale, dy * scale
