"""Exercises: the reader writes the gradients, and a checker names the mistakes in them.

``catalogue`` lists them, ``stubs`` makes their files from the package's own source, ``problems`` runs them,
``checking`` compares, ``diagnosis`` and ``rivals`` say why a result is wrong, ``folder`` keeps the reader's files.
"""

from .catalogue import EXERCISES, Exercise, exercise_named
from .checking import Verdict, check, check_text

__all__ = ["EXERCISES", "Exercise", "Verdict", "check", "check_text", "exercise_named"]
