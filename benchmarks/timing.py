"""How time is taken: in turn, many times, and reported as a median with its spread."""

import statistics
import time


def once(function):
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interleaved(functions, min_seconds=1.0, min_rounds=5, max_rounds=200):
    """Time each of ``functions`` (name → callable) in turn, round after round; name → list of seconds.

    Rounds go on until ``min_seconds`` per function are spent and ``min_rounds`` are done. The first round, which
    pays for caches and first touches, is not counted.
    """
    for function in functions.values():
        function()
    times = {name: [] for name in functions}
    spent = 0.0
    while len(next(iter(times.values()))) < max_rounds:
        for name, function in functions.items():
            times[name].append(once(function))
            spent += times[name][-1]
        if spent >= min_seconds * len(functions) and len(next(iter(times.values()))) >= min_rounds:
            break
    return times


def summary(seconds):
    """Median and the quartiles around it, as a dict of seconds."""
    ordered = sorted(seconds)
    quarter = len(ordered) // 4
    return {
        "median": statistics.median(ordered),
        "low": ordered[quarter],
        "high": ordered[-1 - quarter],
        "runs": len(ordered),
    }


def format_seconds(seconds):
    """Three significant digits with a fitting unit."""
    for unit, scale in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
