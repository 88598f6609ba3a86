"""Progress of ``data prepare``, so that it can resume: ``progress.json``, written after each shard, removed at the end.

The record is checked before the work goes on: its own hash, the identity of the input, and the bytes of every shard.
"""

from pathlib import Path

from ...errors import DataError
from ...wording import counted
from .collecting import Position
from .dataset import PROGRESS, check_hash
from .encoding import Place
from .manifest import load_json, sha256_of, write_json

FORMAT = "gpt_numpy preparation, version 2"
ADVICE = "the same again, another folder, or a restart"


def write_progress(folder, identity, sources, splits, records):
    """Record ``splits`` (name → totals and position) and the ``records`` of the files before those positions."""
    content = {"format": FORMAT, "identity": identity, "sources": sources, "splits": splits, "records": records}
    write_json(Path(folder) / PROGRESS, {**content, "sha256": sha256_of(content)})


def read_progress(folder, identity, sources):
    """(splits, records) as written. Raises DataError where settings, tokenizer, input or shards are not the same."""
    path = Path(folder) / PROGRESS
    content = load_json(path)
    digest = content.pop("sha256", None) if isinstance(content, dict) else None
    if digest is None or digest != sha256_of(content):
        raise DataError("the record of the work so far is damaged", path=path, expected=ADVICE)
    if content.get("format") != FORMAT:
        raise DataError(
            "the work was begun by another version",
            path=path,
            field="format",
            found=content.get("format"),
            expected=ADVICE,
        )
    compare_identity(content["identity"], identity, path)
    for was, now in zip(content["sources"], sources, strict=False):
        if was != now:
            raise DataError("the input changed since the work began", path=now[0], expected=ADVICE)
    if len(content["sources"]) != len(sources):
        raise DataError(
            "the work was begun with other inputs",
            path=path,
            found=counted(len(sources), "file"),
            expected=f"{counted(len(content['sources']), 'file')}; {ADVICE}",
        )
    for totals in content["splits"].values():
        for shard in totals["shards"]:
            check_hash(Path(folder) / shard["name"], shard["sha256"])
    return content["splits"], content["records"]


def compare_identity(was, now, path):
    """Raise DataError, naming the setting, where a folder was written with settings other than ``now``."""
    flat_was, flat_now = ({**identity, **identity["settings"]} for identity in (was, now))
    for name in now["settings"] | now:
        if name != "settings" and flat_was.get(name) != flat_now[name]:
            raise DataError(
                "the folder was written with another value",
                path=path,
                field=name,
                found=flat_now[name],
                expected=f"{flat_was.get(name)!r}: {ADVICE}",
            )


def position_to_json(position):
    """A ``Position`` as nested lists."""
    return [list(position.place), *position[1:]]


def position_from_json(value):
    """The ``Position`` that ``position_to_json`` wrote."""
    return Position(Place(*value[0]), *value[1:])
