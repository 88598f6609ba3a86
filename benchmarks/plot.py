"""The roofline picture: attainable speed against arithmetic intensity, with every rung as a point."""


def roofline(results, limits, path):
    """Draw ``results`` (ladder.Result) under ``limits`` (``timing.limits``) into the image file ``path``."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    timed = [r for r in results if r.gflops]
    figure, axes = plt.subplots(figsize=(9, 6))
    intensity = np.logspace(-2, 4, 200)  # FLOP per byte
    axes.loglog(intensity, np.minimum(limits["gflops"], intensity * limits["gbytes"]), "k-", lw=1.5, label="float32")
    title = f"{limits['gflops']:.0f} GFLOP/s float32"
    if "gflops_bfloat16" in limits:
        roof = np.minimum(limits["gflops_bfloat16"], intensity * limits["gbytes"])
        axes.loglog(intensity, roof, "k--", lw=1, label="bfloat16")
        title += f", {limits['gflops_bfloat16']:.0f} bfloat16"
    labels = []  # (text, x, y, colour)
    cases = list(dict.fromkeys(r.case for r in timed))
    for case, colour in zip(cases, plt.cm.tab10.colors):
        points = [r for r in timed if r.case == case]
        x = [r.gflops / r.gbytes for r in points]
        axes.loglog(x, [r.gflops for r in points], "o-", color=colour, label=case, alpha=0.8)
        labels += [(r.rung, intensity, r.gflops, colour) for r, intensity in zip(points, x)]
    axes.set_xlabel("arithmetic intensity, FLOP per byte that must move")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"Rungs under the roofline ({title}, {limits['gbytes']:.0f} GB/s)")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    _write_labels(axes, labels)
    figure.savefig(path, dpi=130)
    plt.close(figure)


_LINE = 8  # height of a label, in points


def _write_labels(axes, labels):
    """Write each label beside its point, or above the one before it where two points of a case are close."""
    to_points, free = 72 / axes.figure.dpi, {}
    for text, x, y, colour in sorted(labels, key=lambda label: label[2]):
        _, up = axes.transData.transform((x, y)) * to_points
        lift = max(0, free.get(colour, up) - up)
        free[colour] = up + lift + _LINE
        axes.annotate(text, (x, y), textcoords="offset points", xytext=(6, lift - 3), fontsize=7, color=colour)
