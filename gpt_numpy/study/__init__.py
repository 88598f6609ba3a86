"""See the gradients, check them, break them.

``gradients``    ``check_gradients``: a hand-written backward against difference quotients
``cases``        every layer with small inputs, ready to be checked
``whole_model``  ``check_gradients`` of a model of two blocks
``step_size``    the error of a difference quotient against its step, and the complex step
``bugs``         classic mistakes, planted, and the checks that catch them
``trace``        every intermediate of a pass and its gradient, by name
``exercises``    gradients to write oneself, and a checker that names the first wrong number and its cause
``steps``        the layers taken apart into elementary steps, for the trace
"""

from .gradients import GradientReport, TensorCheck, Violation, check_gradients
from .trace import Trace, Traced, trace

__all__ = ["GradientReport", "TensorCheck", "Trace", "Traced", "Violation", "check", "check_gradients", "trace"]


def __getattr__(name):
    # The exercises import the model, the tokenizer and numba; a gradient check needs none of these.
    if name == "check":
        from .exercises import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
