"""How kernels run: one thread pool for everything, numba's, and one way to launch work on it.

Work on all threads is two functions. The *task* does one piece; pieces own disjoint parts of the output, so that
the result has the same bits whichever thread does which piece, and however many threads there are. The *launcher*
hands the pieces out:

    @part
    def _double_block(worker, task, x, out):
        for i in range(task * 64, min(x.size, task * 64 + 64)):
            out[i] = 2 * x[i]

    @launcher
    def _double(n_tasks, x, out):
        parallel_for(_double_block, n_tasks, (x, out))

``worker`` (below ``count()``) is the row of `scratch.worker_scratch` that a task may use. Each thread has a range of the
tasks. When its range is done, the thread takes remaining tasks of other ranges, so uneven tasks need no plan. A thread
still works mostly on the same part of the arrays from launch to launch, which its own caches hold. ``numba.prange``
would fix the division of the tasks, and would cost half a second of compilation for each launcher.

Launching is guarded, because numba's pools end the process instead of raising: GNU OpenMP ends a forked child at its
first launch, and the workqueue layer aborts the process when two Python threads launch at once. Here a child
forked after its parent had started the pool, for a kernel or for any other ``parallel=True`` function, gets a
``KernelError`` (see ``gpt_numpy.host.forks``), and launches from several Python threads take turns.
"""

import functools
import inspect
import os
import threading
import time
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ...errors import ConfigError, KernelError
from ...host import forks
from ...host.processors import cores, thread_count
from . import recording
from .decorators import kernel
from .numba_inside import set_threads, start_threads

_turn = threading.RLock()
_count = None
_observer = None  # see `observe`
_pool_runs = False  # in this process


def available():
    """Processors this process may use, which is not always as many as the machine has."""
    return len(cores())


def count():
    """Threads a kernel uses. ``NUMBA_NUM_THREADS`` sets the number at the start, `set_count` later.

    Without them there are as many as can work at the same time: a container's quota of processor time counts.
    """
    global _count
    if _count is None:
        most = available() if "NUMBA_NUM_THREADS" in os.environ else thread_count()
        _count = min(numba.config.NUMBA_NUM_THREADS, most)
    return _count


def set_count(threads):
    """Let kernels use ``threads`` threads from now on; returns the number they used before."""
    global _count
    limit = numba.config.NUMBA_NUM_THREADS
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= limit:
        raise ConfigError(
            "the number of threads is out of range",
            field="threads",
            found=threads,
            expected=f"1 to {limit} (NUMBA_NUM_THREADS raises the limit)",
        )
    before, _count = count(), threads
    return before


def layer():
    """Name of numba's threading layer: 'tbb', 'omp' or 'workqueue'. Starts the pool if need be."""
    start_pool()
    return numba.threading_layer()


def start_pool():
    """Start numba's pool in this process, or raise ``KernelError`` in a fork of a process that has started it."""
    global _pool_runs
    if forks.pool_is_a_parents():
        raise KernelError(
            "this process was forked after its parent had run a kernel or another parallel numba function, and threads "
            "do not survive a fork: start processes with the 'spawn' or 'forkserver' method, or fork before the first "
            "kernel",
            found=f"process {os.getpid()}",
        )
    if not _pool_runs:
        start_threads()
        _pool_runs = True


def _after_fork_in_child():
    global _turn, _pool_runs
    _turn = threading.RLock()  # the parent's may be held by a thread that does not exist here
    _pool_runs = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _any_layout(value):
    """The numba type of an argument; for an array of several axes, of any strides."""
    kind = numba.typeof(value)
    return kind.copy(layout="A") if isinstance(kind, types.Array) and kind.ndim > 1 else kind


class _SameMemory:
    """What NumPy makes a writeable array of that lies where ``array`` lies."""

    def __init__(self, array):
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
        self.array = array


def _writeable(value):
    """An argument as kernels are compiled for it: numba has another type for an array that may not be written to.

    A kernel writes to no array but those that were checked to be writeable, so the others may be handed to it as if
    they were.
    """
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        return np.asarray(_SameMemory(value))
    return value


def _all_writeable(args):
    return tuple(map(_writeable, args))


def observe(observer):
    """From now on call ``observer(launcher, args, seconds)`` after every launch (None: no more); returns the one before.

    For measurements: a launch that is observed costs a microsecond more.
    """
    global _observer
    before, _observer = _observer, observer
    return before


def launcher(function):
    """Compile a function that calls `parallel_for`, and guard every call of it.

    It is compiled once for float32 and once for float64, for arrays of any strides, read-only or not, where numba by
    itself would compile anew for every combination of contiguous, strided and read-only arguments.
    """
    compiled = kernel()(function)
    named, variadic = function.__code__.co_argcount, bool(function.__code__.co_flags & inspect.CO_VARARGS)

    def compile_for(args):
        if compiled.overloads:
            compiled.disable_compile(False)
        compiled.compile(kinds_of(args))
        compiled.disable_compile()

    def run(args):
        with _turn:
            start_pool()
            set_threads(count())  # numba keeps the number per Python thread
            for prepare in (tuple, _all_writeable):  # nearly always the arguments fit as they are
                args = prepare(args)
                if compiled.overloads:
                    try:
                        return compiled(*args)
                    except TypeError:  # no match among what is compiled
                        continue
            compile_for(args)
            return compiled(*args)

    def kinds_of(args):
        """The numba types that the arguments are compiled for."""
        kinds = [_any_layout(value) for value in args]
        if variadic:  # *fields reach compiled code as one tuple
            kinds[named:] = [types.BaseTuple.from_types(tuple(kinds[named:]))]
        return tuple(kinds)

    def recorded(args):
        """The ``Launch`` with these arguments, which has been done."""
        args = _all_writeable(args)
        code = compiled.overloads.get(kinds_of(args))
        if code is None:
            return Launch(launch, args, compiled, args)
        packed = (*args[:named], args[named:]) if variadic else args
        return Launch(launch, args, code.entry_point, packed)

    @functools.wraps(function)
    def launch(*args):
        if _observer is None:
            result = run(args)
        else:
            start = time.perf_counter()
            result = run(args)
            _observer(launch, args, time.perf_counter() - start)
        if recording.wanted():
            recording.note(recorded(args))
        return result

    launch.compiled = compiled
    return launch


class Launch(NamedTuple):
    """A launch that can be done again without a look at its arguments."""

    launcher: Any
    args: tuple
    code: Any  # numba's entry point for arguments of these types
    packed: tuple  # ``args`` as ``code`` takes them


def launch_again(launches):
    """Do launches again, in order, on as many threads as `count` says; their arguments are those of before."""
    if _observer is not None:
        for one in launches:
            one.launcher(*one.args)
        return
    with _turn:
        start_pool()
        set_threads(count())
        for _, _, code, packed in launches:
            code(*packed)


_BYTES = ir.IntType(8).as_pointer()
_INDEX = ir.IntType(64)
_COUNTER_STEP = 8  # counters between two that are used: a cache line
_FAILED = "a task of a kernel raised an exception: its part of the result is missing"
_FIRST = 64  # any pointer but null, to which the pools add the worker's number


@intrinsic
def parallel_for(typing, task, n_tasks, args):
    """Call ``task(worker, i, *args)`` for every i below ``n_tasks``, each once, on all threads.

    Only inside a `launcher`. A single task, or a single thread, runs without the pool. Where a task raises, the others
    are still done, and then ``KernelError`` is raised; the task's own exception is lost.
    """
    signature = task.get_call_type(typing, (types.intp, types.intp, *args.types), {})

    def generate(context, builder, call, values):
        compiled = task.dispatcher.get_compile_result(signature)
        context.active_code_library.add_linking_library(compiled.library)
        _, tasks, arguments = values
        number = _thread_number(builder, tasks)
        counters = _counters(builder, tasks, number)
        failed = cgutils.alloca_once_value(builder, _INDEX(0))
        shared = _store_shared(builder, [tasks, number, counters, failed, *cgutils.unpack_tuple(builder, arguments)])
        worker = _worker_function(context, builder.module, compiled, args.types, shared.type)
        _launch(builder, worker, number, builder.bitcast(shared, _BYTES))
        with builder.if_then(builder.icmp_signed("!=", builder.load(failed), _INDEX(0)), likely=False):
            context.call_conv.return_user_exc(builder, KernelError, (_FAILED,))
        return context.get_dummy_value()

    return types.void(task, types.intp, args), generate


def _store_shared(builder, values):
    """Put the values that the workers share (numbers of tasks and ranges, counters, arguments) into one memory block."""
    block = cgutils.pack_struct(builder, values)
    pointer = cgutils.alloca_once(builder, block.type)
    builder.store(block, pointer)
    return pointer


def _range_start(builder, n_tasks, n_ranges, which):
    return builder.sdiv(builder.mul(n_tasks, which), n_ranges)


def _worker_function(context, module, compiled, arg_types, shared_type):
    """The function that each thread runs: the tasks of its own range, then remaining tasks of the other ranges.

    Its parameters are those of a numba generalised ufunc: args[0] - _FIRST is the worker's number, and
    dimensions[0] is the number of workers that this call runs, one after the other; 0 for none.
    """
    kind = ir.FunctionType(ir.VoidType(), [_BYTES.as_pointer(), _INDEX.as_pointer(), _INDEX.as_pointer(), _BYTES])
    function = ir.Function(module, kind, name=module.get_unique_name(f"worker.{compiled.fndesc.mangled_name}"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    args, dimensions, _, data = function.args
    worker = builder.sub(builder.ptrtoint(builder.load(args), _INDEX), _INDEX(_FIRST))
    stand_in = builder.icmp_signed(">", builder.load(dimensions), _INDEX(0))
    block = builder.load(builder.bitcast(data, shared_type))
    n_tasks, n_ranges, counters, failed, *arguments = (
        builder.extract_value(block, i) for i in range(4 + len(arg_types))
    )
    callee = context.declare_function(module, compiled.fndesc)
    with builder.if_then(stand_in), cgutils.for_range(builder, n_ranges) as ranges:
        which = builder.urem(builder.add(worker, ranges.index), n_ranges)
        end = _range_start(builder, n_tasks, n_ranges, builder.add(which, _INDEX(1)))
        next_task = builder.gep(counters, [builder.mul(which, _INDEX(_COUNTER_STEP))])
        loop, work, done = (function.append_basic_block(name) for name in ("loop", "work", "done"))
        builder.branch(loop)
        builder.position_at_end(loop)
        task = builder.atomic_rmw("add", next_task, _INDEX(1), "monotonic")
        builder.cbranch(builder.icmp_signed("<", task, end), work, done)
        builder.position_at_end(work)
        status, _ = context.call_conv.call_function(
            builder, callee, types.none, (types.intp, types.intp, *arg_types), [worker, task, *arguments]
        )
        with builder.if_then(status.is_error, likely=False):
            builder.atomic_rmw("add", failed, _INDEX(1), "monotonic")
        builder.branch(loop)
        builder.position_at_end(done)
    builder.ret_void()
    return function


def _thread_number(builder, n_tasks):
    """How many threads share the tasks."""
    get_number = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_INDEX, []), "get_num_threads")
    number = builder.and_(builder.call(get_number, []), _INDEX(0xFFFFFFFF))  # a C int
    return builder.select(builder.icmp_signed("<", n_tasks, number), n_tasks, number)


def _counters(builder, n_tasks, n_ranges):
    """The next task of each range, on cache lines of their own."""
    counters = builder.alloca(_INDEX, builder.mul(n_ranges, _INDEX(_COUNTER_STEP)))
    with cgutils.for_range(builder, n_ranges) as ranges:
        start = _range_start(builder, n_tasks, n_ranges, ranges.index)
        builder.store(start, builder.gep(counters, [builder.mul(ranges.index, _INDEX(_COUNTER_STEP))]))
    return counters


def _launch(builder, worker, threads, data):
    """Hand ``worker`` to numba's pool, once for each thread."""
    first = cgutils.alloca_once_value(builder, builder.inttoptr(_INDEX(_FIRST), _BYTES))
    dimensions, steps = (cgutils.alloca_once(builder, _INDEX, size=2) for _ in range(2))
    for pointer, value in ((dimensions, threads), (steps, _INDEX(1))):
        builder.store(value, pointer)
        builder.store(_INDEX(0), builder.gep(pointer, [_INDEX(1)]))
    with builder.if_else(builder.icmp_signed("<=", threads, _INDEX(1))) as (alone, together):
        with alone:
            builder.store(_INDEX(1), dimensions)
            builder.call(worker, [first, dimensions, steps, data])
        with together:
            kind = ir.FunctionType(ir.VoidType(), [_BYTES] * 5 + [_INDEX] * 3)
            pool = cgutils.get_or_insert_function(builder.module, kind, "numba_parallel_for")
            pointers = [builder.bitcast(p, _BYTES) for p in (worker, first, dimensions, steps)]
            builder.call(pool, [*pointers, data, _INDEX(1), _INDEX(1), threads])
