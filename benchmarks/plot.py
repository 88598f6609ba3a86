"""The roofline picture: attainable speed against arithmetic intensity, with every rung as a point."""

import numpy as np

from gpt_numpy.training.plots import COLOURS, new_figure, save

_SIZE = 7  # of a label's letters, in points
_LINE, _LETTER = 1.25 * _SIZE, 0.56 * _SIZE  # height of a label and width of a letter, in points


def roofline(results, limits, path):
    """Draw ``results`` (ladder.Result) under ``limits`` (``timing.limits``) into the image file ``path``."""
    timed = [r for r in results if r.gflops]
    figure = new_figure(12, 7)
    axes = figure.subplots()
    x = [r.gflops / r.gbytes for r in timed]
    intensity = np.geomspace(min(x) / 3, max(x) * 30, 200)  # FLOP per byte; to the right, room for labels
    title = f"{limits['gflops']:.0f} GFLOP/s float32"
    roof = np.minimum(limits["gflops"], intensity * limits["gbytes"])
    axes.loglog(intensity, roof, "-", color="0.2", linewidth=1.5, label="limit, float32")
    if "gflops_bfloat16" in limits:
        roof = np.minimum(limits["gflops_bfloat16"], intensity * limits["gbytes"])
        axes.loglog(intensity, roof, "--", color="0.2", linewidth=1, label="limit, bfloat16")
        title += f", {limits['gflops_bfloat16']:.0f} bfloat16"
    labels = []  # (text, x, y, colour)
    for case, colour in zip(dict.fromkeys(r.case for r in timed), COLOURS):
        points = [(r.gflops / r.gbytes, r.gflops, r) for r in timed if r.case == case]
        axes.loglog([p[0] for p in points], [p[1] for p in points], "-", color=colour, alpha=0.35, linewidth=1)
        axes.loglog([p[0] for p in points], [p[1] for p in points], "o", color=colour, markersize=5, label=case)
        labels += [(r.rung, intensity, speed, colour) for intensity, speed, r in points]
    axes.set(xlabel="arithmetic intensity: operations a byte that must move", ylabel="GFLOP/s", xlim=intensity[[0, -1]])
    axes.set_title(f"Rungs under the roofline ({title}, {limits['gbytes']:.0f} GB/s)")
    axes.grid(True, which="major", alpha=0.25)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.draw_without_rendering()  # the layout, which the places of the labels depend on
    _write_labels(axes, labels)
    save(figure, path)


def _write_labels(axes, labels):
    """Write each label beside its point, moved up or down as far as needed to cover no point and no other label."""
    to_points = 72 / axes.figure.dpi
    points = [axes.transData.transform((x, y)) * to_points for _, x, y, _ in labels]
    taken = [(across - 3, across + 3, up) for across, up in points]  # (left, right, middle) of what no label may cover
    for text, x, y, colour in sorted(labels, key=lambda label: -label[2]):
        left, middle = axes.transData.transform((x, y)) * to_points
        left, width = left + 6, _LETTER * len(text)
        shifts = sorted((sign * 0.5 * _LINE * n for n in range(24) for sign in (1, -1)), key=abs)

        def free(shift, left=left, middle=middle, width=width):
            return not any(
                abs(middle + shift - other) < _LINE and left < end and start < left + width
                for start, end, other in taken
            )

        shift = next(filter(free, shifts), 0.0)
        taken.append((left, left + width, middle + shift))
        line = (
            {"arrowprops": {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "relpos": (0, 0.5)}}
            if abs(shift) > _LINE
            else {}
        )
        axes.annotate(
            text,
            (x, y),
            textcoords="offset points",
            xytext=(6, shift - _SIZE / 2.6),
            fontsize=_SIZE,
            color=colour,
            **line,
        )
