"""One contender's process: ``python -m benchmarks.peers.worker MODULE NAME SPEC``.

MODULE has ``prepare(name, spec)``, which returns a function that does one step and returns the loss, or the pair
(error, seconds) if it knows better what of the step is to be timed and is held to an oracle; its attribute ``report``,
if there is one, returns more figures at the end. The process answers on standard output with one JSON line: when it has
warmed up, and after each step it is asked for on standard input.
"""

import importlib
import json
import resource
import statistics
import sys

from .. import timing

WARM_UP_STEPS = 2
TURN = 1.0  # seconds
PATIENCE = 30  # seconds: who needs longer for the first step is warm after it


def main(module, name, spec):
    try:
        prepare = importlib.import_module(f".{module}", __package__).prepare
        step, warm_up = timing.with_result(lambda: prepare(name, json.loads(spec)))
    except ModuleNotFoundError as error:
        _say(missing=str(error))
        return
    for _ in range(WARM_UP_STEPS):
        (result, _), seconds = timing.with_result(lambda: _timed(step))
        warm_up += seconds
        if seconds > PATIENCE:
            break
    _say(warm_up=warm_up, **result)
    n_steps, faults = 0, resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for line in sys.stdin:
        if line.strip() == "stop":
            break
        result, seconds, count = _turn(step)
        n_steps += count
        _say(seconds=seconds)
    more = {"more": step.report()} if hasattr(step, "report") else {}
    # A fault is a page of memory that was not there yet: what a step allocates anew shows here.
    faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / max(n_steps, 1)
    _say(**result, peak_bytes=_peak_bytes(), faults=faults, **more)


def _peak_bytes():
    """The most memory that this program has held. (What getrusage says begins with what the parent held at the fork.)"""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def _turn(step):
    """What one turn is timed at: a step, or of short steps, which follow each other in training, the median of many.

    Of those the first is not counted: it finds threads asleep and caches empty. Returns (result, seconds, steps done).
    """
    result, seconds = _timed(step)
    if "error" in result or seconds > TURN / 4:
        return result, seconds, 1
    times = []
    while sum(times) < TURN:
        result, seconds = _timed(step)
        times.append(seconds)
    return result, statistics.median(times), 1 + len(times)


def _timed(step):
    result, seconds = timing.with_result(step)
    if isinstance(result, tuple):
        return {"error": result[0]}, result[1]
    return {"loss": float(result)}, seconds


def _say(**fields):
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
