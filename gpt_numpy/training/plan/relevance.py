"""The conditions under which settings matter: for the help text, the check before a run, and ``config.toml``'s comments.

A field of ``Settings`` names its condition (``when``). A setting that is given although its condition does not hold
would have no effect, and is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ...errors import ConfigError
from ..settings import Settings, is_default


class Circumstances(NamedTuple):
    """The facts that conditions need beside the settings."""

    prepared: bool = False  # the data are a folder of ``gpt-numpy data prepare``
    validation_split: bool = False  # the folder has validation shards
    files: frozenset = frozenset()  # kinds of the inputs: "text", "json", "built-in"
    mpi: bool = False


class Condition(NamedTuple):
    text: str  # completes "only with …"
    holds: Callable[[Settings, Circumstances], bool]


CONDITIONS = {
    "plain text": Condition("plain text, not prepared shards", lambda s, c: not c.prepared),
    "files": Condition("text files", lambda s, c: bool(c.files & {"text", "json"})),
    "separable files": Condition(
        "text files that are split by a separator",
        lambda s, c: (
            s.split in ("auto", "separator")
            and ("text" in c.files or s.split == "separator" and c.files != {"built-in"})
        ),
    ),
    "JSON files": Condition(
        "JSON lines (.jsonl, or --split json)",
        lambda s, c: ("json" in c.files and s.split == "auto") or (s.split == "json" and bool(c.files - {"built-in"})),
    ),
    "no validation split": Condition("data that have no validation split", lambda s, c: not c.validation_split),
    "new bpe": Condition(
        "a bpe tokenizer that is trained on the data",
        lambda s, c: s.tokenizer == "bpe" and not s.init_from and not c.prepared,
    ),
    "new model": Condition("a new model, not with --init-from", lambda s, c: not s.init_from),
    "other positions": Condition(
        "a new model, or --init-from and --block-size", lambda s, c: not s.init_from or s.block_size is not None
    ),
    "rotary positions": Condition(
        "rotary positions of a new model", lambda s, c: not s.init_from and s.model_config().positions == "rotary"
    ),
    "window": Condition(
        "a new model with a sliding window",
        lambda s, c: not s.init_from and s.model_config().sliding_window is not None,
    ),
    "decay": Condition("a schedule that decays", lambda s, c: s.schedule != "constant"),
    "wsd": Condition("--schedule wsd", lambda s, c: s.schedule == "wsd"),
    "samples": Condition("--sample-every above 0", lambda s, c: s.sample_every > 0),
    "ranks": Condition("--mpi", lambda s, c: c.mpi),
}


def condition_of(field) -> Condition | None:
    """The ``Condition`` of a field of ``Settings``; None for a setting that always matters."""
    name = field.metadata.get("when")
    return CONDITIONS[name] if name else None


def unused(settings: Settings, circumstances: Circumstances) -> dict[str, str]:
    """Name → the condition that is not met, for the settings that have no effect here."""
    conditions = {field.name: condition_of(field) for field in dataclasses.fields(settings)}
    return {
        name: condition.text
        for name, condition in conditions.items()
        if condition is not None and not condition.holds(settings, circumstances)
    }


def check_relevant(
    settings: Settings,
    circumstances: Circumstances,
    given: Iterable[str] = (),
    accepted: Iterable[str] = (),
    only: Iterable[str] | None = None,
) -> None:
    """``ConfigError`` for a setting that would have no effect.

    given     names of the settings that were set, even to the default; a value other than the default counts as set
    accepted  names whose value equals the value that replaces it, such as a checkpoint's own size
    only      check these names only (those that a resumption changes)
    """
    given = set(given)
    for name, text in unused(settings, circumstances).items():
        value = getattr(settings, name)
        if name in accepted or (only is not None and name not in only):
            continue
        if name in given or not is_default(name, value):
            raise ConfigError(f"has an effect only with {text}", field=name, found=value)
