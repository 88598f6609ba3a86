"""What ``trainer_state.json`` must hold for a run to go on from it: one table of fields, checked before any is used.

A manifest proves that the file is as it was written, not that this version wrote it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import CheckpointMismatch, ConfigError
from ..settings import Settings

MOST_SECONDS = 1e12


def _count(value) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _number(value) -> bool:
    return type(value) in (int, float) and abs(value) < MOST_SECONDS and math.isfinite(value)


# field → (whether a value will do, what will do, whether the field may be absent)
_FIELDS: dict[str, tuple[Callable[[Any], bool], str, bool]] = {
    "best_loss": (lambda v: v is None or _number(v), "a number or null", False),
    "best_step": (_count, "a step", False),
    "evaluations_since_best": (_count, "a count", False),
    "seconds": (lambda v: _number(v) and v >= 0, "seconds", False),
    "settings": (lambda v: isinstance(v, dict) and _count(v.get("seed")), "an object with a seed", False),
    "data_sha256": (lambda v: isinstance(v, str), "a hash", False),
    "sources": (lambda v: isinstance(v, list) and all(isinstance(s, str) for s in v), "a list of paths", True),
    "reading": (lambda v: isinstance(v, dict), "an object", True),
}


def check_saved_state(state: dict[str, Any], path: str | Path) -> None:
    """``CheckpointMismatch`` with the field for a state, from the run at ``path``, that no run can go on from."""
    for name, (fits, expected, optional) in _FIELDS.items():
        if name not in state:
            if optional:
                continue
            raise CheckpointMismatch("the trainer's state lacks a field", path=path, field=name, expected=expected)
        if not fits(state[name]):
            raise CheckpointMismatch(
                "the trainer's state has a field of another kind",
                path=path,
                field=name,
                found=state[name],
                expected=expected,
            )
    try:
        Settings.from_mapping(state["settings"])
    except ConfigError as error:
        raise CheckpointMismatch(f"the settings in the trainer's state: {error}", path=path, field="settings") from None
