"""The files of a run's text: prepared shards or text, their kinds, and where a resumed run looks for them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...data.shards.dataset import PROGRESS
from ...data.shards.manifest import MANIFEST, read_manifest
from ...data.text.opening import STDIN, find_files, is_builtin
from ...errors import DataError
from .relevance import Circumstances

_SHARD = re.compile(r"(train|validation)-\d{5,}\.bin")
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


def prepared_folder(data: Sequence[str]) -> str | None:
    """The folder of prepared shards that ``data`` is, or None for text.

    Raises ``DataError`` for shards without their manifest, and for shards beside or below other data: their tokenizer's
    files would be read as text.
    """
    holders = [folder for source in data for folder in _shard_folders(source)]
    if not holders:
        return None
    if len(data) > 1 or holders != [data[0]]:
        raise DataError(
            "prepared shards are the whole of a run's data",
            path=holders[0],
            found=" ".join(data),
            expected="this folder alone",
        )
    folder = Path(data[0])
    if not os.path.lexists(folder / MANIFEST):
        if (folder / PROGRESS).exists():
            raise DataError("its preparation has not come to its end: run it again to go on", path=folder)
        raise DataError("prepared shards without their manifest: it is missing", path=folder / MANIFEST)
    return data[0]


def _shard_folders(source) -> Iterator[str]:
    if not os.path.isdir(source):
        return
    for parent, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(map(_SHARD.fullmatch, names)) or _is_ours(parent, names):
            folders.clear()
            yield source if os.path.samefile(parent, source) else parent


def _is_ours(parent, names):
    """Whether a folder without shards is a preparation that has just begun or has lost its shards."""
    if PROGRESS in names:
        return "tokenizer" in os.listdir(parent)
    if MANIFEST not in names:
        return False
    try:
        read_manifest(parent)
    except DataError:
        return False
    return True


def circumstances(settings, mpi: bool) -> Circumstances:
    """The facts that decide which settings matter, found without reading any text."""
    folder = prepared_folder(settings.data)
    if folder is not None:
        manifest = Path(folder, MANIFEST)
        splits = read_manifest(folder)["splits"] if os.path.lexists(manifest) else {}
        return Circumstances(True, "validation" in splits, frozenset(), mpi)
    kinds = frozenset(map(_kind, find_files(settings.data)))
    return Circumstances(False, False, kinds, mpi)


def _kind(path):
    if is_builtin(path):
        return "built-in"
    return "json" if str(path).lower().endswith(_JSON_SUFFIXES) else "text"


def located(data: Sequence[str]) -> list[str]:
    """The absolute paths of ``data``, for a resumption from another working directory."""
    return [source if source == STDIN or is_builtin(source) else os.path.abspath(source) for source in data]


def places_to_look(data: Sequence[str], recorded: Sequence[str], run: Path) -> list[tuple[str, ...]]:
    """Possible paths of a resumed run's data, most likely first: as named, as the run found them, relative to the run.

    The last serves a folder that was moved together with its runs.
    """
    places = [tuple(data), tuple(recorded)]
    if recorded and not any(map(os.path.isabs, data)):
        for parent in list(Path(os.path.abspath(run)).parents)[:3]:
            places.append(tuple(s if is_builtin(s) or s == STDIN else str(parent / s) for s in data))
    return [place for number, place in enumerate(places) if place and place not in places[:number]]
