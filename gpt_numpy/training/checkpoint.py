"""Checkpoints that are whole or absent, whatever happens while one is written.

A checkpoint is a folder ``step-N`` that ``transformers`` opens as it is (``config.json``, ``model.safetensors``, the
tokenizer's files, ``reading.json``). The state to resume from is beside the model: ``optimizer.safetensors``,
``trainer_state.json``, and ``manifest.json`` with the size and SHA-256 of every file. A checkpoint is written under a
temporary name, flushed to the disk, and given its own name by one rename. Older ones are removed only after the new
one has been read back and verified. A reader accepts only files that the manifest lists.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import GPTConfig
from ..data.text.reading_record import NAME as READING
from ..data.text.reading_record import Reading
from ..errors import CheckpointCorrupt, CheckpointMismatch, VocabError
from ..files import durable
from ..files.regular import read_regular, sha256_of_file, size_of_regular
from ..interop import huggingface
from ..interop.beside import NOTHING, Beside, beside_of
from ..interop.safetensors import SafetensorsFile
from ..parameters import Parameters, table
from ..tokenizer import load_tokenizer
from ..wording import fault_of

MANIFEST, OPTIMIZER, STATE = "manifest.json", "optimizer.safetensors", "trainer_state.json"
FORMAT = 1
_NAME = re.compile(r"step-(\d{1,15})")
_MOMENTS = ("first_moment", "second_moment")


class Checkpoint(NamedTuple):
    """The whole state of a run at one step. ``first`` and ``second`` (N,) are the moments, laid out like ``params.flat``."""

    step: int
    config: GPTConfig
    params: Parameters
    first: np.ndarray
    second: np.ndarray
    tokenizer: Any
    state: dict  # JSON: settings, data fingerprint, best validation, …
    beside: Beside = NOTHING  # what the folder of the initial model says about its texts


# ---- writing -----------------------------------------------------------------------------------------------


def save(folder, checkpoint, keep=None):
    """Write ``checkpoint`` as ``folder/step-N``, verify it, prune to ``keep`` and the best. Returns its path.

    An ``OSError`` on the way leaves every older checkpoint as it was. A sound checkpoint of the same step
    is left alone, a broken one is moved aside. Nothing is replaced in place.
    """
    folder = Path(folder)
    final = folder / f"step-{checkpoint.step}"
    if final.exists():
        try:
            verify(final)
            return final
        except CheckpointCorrupt:
            durable.rename(final, _temporary(folder, final.name))
    temporary = _temporary(folder, final.name)
    os.makedirs(folder, exist_ok=True)
    try:
        os.mkdir(temporary)
        _write_files(temporary, checkpoint)
        _write_manifest(temporary)
        durable.sync_folder(temporary)
        durable.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    durable.sync_folder(folder)
    verify(final)
    if keep is not None:
        prune(folder, keep, checkpoint.state.get("best_step"))
    return final


def _temporary(folder, name):
    return folder / f".{name}.{uuid.uuid4().hex}.tmp"


def _write_files(folder, checkpoint):
    huggingface.save(folder, checkpoint.config, checkpoint.params, checkpoint.tokenizer.eot_id, checkpoint.beside)
    checkpoint.tokenizer.save(folder)
    durable.write_new(folder / OPTIMIZER, _optimizer_file(checkpoint))
    if "reading" in checkpoint.state:
        reading = Reading.from_fields(checkpoint.state["reading"], folder / READING)
        durable.write_new(folder / READING, [reading.to_json()])
    state = {"format": FORMAT, "step": checkpoint.step, **checkpoint.state}
    durable.write_new(folder / STATE, [json.dumps(state, indent=2).encode()])


def _optimizer_file(checkpoint):
    """A safetensors file of both moments, as buffers: the library would copy a gigabyte to write it."""
    header, start = {"__metadata__": {"format": "pt"}}, 0
    dtype = {4: "F32", 8: "F64"}[checkpoint.first.itemsize]
    for moment in _MOMENTS:
        for name, shape in table(checkpoint.config).items():
            stop = start + int(np.prod(shape)) * checkpoint.first.itemsize
            header[f"{moment}.{name}"] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
            start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, checkpoint.first, checkpoint.second]


def _write_manifest(folder):
    names = sorted(entry.name for entry in os.scandir(folder))
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of_file(folder / name)} for name in names}
    for name in names:
        durable.sync_file(folder / name)
    durable.write_new(folder / MANIFEST, [_manifest_text(files)])


def _manifest_text(files):
    """The manifest's canonical bytes. Its last field is the hash of the rest, so that any changed byte is noticed."""
    listed = json.dumps(files, sort_keys=True)
    fields = {"format": FORMAT, "files": files, "sha256": hashlib.sha256(listed.encode()).hexdigest()}
    return (json.dumps(fields, indent=2, sort_keys=True) + "\n").encode()


def prune(folder, keep, best_step=None):
    """Remove all but the ``keep`` newest checkpoints and that of ``best_step``; a half-removed one has no name."""
    for step, path in list_checkpoints(folder)[:-keep]:
        if step != best_step:
            doomed = _temporary(Path(folder), path.name)
            durable.rename(path, doomed)
            shutil.rmtree(doomed)


def remove_leftovers(folder):
    """Remove half-written files of killed processes. Only the process that holds the run's lock may call this."""
    for path in Path(folder).glob(".step-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


# ---- reading -----------------------------------------------------------------------------------------------


def list_checkpoints(folder):
    """``[(step, path)]`` of the folders named ``step-N``, by step (the files' times are ignored)."""
    folder = Path(folder)
    found = [(_NAME.fullmatch(entry.name), Path(entry.path)) for entry in os.scandir(folder)] if folder.is_dir() else []
    return sorted((int(match[1]), path) for match, path in found if match)


def verify(path):
    """Raise ``CheckpointCorrupt`` unless every file of the manifest is there, byte for byte."""
    path = Path(path)
    try:
        content = read_regular(path / MANIFEST, CheckpointCorrupt)
    except FileNotFoundError as error:
        raise CheckpointCorrupt(f"no manifest ({fault_of(error)})", path=path / MANIFEST) from None
    try:
        files = json.loads(content)["files"]
        sound = _manifest_text(files) == content and all(Path(name).name == name for name in files)
        entries = [(path / name, entry["bytes"], entry["sha256"]) for name, entry in files.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise CheckpointCorrupt("not as it was written", path=path / MANIFEST)
    for file, size, digest in entries:
        if not os.path.lexists(file):
            raise CheckpointCorrupt("missing", path=file)
        found = size_of_regular(file, CheckpointCorrupt)
        if found == size and sha256_of_file(file, CheckpointCorrupt) == digest:
            continue
        if found != size:
            raise CheckpointCorrupt("wrong size", path=file, found=f"{found} bytes", expected=f"{size} bytes")
        raise CheckpointCorrupt("other bytes than were written (SHA-256)", path=file)
    return files


def load(path):
    """The ``Checkpoint`` in ``path``, verified first.

    Raises ``CheckpointCorrupt`` for bytes that differ from those written, ``CheckpointMismatch`` for sound files that
    do not belong together.
    """
    path = Path(path)
    files = verify(path)
    for name in (huggingface.CONFIG, huggingface.WEIGHTS, OPTIMIZER, STATE):
        if name not in files:
            raise CheckpointCorrupt("not in the manifest", path=path, field=name)
    state = huggingface.read_json(path / STATE)
    if state.get("format") != FORMAT or type(state.get("step")) is not int:
        raise CheckpointMismatch(
            "not a state of this version",
            path=path / STATE,
            field="format",
            found=state.get("format"),
            expected=str(FORMAT),
        )
    with SafetensorsFile(path / huggingface.WEIGHTS) as file:
        dtype = np.float64 if any(tensor.dtype == "F64" for tensor in file.tensors.values()) else np.float32
    config, params = huggingface.load(path, dtype)
    first, second = _read_moments(path / OPTIMIZER, config, dtype)
    try:
        tokenizer = load_tokenizer(path)
    except (VocabError, OSError) as error:
        raise CheckpointMismatch(f"its tokenizer cannot be used ({error})", path=path) from None
    del state["format"]
    beside = beside_of(path, tokenizer, huggingface.GENERATION in files)
    return Checkpoint(state.pop("step"), config, params, first, second, tokenizer, state, beside)


def _read_moments(path, config, dtype):
    with SafetensorsFile(path) as file:
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        moments = []
        for moment in _MOMENTS:
            own = {name.removeprefix(moment + "."): s for name, s in shapes.items() if name.startswith(moment + ".")}
            huggingface.check_tensors(config, own, path)
            moments.append(Parameters(config, dtype))
            for name, view in moments[-1].items():
                file.read_into(f"{moment}.{name}", view)
        extra = [name for name in shapes if name.partition(".")[0] not in _MOMENTS]
        if extra:
            raise CheckpointMismatch(f"unexpected tensors: {', '.join(extra[:6])}", path=path)
    return moments[0].flat, moments[1].flat


def load_newest(folder):
    """The newest checkpoint in ``folder`` that is whole; a warning for each newer one that is not.

    ``CheckpointCorrupt`` where no checkpoint is whole: a run never starts afresh silently.
    """
    for _, path in reversed(list_checkpoints(folder)):
        try:
            return load(path)
        except CheckpointCorrupt as error:
            warnings.warn(f"{error}; trying the checkpoint before it", stacklevel=2)
    raise CheckpointCorrupt("no checkpoint to resume from", path=folder, expected="a whole step-N folder")
