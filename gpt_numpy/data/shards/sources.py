"""The identity of an input, by which a resumed preparation or a complete folder recognises it."""

import hashlib
import os

from ...errors import DataError
from ...files.regular import sha256_of_file
from ..text.corpora import builtin_corpus
from ..text.opening import STDIN, is_builtin


def identify(path):
    """Name, size in bytes and time of change of an input, found without reading it."""
    if path == STDIN:
        return [path, 0, 0]
    if is_builtin(path):
        return [path, sum(len(text.encode("utf-8")) for text in builtin_corpus(path)), 0]
    status = os.stat(path)
    return [str(path), status.st_size, status.st_mtime_ns]


def hash_source(path):
    """The SHA-256 of an input's bytes: of a file, or of a built-in corpus."""
    if is_builtin(path):
        return hashlib.sha256("".join(builtin_corpus(path)).encode("utf-8")).hexdigest()
    return sha256_of_file(path)


class Watch:
    """Receives the bytes of an input as they are read (``observe`` of ``read_pieces``), and hashes them."""

    def __init__(self, path, on_bytes):
        self._path, self._on_bytes = path, on_bytes
        self._hash, self._bytes = hashlib.sha256(), 0
        self._size = identify(path)[1] if path != STDIN else None

    def __call__(self, data):
        self._hash.update(data)
        self._bytes += len(data)
        if self._size is not None and self._bytes > self._size:
            self._changed()
        self._on_bytes(len(data))

    def record(self):
        """Name, bytes and SHA-256. Raises DataError where the file shrank while it was read (or grew: at once)."""
        if self._size not in (None, self._bytes):
            self._changed()
        return {"name": str(self._path), "bytes": self._bytes, "sha256": self._hash.hexdigest()}

    def _changed(self):
        raise DataError(
            "the file changed while it was read",
            path=self._path,
            found=f"{self._bytes} bytes",
            expected=f"{self._size}",
        )
