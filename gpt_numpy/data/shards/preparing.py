"""From a corpus of any size to a folder of shards: bounded memory, all cores, and a kill loses one shard's work.

The files are written in this order: the tokenizer; then each shard, followed by ``progress.json``, which holds the
position in the input; at the end the manifest. A folder without a manifest is unfinished. Each file appears whole or
not at all. The bytes depend only on the input, the tokenizer and the settings: neither the number of threads nor a
kill changes them.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import ConfigError, DataError
from ...files.durable import write_durably
from ...files.locking import Lock
from ...files.regular import read_regular
from ...host.processors import thread_count
from ...wording import counted
from ..text.normalizing import DEFAULT_STEPS, check_steps
from ..text.opening import STDIN, find_files
from ..text.reading import parse_separator
from ..text.special_text import DEFAULT_SPECIALS, check_specials
from .collecting import Collector, Position, shard_tokens
from .dataset import PROGRESS, TOKENIZER_FOLDER, hash_folder
from .encoding import encode_pieces, in_validation
from .manifest import MANIFEST, read_manifest, shard_dtype, shard_name, write_manifest
from .resuming import ADVICE, compare_identity, position_from_json, position_to_json, read_progress, write_progress
from .sources import hash_source, identify
from .token_files import ShardHeader, format_header

LOCK = ".lock"  # held while a process prepares data in the folder
_OWN_NAMES = re.compile(r"manifest\.json|progress\.json|tokenizer|(train|validation)-\d{5,}\.bin")
_TEMPORARY = re.compile(r"\..*\.tmp")


@dataclass(frozen=True)
class Settings:
    """The settings that, with the input and the tokenizer, decide every byte of the folder.

    split … errors    division of files into documents: see ``reading.read_pieces``
    normalize         names of normalising steps
    specials          meaning of a special token spelled out in the text: see ``special_text``
    block_size        the policy ``fit``: rows of this many inputs and one target more; None: the policy ``concat``
    shard_tokens      tokens of a shard, about
    validation_every  one of so many documents goes to validation; 0: none
    seed              draws the validation documents
    """

    split: str = "auto"
    separator: str | None = None
    text_field: str = "text"
    encoding: str = "utf-8"
    errors: str = "strict"
    normalize: tuple = DEFAULT_STEPS
    specials: str = DEFAULT_SPECIALS
    block_size: int | None = None
    shard_tokens: int = 1 << 24
    validation_every: int = 0
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "normalize", check_steps(self.normalize))
        object.__setattr__(self, "separator", parse_separator(self.separator))
        check_specials(self.specials)
        if self.block_size is not None and self.block_size < 1:
            raise ConfigError("too small", field="block_size", found=self.block_size, expected="at least 1")
        if not self.row_length < self.shard_tokens < 2**31:
            raise ConfigError(
                "out of range",
                field="shard_tokens",
                found=self.shard_tokens,
                expected=f"more than a row's {self.row_length}, less than 2**31",
            )
        if self.validation_every < 0 or self.validation_every == 1:
            raise ConfigError(
                "out of range", field="validation_every", found=self.validation_every, expected="0, or 2 and more"
            )

    @property
    def row_length(self):
        return self.block_size + 1 if self.block_size else 0

    def reading(self):
        """The arguments of ``read_pieces``."""
        return {name: getattr(self, name) for name in ("split", "separator", "text_field", "encoding", "errors")}

    def record(self):
        """As JSON."""
        return {**asdict(self), "normalize": list(self.normalize)}


def prepare(
    inputs, tokenizer, folder, settings=Settings(), *, threads=None, restart=False, on_bytes=lambda count: None
):
    """Write the tokens of ``inputs`` (see ``find_files``) into ``folder`` and return its manifest.

    Goes on where an earlier call with the same input, tokenizer and settings was killed; a folder that is
    complete is not changed. ``restart`` discards the folder's content. ``on_bytes`` is called with every stretch of
    input that was read. Raises DataError for bad input and for a folder with other content, RunLocked where another
    process prepares data in the folder.
    """
    paths = find_files(inputs)
    if tokenizer.eot_id is None:
        raise DataError("the tokenizer has no end-of-text token to put after each document", field="tokenizer")
    if settings.split == "file" and settings.validation_every > len(paths):
        raise DataError(
            f"too few documents: {counted(len(paths), 'file')}, and a file is a document",
            field="validation_every",
            found=settings.validation_every,
        )
    folder = Path(folder)
    _refuse_inside(inputs, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _clear(folder, restart)
        return _Preparation(paths, tokenizer, folder, settings).run(threads or thread_count(), on_bytes)


def _refuse_inside(inputs, folder):
    """Refuse an output folder inside an input folder, where the next call would read it as input."""
    for name in [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs:
        if os.path.isdir(name) and Path(name).resolve() in [folder.resolve(), *folder.resolve().parents]:
            raise DataError("lies inside the input", path=folder, found=str(name), expected="a folder of its own")


def _locked(folder):
    return Lock(folder / LOCK, "prepares data in this folder", remove=True)


class _Preparation:
    """One run of ``prepare``: its progress, the gathered tokens of both splits, and the writing thread."""

    def __init__(self, paths, tokenizer, folder, settings):
        self.paths, self.tokenizer, self.folder, self.settings = paths, tokenizer, folder, settings
        self.tokenizer_files = _tokenizer_files(tokenizer)
        self.identity = {
            "tokenizer_identity": tokenizer.identity,
            "vocab_size": tokenizer.n_vocab,
            "eot_id": tokenizer.eot_id,
            "row_length": settings.row_length,
            "settings": settings.record() | ({"begin_ids": begin} if (begin := tokenizer.begin_ids) else {}),
            "tokenizer": {name: hashlib.sha256(data).hexdigest() for name, data in self.tokenizer_files.items()},
        }
        self.dtype = shard_dtype(self.identity)
        self.sources = [identify(path) for path in paths]

    def run(self, threads, on_bytes):
        if (self.folder / MANIFEST).exists():
            return self._complete_already()
        if STDIN not in self.paths and (self.folder / PROGRESS).exists():
            self.totals, self.records = read_progress(self.folder, self.identity, self.sources)
        else:
            splits = ("train", "validation") if self.settings.validation_every else ("train",)
            self.totals, self.records = {split: _no_totals() for split in splits}, []
            self._begin()
        self.collectors = {
            split: Collector(self.tokenizer, self.dtype, position_from_json(totals["position"]))
            for split, totals in self.totals.items()
        }
        with ThreadPoolExecutor(1) as self.writer:  # writes one shard while the next is gathered
            self.writing = self.writer.submit(lambda: None)
            self._collect(threads, on_bytes)
            self.writing.result()
        return self._finish()

    def _begin(self):
        (self.folder / TOKENIZER_FOLDER).mkdir(exist_ok=True)
        for name, data in self.tokenizer_files.items():
            write_durably(self.folder / TOKENIZER_FOLDER / name, [data])
        self._save()

    def _save(self):
        done = min(totals["position"][0][0] for totals in self.totals.values())
        write_progress(self.folder, self.identity, self.sources, self.totals, self.records[:done])

    def _collect(self, threads, on_bytes):
        first = min(collector.position.place for collector in self.collectors.values())
        for _, size, _ in self.sources[: first.file]:
            on_bytes(size)
        pieces = encode_pieces(
            self.paths, self.tokenizer, self.settings, first, self._wanted, self.records, on_bytes, threads
        )
        # Closed here whatever happens: left to the garbage collector, it would wait for its threads wherever that runs,
        # and forever if it runs while another thread starts.
        with contextlib.closing(pieces):
            for encoded in pieces:
                split = self._split(encoded.place)
                collector = self.collectors[split]
                collector.add(encoded)
                while collector.buffered >= self.settings.shard_tokens:
                    self._shard(split)
        for split, collector in self.collectors.items():
            if collector.buffered:
                self._shard(split)

    def _split(self, place):
        drawn = in_validation(place.document, self.settings.validation_every, self.settings.seed)
        return "validation" if drawn else "train"

    def _wanted(self, place):
        return self.collectors[self._split(place)].wants(place)

    def _shard(self, split):
        """Hand the next shard of ``split`` to the writer, once the writer has written the shard before."""
        collector = self.collectors[split]
        if self.settings.row_length:
            size = collector.fitting_size(self.settings.row_length)
        else:
            size = min(collector.buffered, self.settings.shard_tokens)
        taken = collector.take(size)
        self.writing.result()
        self.writing = self.writer.submit(self._write, split, taken, collector.position)

    def _write(self, split, taken, position):
        totals = self.totals[split]
        row_length, eot_id = self.settings.row_length, self.tokenizer.eot_id
        tokens, counts = shard_tokens(taken, row_length, eot_id, self.dtype)
        header = format_header(
            ShardHeader(self.dtype, len(tokens), taken.finished, self.tokenizer.n_vocab, eot_id, row_length)
        )
        digest = hashlib.sha256(header)
        digest.update(tokens)
        name = shard_name(split, len(totals["shards"]))
        write_durably(self.folder / name, [header, tokens])
        totals["shards"].append(
            {"name": name, "tokens": len(tokens), "documents": taken.finished, "sha256": digest.hexdigest()}
        )
        added = {"tokens": len(tokens), "documents": taken.finished, "text_bytes": taken.text_bytes, **counts}
        for field, count in added.items():
            totals[field] += count
        totals["position"] = position_to_json(position)
        self._save()

    def _finish(self):
        for split, totals in self.totals.items():
            if not totals["shards"]:
                raise DataError(
                    f"the input has no document for {split}",
                    path=self.folder,
                    field="inputs",
                    expected="text" if split == "train" else "a smaller validation_every, or more documents",
                )
            del totals["position"]
        write_manifest(self.folder, {**self.identity, "inputs": self.records, "splits": self.totals})
        (self.folder / PROGRESS).unlink()
        return read_manifest(self.folder)

    def _complete_already(self):
        """The manifest of a folder that an earlier run completed from the same input."""
        path, manifest = self.folder / MANIFEST, read_manifest(self.folder)
        compare_identity(manifest, self.identity, path)
        if STDIN in self.paths or [record["name"] for record in manifest["inputs"]] != list(map(str, self.paths)):
            raise DataError("the folder was written from other inputs", path=path, expected=ADVICE)
        for record in manifest["inputs"]:
            if hash_source(record["name"]) != record["sha256"]:
                raise DataError("the input changed after the folder was written", path=record["name"], expected=ADVICE)
        (self.folder / PROGRESS).unlink(missing_ok=True)
        return manifest


def _no_totals():
    counts = ("tokens", "documents", "text_bytes", "cut_documents", "cuts", "padding")
    return {**dict.fromkeys(counts, 0), "shards": [], "position": position_to_json(Position())}


def _tokenizer_files(tokenizer):
    """Name → bytes of the files that the tokenizer saves."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        return {name: read_regular(Path(folder) / name) for name in hash_folder(folder)}


def _clear(folder, restart):
    """Remove half-written files of a killed run, and with ``restart`` all files of a preparation; refuse others."""
    for path in sorted([*folder.iterdir(), *folder.glob(f"{TOKENIZER_FOLDER}/.*")]):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink()
        elif not path.name.startswith(".") and not _OWN_NAMES.fullmatch(path.name):
            raise DataError("the folder holds something else", path=path, expected="an empty folder or token shards")
        elif restart and path.name == TOKENIZER_FOLDER:
            shutil.rmtree(path)
        elif restart and _OWN_NAMES.fullmatch(path.name):
            path.unlink()
