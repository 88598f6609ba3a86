"""A gradient report as text: a line a tensor, and a line for every broken rule."""

_COLUMNS = "{:<38} {:<24} {:>13} {:>8}  {:<14} {:>13} {:>13} {:>9}  {}"


def heading():
    """The table's first line."""
    names = ("layer", "tensor", "checked", "error", "worst at", "analytic", "numeric", "ulps", "")
    return _COLUMNS.format(*names).rstrip()


def lines(layer, report):
    """The lines of one ``GradientReport``; ``layer`` names what was checked."""
    for check in report.tensors:
        yield _line(layer, check)
    for violation in report.violations:
        yield f"{layer:<38} {violation.check}: {violation.message}  FAILED"


def _line(layer, check):
    size = 1
    for extent in check.shape:
        size *= extent
    count = f"{check.checked}/{size}" if check.method == "entries" else f"{check.checked} dirs"
    where = "[" + ",".join(map(str, check.where)) + "]" if check.method == "entries" else f"direction {check.where[0]}"
    return _COLUMNS.format(
        layer,
        check.tensor,
        count,
        f"{check.error:.1e}",
        where,
        f"{check.analytic:+.6e}",
        f"{check.numeric:+.6e}",
        f"{check.ulps:.2g}",
        "ok" if check.passed else "FAILED",
    )
