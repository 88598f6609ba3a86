"""How a model's text was read, kept beside the model as ``reading.json``, so that text is read in the same way later.

Four facts decide what a token means: the tokenizer, how text was normalised, where documents begin and end, and how rows
are laid out. A run writes them into its folder and into each checkpoint. ``generate``, ``score`` and the samples of
a run take ``reading_of(folder).normalized(text)``; code that uses two of them together compares their records.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ConfigError, DataError
from ...files.durable import write_file
from ..shards.manifest import load_json
from .normalizing import check_steps, normalize

NAME = "reading.json"
FORMAT = "gpt_numpy reading, version 1"
_TRAINER_STATE = "trainer_state.json"


class Reading(NamedTuple):
    """How text becomes documents, tokens and rows."""

    normalize: tuple[str, ...]  # steps, see ``normalizing``
    split: str = "auto"  # this and the next five: see ``reading.read_pieces``
    separator: str = ""
    text_field: str = "text"
    encoding: str = "utf-8"
    errors: str = "strict"
    specials: str = "text"
    documents: str = "joined"  # whether a row reads on from one document into the next: joined or apart
    block_size: int = 0  # tokens of a row
    row_length: int = 0  # of the rows that documents were fitted into; 0: documents flow across rows
    tokenizer_sha256: str = ""  # of what decides the tokenizer's ids

    def normalized(self, text: str) -> str:
        """``text``, normalised as the run normalised its text."""
        return normalize(text, self.normalize)

    def changes(self, text: str) -> list[str]:
        """The steps that change something in ``text``."""
        found = []
        for step in self.normalize:
            after = normalize(text, (step,))
            if after != text:
                found.append(step)
            text = after
        return found

    def fields(self) -> dict[str, Any]:
        """The content of ``reading.json``; the inverse of ``from_fields``."""
        return {"format": FORMAT, **self._asdict(), "normalize": list(self.normalize)}

    def to_json(self) -> bytes:
        """The bytes of ``reading.json``."""
        return (json.dumps(self.fields(), indent=2) + "\n").encode("ascii")

    @classmethod
    def from_fields(cls, fields: dict[str, Any], path: str | os.PathLike = NAME) -> Reading:
        """The ``Reading`` of a record's fields. ``DataError`` for a field that is missing, unknown or of another type."""
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            found = fields.get("format") if isinstance(fields, dict) else type(fields).__name__
            raise DataError("not a record of how text is read", path=path, field="format", found=found, expected=FORMAT)
        for name in sorted((fields.keys() ^ set(cls._fields)) - {"format"}):
            raise DataError(f"{'unknown' if name in fields else 'missing'} field", path=path, field=name)
        for name in cls._fields:
            kind = list if name == "normalize" else int if name in ("block_size", "row_length") else str
            if type(fields[name]) is not kind:
                raise DataError(
                    "has another type", path=path, field=name, found=type(fields[name]).__name__, expected=kind.__name__
                )
        try:
            steps = check_steps(tuple(fields["normalize"]))
        except (ConfigError, TypeError) as error:
            raise DataError(f"not normalising steps ({error})", path=path, field="normalize") from None
        return cls(**{name: fields[name] for name in cls._fields if name != "normalize"}, normalize=steps)


def reading_of(folder: str | os.PathLike) -> Reading | None:
    """The ``Reading`` of the run, checkpoint or exported model in ``folder``; None where the folder has no record.

    A checkpoint from before there was a record says in its trainer's state how the run normalised its text.
    Raises ``DataError`` for a record that is damaged.
    """
    path = Path(folder) / NAME
    if os.path.lexists(path):
        return Reading.from_fields(load_json(path, follow=True), path)
    state = Path(folder) / _TRAINER_STATE
    return _of_state(load_json(state, follow=True), state) if os.path.lexists(state) else None


def _of_state(state, path):
    """The ``Reading`` that a trainer's ``state`` tells of; None where the state names no normalising."""
    if not isinstance(state, dict):
        return None
    if "reading" in state:
        return Reading.from_fields(state["reading"], path)
    settings = state.get("settings")
    if not isinstance(settings, dict) or "normalize" not in settings:
        return None
    told = {name: settings[name] for name in Reading._fields if settings.get(name) is not None}
    return Reading.from_fields({"format": FORMAT, **Reading(())._asdict(), **told}, path)


def read_as_trained(folder: str | os.PathLike, text: str) -> tuple[str, list[str]]:
    """(``text`` normalised as the training text of the model in ``folder`` was, the steps that changed something).

    Where no record is kept, as in folders that other programs wrote, the text stays as it is.
    """
    reading = reading_of(folder)
    return (text, []) if reading is None else (reading.normalized(text), reading.changes(text))


def copy_reading(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Keep in the folder ``target`` the record of ``source``, where there is one."""
    reading = reading_of(source)
    if reading is not None:
        write_file(Path(target) / NAME, reading.to_json())
