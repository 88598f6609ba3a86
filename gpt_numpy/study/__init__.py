"""See the gradients, check them, break them.

``gradients``    ``check_gradients``: a hand-written backward against difference quotients
``cases``        every layer with small inputs, ready to be checked
``whole_model``  the same for a model of two blocks
"""

from .gradients import GradientReport, TensorCheck, Violation, check_gradients

__all__ = ["GradientReport", "TensorCheck", "Violation", "check_gradients"]
