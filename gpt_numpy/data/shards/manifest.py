"""The manifest of a folder of shards: counts, settings, and the SHA-256 of each file.

A manifest may be damaged or hostile. The whole manifest is therefore checked before any shard is opened: its own
hash, exact field names and types, ranges, and the names of the shards. These names follow a fixed scheme and cannot
point outside the folder.
"""

import hashlib
import json
from pathlib import Path

from ...errors import DataError
from ...files.durable import write_durably
from ...files.regular import read_regular
from ...wording import fault_of
from ..rows.packing import token_dtype

MANIFEST = "manifest.json"
FORMAT = "gpt_numpy tokens, version 2"
FORMAT_1 = "gpt_numpy tokens, version 1"  # without the tokenizer's identity; a row could join two documents
SPLITS = ("train", "validation")
MAX_MANIFEST_BYTES = 1 << 28

_FIELDS = {
    "format": str,
    "vocab_size": int,
    "eot_id": int,
    "row_length": int,
    "settings": dict,
    "tokenizer": dict,
    "tokenizer_identity": str,
    "inputs": list,
    "splits": dict,
    "sha256": str,
}
_SPLIT_FIELDS = {
    "tokens": int,
    "documents": int,
    "text_bytes": int,
    "cut_documents": int,
    "cuts": int,
    "padding": int,
    "shards": list,
}
_SHARD_FIELDS = {"name": str, "tokens": int, "documents": int, "sha256": str}
_INPUT_FIELDS = {"name": str, "bytes": int, "sha256": str}


def shard_name(split, number):
    """The file name of a split's shard."""
    return f"{split}-{number:05d}.bin"


def canonical_json(value):
    """The canonical JSON of ``value``: equal values have equal bytes and hashes."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode("ascii")


def sha256_of(value):
    """The SHA-256, in hexadecimal, of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def write_json(path, value):
    """Write ``value`` as JSON so that a kill at any time leaves the old file or the new one, whole and on the disk."""
    write_durably(path, [canonical_json(value)])


def write_manifest(folder, content):
    """Write the manifest of ``folder``; ``content`` has all fields but ``format`` and ``sha256``."""
    content = {"format": FORMAT, **content}
    write_json(Path(folder) / MANIFEST, {**content, "sha256": sha256_of(content)})


def read_manifest(folder):
    """The manifest of ``folder``, checked. Raises DataError naming the field at fault."""
    path = Path(folder) / MANIFEST
    manifest = load_json(path)
    fields = _FIELDS
    if isinstance(manifest, dict) and manifest.get("format") == FORMAT_1:
        fields = {name: kind for name, kind in _FIELDS.items() if name != "tokenizer_identity"}
    _check_fields(manifest, fields, path, "")
    if manifest["format"] not in (FORMAT, FORMAT_1):
        raise DataError("unknown format", path=path, field="format", found=manifest["format"], expected=FORMAT)
    if manifest["format"] == FORMAT_1 and manifest["row_length"]:
        raise DataError(
            "rows of this version do not say where every document ends",
            path=path,
            field="format",
            found=FORMAT_1,
            expected=f"{FORMAT}: prepare the data again",
        )
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    if sha256_of(content) != manifest["sha256"] or read_regular(path, follow=False) != canonical_json(manifest):
        raise DataError("the manifest was changed after it was written", path=path, field="sha256")
    _check_vocabulary(manifest, path)
    for number, record in enumerate(manifest["inputs"]):
        _check_fields(record, _INPUT_FIELDS, path, f"inputs[{number}].")
    _check_hashes(manifest["tokenizer"], path, "tokenizer")
    if "train" not in manifest["splits"] or not set(manifest["splits"]) <= set(SPLITS):
        raise DataError("the splits are not train, or train and validation", path=path, field="splits")
    for split, record in manifest["splits"].items():
        _check_split(split, record, manifest["row_length"], path)
    return manifest


def load_json(path, follow=False):
    """The value in a JSON file of ours. DataError for a file that is missing, too large, not regular or not strict JSON.

    follow: whether ``path`` may be a symbolic link, as the files of a downloaded model often are.
    """
    try:
        content = read_regular(path, limit=MAX_MANIFEST_BYTES, follow=follow)
        return json.loads(content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except OSError as error:
        raise DataError(fault_of(error), path=path) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"is not JSON ({str(error)[:200]})", path=path) from error


def _object(pairs):
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key comes twice")
    return table


def _constant(name):
    raise ValueError(f"{name} is no number")


def _check_fields(record, fields, path, where):
    if not isinstance(record, dict):
        raise DataError("not an object", path=path, field=where or None, found=type(record).__name__)
    for name in sorted(record.keys() ^ fields.keys()):
        state = "unknown" if name in record else "missing"
        raise DataError(f"{state} field", path=path, field=f"{where}{name}")
    for name, kind in fields.items():
        if type(record[name]) is not kind:
            raise DataError(
                "has another type",
                path=path,
                field=f"{where}{name}",
                found=type(record[name]).__name__,
                expected=kind.__name__,
            )
        if kind is int and not 0 <= record[name] < 2**63:
            raise DataError("out of range", path=path, field=f"{where}{name}", found=record[name])
        if name in ("sha256", "tokenizer_identity"):
            _check_hashes({name: record[name]}, path, where)


def _check_hashes(table, path, where):
    for name, digest in table.items():
        if not isinstance(digest, str) or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise DataError("is no SHA-256", path=path, field=f"{where} {name}", found=digest)


def _check_vocabulary(manifest, path):
    vocab_size, eot_id = manifest["vocab_size"], manifest["eot_id"]
    if not 1 <= vocab_size < 2**31:
        raise DataError("out of range", path=path, field="vocab_size", found=vocab_size)
    if eot_id >= vocab_size:
        raise DataError(
            "is outside the vocabulary", path=path, field="eot_id", found=eot_id, expected=f"< {vocab_size}"
        )
    if manifest["row_length"] == 1 or manifest["row_length"] >= 2**31:
        raise DataError("out of range", path=path, field="row_length", found=manifest["row_length"])


def _check_split(split, record, row_length, path):
    where = f"splits.{split}."
    _check_fields(record, _SPLIT_FIELDS, path, where)
    if not record["shards"]:
        raise DataError("no shard", path=path, field=f"{where}shards")
    for number, shard in enumerate(record["shards"]):
        _check_fields(shard, _SHARD_FIELDS, path, f"{where}shards[{number}].")
        if shard["name"] != shard_name(split, number):
            raise DataError(
                "shards are missing, reordered or misnamed",
                path=path,
                field=f"{where}shards[{number}].name",
                found=shard["name"],
                expected=shard_name(split, number),
            )
        if row_length and shard["tokens"] % row_length:
            raise DataError("not whole rows", path=path, field=f"{where}shards[{number}].tokens", found=shard["tokens"])
    most = record["tokens"] if row_length else 0
    if not record["cut_documents"] <= record["cuts"] <= most or record["padding"] > most:
        raise DataError("counts that no packing gives", path=path, field=f"splits.{split}")
    for name in ("tokens", "documents"):
        total = sum(shard[name] for shard in record["shards"])
        if total != record[name]:
            raise DataError(
                "the shards do not add up", path=path, field=f"{where}{name}", found=total, expected=record[name]
            )


def shard_dtype(manifest):
    """The dtype of the shards' tokens."""
    return token_dtype(manifest["vocab_size"]).newbyteorder("<")
