"""One contender's process: ``python -m benchmarks.peers.worker MODULE NAME SPEC``.

MODULE has ``prepare(name, spec)``, which returns a function that does one step. The function returns the loss, or the
pair (error, seconds) if it times a part of the step itself and compares the result with an oracle. The function's
attribute ``report``, if there is one, returns more figures at the end. The process writes one JSON line to standard
output when it has warmed up, and one after each step, which a line on standard input asks for.
"""

import importlib
import json
import resource
import statistics
import sys

from .. import timing

WARM_UP_STEPS = 2
TURN = 1.0  # seconds
PATIENCE = 30  # seconds: a contender whose first step takes longer is warm after that step


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
    # A page fault is the first touch of a page of memory, so memory that a step allocates anew shows here.
    faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / max(n_steps, 1)
    _say(**result, peak_bytes=_peak_bytes(), faults=faults, **more)


def _peak_bytes():
    """Peak memory of this program. (The peak of getrusage would include the parent's memory at the fork.)"""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def _turn(step):
    """Time one turn: a step, or for short steps, which follow each other in training, the median of many.

    The first of many is not counted: at its start threads are asleep and caches empty. Returns (result, seconds, steps
    done).
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
