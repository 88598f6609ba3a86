"""One kind of intermediate on the page: its texts, and where its value and its gradient are computed."""

from __future__ import annotations

from typing import NamedTuple


class Box(NamedTuple):
    formula: str
    gradient: str
    forward: tuple  # file of layers, text of the line that computes the value
    backward: tuple  # file of layers, or "steps…" of study, and the text of the line that computes the gradient
    derivation: str  # name of the backward whose docstring derives it
