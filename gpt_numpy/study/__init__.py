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

from .. import lazy
from .gradients import GradientReport, TensorCheck, Violation, check_gradients
from .trace import Trace, Traced, trace

# The exercises import the model, the tokenizer and numba; a gradient check needs none of these.
_LATER = {"check": "exercises", "check_model": "whole_model", "with_functions": "bugs.at_the_interface"}

__all__ = ["GradientReport", "TensorCheck", "Trace", "Traced", "Violation", "check_gradients", "trace", *_LATER]


def __getattr__(name):
    return lazy.load(__name__, _LATER, name)
