"""Sweeps: the same training with every combination of some settings, one run after the other, resumable.

A sweep is a folder: ``sweep.json`` lists the settings and their values, each run has a folder named after its settings,
and ``sweep.png`` compares the runs. A sweep that is run again goes on: finished runs are skipped, and an interrupted
run is resumed.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..config import nearest
from ..errors import CheckpointCorrupt, ConfigError, NonFinite
from ..files import durable
from ..files.regular import read_regular
from ..training import Settings, resume, start
from ..training.metrics import FILE_NAME, read_metrics
from ..training.settings import kind_of, sections

DEFINITION, PICTURE = "sweep.json", "sweep.png"
_ALIASES = {"lr": "learning_rate"}
_TRUTH = {"true": True, "false": False}


class Run(NamedTuple):
    """One combination. ``values``: setting → value."""

    values: dict
    settings: Settings
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def records(self) -> list[dict]:
        """The records of the run so far; empty for a run that has not begun."""
        path = self.folder / FILE_NAME
        return read_metrics(path) if os.path.lexists(path) else []

    def state(self) -> str:
        """``finished``, ``begun`` or ``waiting``."""
        records = self.records()
        if any(record.get("kind") == "final" for record in records):
            return "finished"
        return "begun" if records else "waiting"


class Sweep(NamedTuple):
    """A folder, the settings that all runs share, and setting → the values that are combined."""

    folder: Path
    base: Settings
    axes: dict

    def runs(self) -> list[Run]:
        """All combinations, the last setting changing fastest. ``ConfigError`` for an invalid combination."""
        found = []
        for combination in itertools.product(*self.axes.values()):
            values = dict(zip(self.axes, combination))
            name = ",".join(f"{key}={_spell(value)}" for key, value in values.items())
            found.append(Run(values, self.base.replace(**values), self.folder / name))
        return found

    def create(self) -> None:
        """Make the folder; ``ConfigError`` where the folder belongs to another sweep."""
        path = self.folder / DEFINITION
        wanted = self._definition()
        if os.path.lexists(path):
            if not self.is_in(self.folder):
                raise ConfigError("another sweep is in this folder", path=self.folder, expected="another --out")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        durable.write_file(path, (json.dumps(wanted, indent=2) + "\n").encode())

    def is_in(self, folder: Path) -> bool:
        """Whether ``folder`` holds a sweep with the same settings and values."""
        try:
            return json.loads(read_regular(folder / DEFINITION)) == self._definition()
        except (OSError, ValueError, RecursionError):
            return False

    def _definition(self):
        return {"settings": self.base.to_dict(), "combined": {name: list(values) for name, values in self.axes.items()}}

    def train(self, say: Callable[[str], None] = print) -> Iterator[tuple[Run, str, int]]:
        """Make the folder and train its runs, see ``train_runs``."""
        runs = self.runs()
        self.create()
        yield from train_runs(runs, say)


def train_runs(runs: Sequence[Run], say: Callable[[str], None] = print) -> Iterator[tuple[Run, str, int]]:
    """Train the runs that are not finished, one by one; yields (run, how the run ended, exit code) after each.

    A run that was interrupted goes on. A run that diverges is reported, and the next one begins. The exit code is not 0
    after a signal; then the caller stops.
    """
    for number, run in enumerate(runs, 1):
        state = run.state()
        if state == "finished":
            yield run, "finished before", 0
            continue
        say(f"--- run {number} of {len(runs)}: {run.name}")
        try:
            outcome = _go_on(run) if state == "begun" else start(run.settings, run.folder)
        except NonFinite as error:
            yield run, f"diverged ({error.field})", 0
        else:
            yield run, outcome.reason, outcome.exit_code


def _go_on(run):
    try:
        return resume(run.folder)
    except CheckpointCorrupt:
        if any((run.folder / "checkpoints").glob("step-*")):
            raise
        return start(run.settings, run.folder)  # the run ended before its first checkpoint


def parse_axes(texts: list[str]) -> dict[str, list[Any]]:
    """setting → values from texts such as ``learning_rate=1e-3,3e-4``.

    >>> parse_axes(["lr=1e-3,3e-4", "n-embd=64,128"])
    {'learning_rate': [0.001, 0.0003], 'n_embd': [64, 128]}
    """
    fields = {field.name: field for group in sections().values() for field in group}
    axes: dict[str, list[Any]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        name = _ALIASES.get(name, name.replace("-", "_"))
        if name not in fields:
            raise ConfigError(f"no setting {name!r}{nearest(name, fields)}", field="--set", found=text)
        if name in axes:
            raise ConfigError("a setting is combined twice", field="--set", found=name)
        kind = kind_of(fields[name])
        if kind is tuple:
            raise ConfigError("a list cannot be combined", field="--set", found=name)
        axes[name] = [_parse(kind, value, text) for value in values.split(",")]
        if len(set(axes[name])) < len(axes[name]):
            raise ConfigError("the same value twice", field="--set", found=text)
    return axes


def _parse(kind, value, text):
    try:
        return _TRUTH[value.lower()] if kind is bool else kind(value)
    except (ValueError, KeyError):
        wanted = {bool: "true or false", int: "whole numbers", float: "numbers"}[kind]
        raise ConfigError(f"{value!r} is no value", field="--set", found=text, expected=wanted) from None


def _spell(value):
    """A value as part of a folder's name."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.strip("/").replace("/", "-").replace(",", "-") or "none"
