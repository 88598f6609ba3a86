"""Several steps of work inside one launch, with the threads meeting between them.

Waking a thread pool takes microseconds, and one token is sixty steps: launched one by one, they would wait longer than
they work. So each thread walks through all steps by itself. In a step it *claims* piece after piece from a shared
counter, and goes on to the next step when all pieces of this one are done.

A thread waits only for pieces that another thread has claimed and is working on. It therefore needs no partner: if
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
STAGE_WORDS = 16  # int64 for each stage: two counters, each on a cache line of its own
_I64 = ir.IntType(64)


@intrinsic
def _fetch_add(typingctx, counters, index):
    """Add 1 to counters[index], atomically; returns the former value."""

    def codegen(context, builder, sig, args):
        pointer = builder.gep(emitting.data_pointer(context, builder, sig.args[0], args[0]), [args[1]])
        return builder.atomic_rmw("add", pointer, _I64(1), "acq_rel")

    return types.int64(counters, types.int64), codegen


@intrinsic
def _read_counter(typingctx, counters, index):
    """counters[index], not older than what the thread that wrote it had written before."""

    def codegen(context, builder, sig, args):
        pointer = builder.gep(emitting.data_pointer(context, builder, sig.args[0], args[0]), [args[1]])
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(counters, types.int64), codegen


@part
def claim(counters, stage):
    """The number of a piece of this stage that no other thread has; a number ≥ `pieces` means that none is left."""
    return _fetch_add(counters, stage * STAGE_WORDS)


@part
def finish(counters, stage):
    """Count one piece as done."""
    _fetch_add(counters, stage * STAGE_WORDS + STAGE_WORDS // 2)


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
def wait(counters, stage, pieces):
    """Return when all pieces of the stage are done.

    Another thread's piece takes microseconds, unless that thread has lost its processor: then it may need this one.
    """
    spins = 0
    while _read_counter(counters, stage * STAGE_WORDS + STAGE_WORDS // 2) < pieces:
        spins += 1
        if spins % SPINS == 0:
            _yield()
