"""A folder that ``gpt-numpy data prepare`` wrote, opened for training.

Opening verifies: every shard is hashed and every token compared with the vocabulary, so that a flipped bit is an error
that names its shard. ``verify=False`` skips these checks for corpora too large to read at
every start; names, sizes and headers are always checked.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...files.regular import sha256_of_file
from ..rows.packing import check_tokens
from .manifest import MANIFEST, read_manifest, shard_dtype
from .token_files import HEADER_BYTES, JoinedTokens, ShardHeader, map_tokens, read_header

TOKENIZER_FOLDER = "tokenizer"
PROGRESS = "progress.json"  # file of an unfinished preparation


@dataclass(frozen=True)
class TokenDataset:
    """``train`` and ``validation`` (or None) are ``JoinedTokens``, to be given to ``batch``, ``epoch_batch`` and
    ``validation_windows``; ``tokenizer`` is the folder of the tokenizer that wrote them."""

    folder: Path
    manifest: dict
    train: JoinedTokens
    validation: JoinedTokens | None

    @property
    def vocab_size(self) -> int:
        return self.manifest["vocab_size"]

    @property
    def eot_id(self) -> int:
        return self.manifest["eot_id"]

    @property
    def row_length(self) -> int:
        """Tokens of the rows that documents were fitted into; 0: documents flow across rows."""
        return self.manifest["row_length"]

    @property
    def tokenizer(self):
        return self.folder / TOKENIZER_FOLDER

    @property
    def sha256(self) -> str:
        """The identity of the dataset: the manifest's hash, which covers the hash of every file. A resumed run
        compares this hash with that of its start."""
        return self.manifest["sha256"]

    def divided(self, validation_fraction):
        """(training, validation) tokens: the two splits, or where there is one split its beginning and its end.

        The end is about ``validation_fraction`` of the tokens. It begins with a document, or with a row where documents
        were fitted into rows; a document that is longer than a tenth of it is cut. Raises DataError where
        either side would be empty.
        """
        if self.validation is not None:
            return self.train, self.validation
        size = len(self.train)
        wanted = int((1 - validation_fraction) * size)
        if self.row_length:
            cut = wanted - wanted % self.row_length
        else:
            near = max(wanted - (size - wanted) // 10, 0)
            ends = np.flatnonzero(self.train[near:wanted] == self.eot_id)
            cut = near + int(ends[-1]) + 1 if len(ends) else wanted
        if not 0 < cut < size:
            raise DataError(
                "the folder has no validation split, and none can be held out",
                path=self.folder,
                field="validation_fraction",
                found=validation_fraction,
                expected="more tokens, or a folder prepared with --validation-every",
            )
        return self.train.part(0, cut), self.train.part(cut, size)

    def stride(self, block_size: int) -> int:
        """The ``stride`` for ``epoch_batch``. Raises DataError where rows were packed for another block size."""
        row_length = self.row_length
        if row_length and row_length != block_size + 1:
            raise DataError(
                "documents were fitted into rows for another block size",
                path=self.folder,
                field="block_size",
                found=block_size,
                expected=row_length - 1,
            )
        return row_length or block_size


def open_dataset(folder: str | os.PathLike, verify: bool = True) -> TokenDataset:
    """Open the ``TokenDataset`` in ``folder``. Raises DataError naming the file and field at fault."""
    folder = Path(folder)
    if not os.path.lexists(folder / MANIFEST) and (folder / PROGRESS).exists():
        raise DataError("its preparation has not come to its end: run it again to go on", path=folder)
    if not folder.is_dir():
        raise DataError("there is no such folder", path=folder)
    if not os.path.lexists(folder / MANIFEST):
        raise DataError(
            "not a prepared folder", path=folder, expected=f"{MANIFEST}, which 'gpt-numpy data prepare' writes"
        )
    manifest = read_manifest(folder)
    _check_entries(folder, manifest)
    splits = {}
    for split, record in manifest["splits"].items():
        arrays = [_open_shard(folder / shard["name"], shard, manifest, verify) for shard in record["shards"]]
        splits[split] = JoinedTokens(arrays)
    if verify:
        for name, digest in manifest["tokenizer"].items():
            check_hash(folder / TOKENIZER_FOLDER / name, digest)
    return TokenDataset(folder, manifest, splits["train"], splits.get("validation"))


def _check_entries(folder, manifest):
    """Check that no file is missing or extra; hidden files are ignored."""
    shards = {shard["name"] for record in manifest["splits"].values() for shard in record["shards"]}
    found = {name for name in os.listdir(folder) if not name.startswith(".")}
    expected = {MANIFEST, TOKENIZER_FOLDER, *shards}
    for name in sorted(found ^ expected):
        state = "is not named in the manifest" if name in found else "is missing"
        raise DataError(state, path=folder / name)
    if not stat.S_ISDIR(os.lstat(folder / TOKENIZER_FOLDER).st_mode):
        raise DataError("is not a folder", path=folder / TOKENIZER_FOLDER)
    found = {name for name in os.listdir(folder / TOKENIZER_FOLDER) if not name.startswith(".")}
    for name in sorted(found ^ set(manifest["tokenizer"])):
        state = "is not named in the manifest" if name in found else "is missing"
        raise DataError(state, path=folder / TOKENIZER_FOLDER / name)


def _open_shard(path, shard, manifest, verify):
    header = read_header(path)
    expected = ShardHeader(
        shard_dtype(manifest),
        shard["tokens"],
        shard["documents"],
        manifest["vocab_size"],
        manifest["eot_id"],
        manifest["row_length"],
    )
    if header != expected:
        raise DataError("the header is not the one in the manifest", path=path, found=header, expected=expected)
    if verify:
        check_hash(path, shard["sha256"])
    tokens = map_tokens(path, header.dtype, HEADER_BYTES)
    if verify:
        check_tokens(tokens, header.vocab_size, str(path))
    return tokens


def hash_folder(folder):
    """File name → SHA-256 of the files in ``folder`` that are not hidden."""
    return {path.name: sha256_of_file(path) for path in sorted(Path(folder).iterdir()) if not path.name.startswith(".")}


def check_hash(path, expected):
    """Raise DataError where the file ``path`` is missing or its SHA-256 is not ``expected``."""
    if not os.path.lexists(path):
        raise DataError("is missing", path=path)
    digest = sha256_of_file(path, follow=False)
    if digest != expected:
        raise DataError("its bytes are not the ones that were written", path=path, found=digest, expected=expected)
