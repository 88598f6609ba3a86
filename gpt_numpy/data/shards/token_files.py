"""Files of tokens: llm.c's ``.bin`` (also our shards), nanoGPT's ``.bin``, and several of them as one array.

llm.c writes 256 int32 words and then the tokens. Words 0–2 are magic number, version and the number of tokens
(uint16 and uint32 tokens have a magic number each); the rest is unused. Our shards are such files with words
3–6 used for the number of documents that end in the shard, the vocabulary, the end-of-text token and
the row length (0 where documents flow across rows), and llm.c reads such files too. nanoGPT writes tokens only.

A shard holds fewer than 2³¹ tokens, little-endian. Files are mapped, not loaded.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import DataError
from ...files.regular import open_regular, size_of_regular
from ..rows.packing import check_tokens

HEADER_BYTES = 1024
_FORMATS = {20240520: (1, np.dtype("<u2")), 20240801: (7, np.dtype("<u4"))}  # magic → (version, dtype)


class ShardHeader(NamedTuple):
    """The first words of a shard."""

    dtype: np.dtype
    n_tokens: int
    n_documents: int
    vocab_size: int
    eot_id: int
    row_length: int


def format_header(header):
    """The 1024 bytes of ``header``."""
    magic, version = next((magic, version) for magic, (version, dtype) in _FORMATS.items() if dtype == header.dtype)
    words = np.zeros(256, "<i4")
    words[:7] = (magic, version, *header[1:])
    return words.tobytes()


def read_header(path, follow=False):
    """The ``ShardHeader`` of a shard or an llm.c file, checked against the file's size; None for a headerless file.

    Raises DataError for an unknown version, a size that does not agree, or a path that is not a regular file. A symbolic
    link is followed only with ``follow``.
    """
    size = size_of_regular(path, follow=follow)
    with open_regular(path, follow=follow) as file:
        head = file.read(HEADER_BYTES)
    if len(head) < 4 or int.from_bytes(head[:4], "little") not in _FORMATS:
        return None
    if len(head) < HEADER_BYTES:
        raise DataError("the header is cut short", path=path, found=f"{len(head)} bytes", expected=f"{HEADER_BYTES}")
    words = np.frombuffer(head, "<i4").tolist()
    version, dtype = _FORMATS[words[0]]
    if words[1] != version:
        raise DataError("unknown version of a token file", path=path, offset=4, found=words[1], expected=version)
    expected = HEADER_BYTES + words[2] * dtype.itemsize
    if words[2] < 0 or size != expected:
        raise DataError(
            f"the header promises {words[2]} tokens",
            path=path,
            offset=8,
            found=f"a file of {size} bytes",
            expected=f"{expected} bytes",
        )
    return ShardHeader(dtype, *words[2:7])


def read_token_file(path, vocab_size, dtype=np.uint16):
    """Tokens (N,) of an llm.c or a nanoGPT ``.bin`` file, mapped; each checked to be below ``vocab_size``.

    ``dtype`` is for nanoGPT's files, which do not name their type; llm.c's do. A symbolic link is followed. Raises DataError
    unless the file is a regular file of one or more whole tokens.
    """
    header = read_header(path, follow=True)
    if header is None:
        dtype, offset = np.dtype(dtype).newbyteorder("<"), 0
        if size_of_regular(path) % dtype.itemsize:
            raise DataError(
                f"not whole {dtype.name} tokens",
                path=path,
                found=f"{size_of_regular(path)} bytes",
                expected="an even number of bytes, or another dtype" if dtype.itemsize == 2 else "another dtype",
            )
    else:
        dtype, offset = header.dtype, HEADER_BYTES
    tokens = map_tokens(path, dtype, offset)
    if not len(tokens):
        raise DataError("the file has no tokens", path=path, found=f"{size_of_regular(path)} bytes")
    check_tokens(tokens, vocab_size, str(path))
    return tokens


def map_tokens(path, dtype, offset):
    """Tokens (N,) mapped read-only; an empty file gives an empty array, which ``memmap`` alone would refuse."""
    count = (size_of_regular(path) - offset) // dtype.itemsize
    if not count:
        return np.empty(0, dtype)
    with open_regular(path) as file:
        return np.asarray(np.memmap(file, dtype, "r", offset, (count,)))  # a plain array: a memmap's slices are slow


class JoinedTokens:
    """Several arrays of tokens read as one: ``len``, slices, and windows by their starts."""

    def __init__(self, arrays):
        self.arrays = list(arrays)
        self.dtype = self.arrays[0].dtype
        self._ends = np.cumsum([len(array) for array in self.arrays])
        self._starts = [0, *self._ends.tolist()]

    def __len__(self):
        return self._starts[-1]

    def __getitem__(self, places):
        """The tokens of a slice of step 1, as an array."""
        start, stop, step = places.indices(len(self))
        if step != 1:
            raise IndexError("tokens are read in slices of step 1")
        return self._read(start, max(stop - start, 0), int(np.searchsorted(self._ends, start, side="right")))

    def part(self, start, stop):
        """Tokens ``start`` … ``stop`` as ``JoinedTokens``, not copied; 0 <= start < stop <= len."""
        arrays = []
        for array, first in zip(self.arrays, self._starts):
            piece = array[max(start - first, 0) : max(stop - first, 0)]
            if len(piece):
                arrays.append(piece)
        return JoinedTokens(arrays)

    def windows(self, starts, length):
        """(len(starts), length): the ``length`` tokens from each of ``starts`` on."""
        starts = np.asarray(starts)
        out = np.empty((len(starts), length), self.dtype)
        shards = np.searchsorted(self._ends, starts, side="right").tolist()
        for row, (start, shard) in enumerate(zip(starts.tolist(), shards, strict=True)):
            out[row] = self._read(start, length, shard)
        return out

    def _read(self, start, length, shard):
        if start + length > len(self):
            raise IndexError("past the last token")
        parts = []
        while length > 0:
            place = start - self._starts[shard]
            parts.append(self.arrays[shard][place : place + length])
            start, length, shard = start + len(parts[-1]), length - len(parts[-1]), shard + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, self.dtype)])


def join_token_files(paths, vocab_size, dtype=np.uint16):
    """The tokens of several ``read_token_file``s as one, in the order given (llm.c's shards, nanoGPT's train.bin)."""
    return JoinedTokens([read_token_file(Path(path), vocab_size, dtype) for path in paths])
