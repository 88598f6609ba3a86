"""One contender's process: ``python -m benchmarks.peers.worker MODULE NAME SPEC``.

MODULE has ``prepare(name, spec)``, which returns a function that does one step and returns the loss. The
process answers on standard output with one JSON line: when it has warmed up, and after each step it is
asked for on standard input.
"""

import importlib
import json
import resource
import sys
import time

WARM_UP_STEPS = 2


def main(module, name, spec):
    try:
        prepare = importlib.import_module(f".{module}", __package__).prepare
        start = time.perf_counter()
        step = prepare(name, json.loads(spec))
    except ModuleNotFoundError as error:
        _say(missing=str(error))
        return
    for _ in range(WARM_UP_STEPS):
        loss = step()
    _say(warm_up=time.perf_counter() - start)
    for line in sys.stdin:
        if line.strip() == "stop":
            break
        start = time.perf_counter()
        loss = step()
        _say(seconds=time.perf_counter() - start)
    _say(loss=float(loss), peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _say(**fields):
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
