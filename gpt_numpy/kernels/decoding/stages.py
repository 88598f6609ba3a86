"""Several steps of work inside one launch, with the threads meeting between them.

Waking a thread pool takes microseconds, and one token is sixty steps: launched one by one, they would wait longer than
they work. So each thread walks through all steps by itself. The work of a step is a number of units. A thread *claims* a few
at a time and goes on to the next step when all units of this one are done. Each thread has a range of its own, which it
takes in order, so that it reads memory in straight lines and can ask for what comes next ahead; then it takes what is
left of the others' ranges. Each range has a counter of units that were claimed, and each step one of units that are
done. An atomic operation waits for all reads before it, so a thread says once a step how much it has done.

A thread waits only for units that another thread has claimed and is working on. It therefore needs no partner: if
the pool runs the threads one after the other, the first does everything and the rest find nothing left.
"""

import os

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..runtime import emitting
from ..runtime.decorators import part

SPINS = 5000  # looks at a counter before giving up the processor
LINE = 8  # int64 in a cache line: each counter has one of its own
_I64 = ir.IntType(64)


@intrinsic
def _fetch_add(typingctx, counters, index, count):
    """Add ``count`` to counters[index], atomically; returns the former value."""

    def codegen(context, builder, sig, args):
        pointer = builder.gep(emitting.data_pointer(context, builder, sig.args[0], args[0]), [args[1]])
        return builder.atomic_rmw("add", pointer, args[2], "acq_rel")

    return types.int64(counters, types.int64, types.int64), codegen


@intrinsic
def _read_counter(typingctx, counters, index):
    """counters[index], not older than what the thread that wrote it had written before."""

    def codegen(context, builder, sig, args):
        pointer = builder.gep(emitting.data_pointer(context, builder, sig.args[0], args[0]), [args[1]])
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(counters, types.int64), codegen


@part
def _counter(counters, stage, number):
    """Where a counter is in ``counters`` (stages, 1 + threads, LINE); number 0 counts units that are done."""
    return (stage * counters.shape[1] + number) * LINE


@part
def own_range(counters, task, units):
    """(first, last + 1) of the units that thread ``task`` takes before all others."""
    n_threads = counters.shape[1] - 1
    return task * units // n_threads, (task + 1) * units // n_threads


@part
def claim(counters, stage, task, units, step):
    """(first, last + 1) of at most ``step`` units that no other thread has; (units, units) where none are left."""
    n_threads = counters.shape[1] - 1
    for i in range(n_threads):
        owner = (task + i) % n_threads
        first, stop = own_range(counters, owner, units)
        unit = first + _fetch_add(counters, _counter(counters, stage, 1 + owner), step)
        if unit < stop:
            return unit, min(unit + step, stop)
    return units, units


@part
def finish(counters, stage, count):
    """Count ``count`` units as done."""
    if count > 0:
        _fetch_add(counters, _counter(counters, stage, 0), count)


@intrinsic
def _yield(typingctx):
    """Let another thread have the processor, where the system can be asked to."""

    def codegen(context, builder, sig, args):
        if os.name == "posix":
            function_type = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, function_type, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@part
def wait(counters, stage, units):
    """Return when all units of the stage are done.

    Another thread's units take microseconds, unless that thread has lost its processor: then it may need this one.
    """
    spins = 0
    while _read_counter(counters, _counter(counters, stage, 0)) < units:
        spins += 1
        if spins % SPINS == 0:
            _yield()
