"""What a model's folder says about texts, beside weights, sizes and tokenizer: carried from folder to folder, not interpreted.

``generation_config.json``  the whole file: which ids end a text, how to draw
``config.json``             the ids of tokens with a role: ``bos_token_id``, ``eos_token_id``, ``pad_token_id``

A model that begins at such a folder, and is trained, converted or packed, is used by the same programs in the same way:
they find here where a text of an instructed model ends. The tokenizer carries its own part, such as a chat template
(``tokenizer.vocabulary.Extras``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..config import LARGEST_SIZE
from ..errors import CheckpointCorrupt
from ..files.regular import read_regular
from .folder_config import CONFIG, read_json

GENERATION = "generation_config.json"
_ROLES = ("bos_token_id", "eos_token_id", "pad_token_id")


class Beside(NamedTuple):
    """ids: entries of ``config.json``, a number or a list of numbers each. files: name → content."""

    ids: Mapping[str, Any] = {}
    files: Mapping[str, bytes] = {}


NOTHING = Beside()


def beside_of(folder: str | os.PathLike | None, tokenizer: Any = None, generation: bool = True) -> Beside:
    """The ``Beside`` of a model's ``folder`` (None: a new model); what the folder does not name is as ``tokenizer`` has it.

    generation: whether ``generation_config.json`` is a file of the model. Raises ``CheckpointCorrupt`` for files that are
    not JSON objects.
    """
    begin = [] if tokenizer is None else tokenizer.begin_ids
    ids: dict[str, Any] = {"bos_token_id": begin[0]} if begin else {}
    if folder is None:
        return Beside(ids)
    fields = read_json(Path(folder) / CONFIG)
    ids |= {name: fields[name] for name in _ROLES if _are_ids(fields.get(name))}
    path = Path(folder) / GENERATION
    if not generation or not os.path.lexists(path):
        return Beside(ids)
    read_json(path)  # refused here, not by the next reader
    return Beside(ids, {GENERATION: read_regular(path, CheckpointCorrupt)})


def _are_ids(value):
    numbers = value if isinstance(value, list) else [value]
    return bool(numbers) and all(type(i) is int and 0 <= i <= LARGEST_SIZE for i in numbers)
