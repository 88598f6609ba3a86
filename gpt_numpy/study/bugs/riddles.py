"""A planted bug as a riddle: chosen by number or at random, mended in a copy of its file, confirmed by the checks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

from ...config import nearest
from ...errors import ConfigError
from . import BUGS, failed_checks, plant_source, reports
from .planting import Bug


class Riddle(NamedTuple):
    """A bug and its number in the list; ``hidden``: its name, half the answer, is shown with the answer only."""

    number: int
    bug: Bug
    hidden: bool

    @property
    def title(self):
        return f"riddle {self.number}, in {self.bug.layer}" if self.hidden else f"{self.bug.name}, in {self.bug.layer}"

    def copy_in(self, folder: Path) -> Path:
        """The path of the reader's copy, in a folder of riddles."""
        return folder / f"{self.number:02}_{self.bug.file}"


def chosen(name: str | None) -> Riddle:
    """The riddle with a name, which is shown, or with a number. Raises ``ConfigError`` where there is none."""
    bugs = list(BUGS.values())
    if name is None:
        raise ConfigError("no bug named", expected="a name, a number, or --random")
    if name.isdigit():
        if not 1 <= int(name) <= len(bugs):
            raise ConfigError("no such riddle", found=int(name), expected=f"1 to {len(bugs)}")
        return Riddle(int(name), bugs[int(name) - 1], hidden=True)
    if name not in BUGS:
        raise ConfigError(f"no bug {name!r}{nearest(name, BUGS)}", expected="see 'gpt-numpy study bugs'")
    return Riddle(list(BUGS).index(name) + 1, BUGS[name], hidden=False)


def at_random(layer: str | None = None) -> Riddle:
    """Any riddle, or any of one layer."""
    found = [(n, bug) for n, bug in enumerate(BUGS.values(), start=1) if layer in (None, bug.layer)]
    if not found:
        layers = sorted({bug.layer for bug in BUGS.values()})
        raise ConfigError(f"no bug in {layer!r}{nearest(layer, layers)}", expected=", ".join(layers))
    return Riddle(*random.choice(found), hidden=True)


def write_copy(riddle: Riddle, folder: Path) -> Path:
    """Write the broken file into ``folder`` for the reader to mend; a copy that is there already is not replaced."""
    path = riddle.copy_in(folder)
    if path.exists():
        raise ConfigError("this riddle's file exists already", path=path, expected="--check, or remove the file first")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(riddle.bug.patched_source(), encoding="utf-8")
    return path


def verdict(riddle: Riddle, folder: Path, seed: int = 0) -> list[str]:
    """What is wrong with the reader's copy, one line each; empty where every check passes."""
    path = riddle.copy_in(folder)
    if not path.exists():
        expected = f"'gpt-numpy study bug {riddle.number} --edit' before it"
        raise ConfigError("no copy to check", path=path, expected=expected)
    try:
        ops, gpt = plant_source(riddle.bug, path.read_text(encoding="utf-8"))
    except Exception as error:
        return [f"{path} does not run: {type(error).__name__}: {error}"]
    return failed_checks(reports(ops, gpt, riddle.bug.layer, seed))
