"""Ops that remember: what Python does between an op's launches is done once, not in every step.

Between two launches an op checks its arguments, makes views and counts tasks. In a small model's step, that takes as
long as a tenth of the arithmetic, and it has the same result in every step: with a ``workspace`` a step gets the very
array objects of the step before. So a call whose arguments are all the same objects as in an earlier call is answered
with the launches of that call, on the arrays of that call, and with its result. The bits are the same, for the launches
are. Nothing is remembered where ``alloc`` is not a workspace's, as in ``kernels.linear_forward(x, weight, bias)``.

What an op remembers holds its arguments, so no other object can get the identity of one. It does not notice an array
whose shape is set in place, or a function of this package that is replaced by another; a new workspace remembers nothing.
"""

import functools
import inspect
import threading

import numpy as np

from ...workspace import Alloc
from . import threads
from .recording import recording

_PLAIN = (type(None), bool, int, float, str, np.ndarray, np.generic, Alloc)


class Remembered:
    """A call: its arguments, what it did, its result, and which part of which region it took."""

    __slots__ = ("arguments", "launches", "newest_pass", "result", "spans")

    def __init__(self, arguments, launches, result, spans):
        self.arguments, self.launches, self.result, self.spans = arguments, launches, result, spans

    def take(self):
        """Take the same parts of the regions again; False, and none taken, where one has handed out more or less."""
        for region, start, _ in self.spans:
            if region.nbytes != start:
                return False
        for region, _, end in self.spans:
            region.advance(end)
        return True


def remembered(unless=None, setting=None):
    """Decorator of an op that does nothing to arrays but launch kernels, and whose checks look at no array's elements.

    unless   a function of the op's arguments; where it returns true, a call is not remembered
    setting  a function without arguments, whose value the op depends on besides its arguments
    """

    def decorate(op):
        names = list(inspect.signature(op).parameters)
        place, needs_into = names.index("alloc"), "into" in names

        @functools.wraps(op)
        def call(*args, **options):
            alloc = args[place] if len(args) > place else options.get("alloc")
            if type(alloc) is not Alloc or alloc.current.calls is None:
                return op(*args, **options)
            values = (*args, *options.values())
            key = (op, threads.count(), threading.get_ident(), setting and setting(), *options, *map(id, values))
            known = alloc.current.calls.find(key)
            if known is not None and known.take():
                threads.launch_again(known.launches)
                return known.result
            with alloc.current.paused() as calls:  # ops that this one calls are a part of it
                if (needs_into and options.get("into") is None) or (unless is not None and unless(*args, **options)):
                    return op(*args, **options)
                return _remember(op, args, options, values, key, calls)

        return call

    return decorate


def _remember(op, args, options, values, key, calls):
    """The op's result; the call is remembered where it can be made again."""
    regions = {id(value): value.region for value in values if type(value) is Alloc}.values()
    starts = [region.nbytes for region in regions]
    with recording() as record:
        result = op(*args, **options)
    if record.whole and all(map(_lasting, values)) and not any(region.overflows for region in regions):
        spans = [(region, start, region.nbytes) for region, start in zip(regions, starts)]
        # Without the ``Alloc``s, which lead back here: the memory goes when the workspace goes.
        held = [value for value in values if type(value) is not Alloc]
        calls.add(key, Remembered(held, record.launches, result, spans))
    return result


def _lasting(value):
    """Whether the identity of ``value`` says all that an op looks at: no lists and no objects that may change."""
    return all(map(_lasting, value)) if isinstance(value, tuple) else isinstance(value, _PLAIN)
