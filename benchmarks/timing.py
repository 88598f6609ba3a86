"""Timing of functions: in turn, many times, reported as a median with its spread."""

import math
import statistics
import time

from gpt_numpy.machine import peak_flops, read_bandwidth

LIMIT = {"float32": "gflops", "bfloat16": "gflops_bfloat16"}  # products → name of their limit in `limits`
PAUSE = 0.15  # seconds: longer than a thread pool waits for more work
_TURN, _MOST_CALLS = 0.1, 20  # seconds and calls of a turn


def limits(seconds=0.3):
    """The machine's limits here and now: {"gflops", "gflops_bfloat16", "gbytes"}, in 10⁹ a second."""
    rates = {name: peak_flops(seconds, products) / 1e9 for products, name in LIMIT.items()}
    return rates | {"gbytes": read_bandwidth(seconds) / 1e9}


def limits_line(limits):
    """The limits in words."""
    return (
        f"limits here and now: {limits['gflops']:.0f} GFLOP/s float32, {limits['gflops_bfloat16']:.0f} bfloat16, "
        f"{limits['gbytes']:.1f} GB/s"
    )


def with_result(function):
    """(result, seconds) of one call."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def once(function):
    """Seconds of one call."""
    return with_result(function)[1]


def turn(function, seconds, most_calls=math.inf):
    """Seconds of each call of a turn. Callers leave out the first: its caches are empty and its threads asleep."""
    calls = [once(function)]
    while len(calls) < 2 or (sum(calls) < seconds and len(calls) < most_calls):
        calls.append(once(function))
    return calls


def interleaved(functions, min_seconds=1.0, min_rounds=5, max_rounds=15):
    """Time each of ``functions`` (name → callable) in turn, round after round; name → list of seconds.

    Rounds go on until ``min_seconds`` per function are spent and ``min_rounds`` are done. One function must not slow
    down the next: threads of a BLAS or of OpenMP wait busily for a while after their work is done, and hold a core that
    the next function needs. Each turn therefore begins with a pause and a call that is not counted. A short function is
    then called several times, and the median is the round's figure.
    """
    times = {name: [] for name in functions}
    spent = 0.0
    while len(next(iter(times.values()))) < max_rounds:
        for name, function in functions.items():
            time.sleep(PAUSE)
            calls = turn(function, _TURN, _MOST_CALLS)
            times[name].append(statistics.median(calls[1:]))
            spent += sum(calls)
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
