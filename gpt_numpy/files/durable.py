"""Durable writes: after a crash, a full disk or a kill, each file is either the whole old one or the whole new one.

A file is replaced in four steps: a temporary file beside it is written, flushed to the disk and renamed to the final
name; then the folder is flushed, because a rename changes the folder. Every operation goes through ``os``, so that
a test can make the Nth operation fail, for N = 1, 2, … until none fails any more.
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

_CHUNK = 1 << 24

# Seconds between attempts to rename. Windows refuses a rename while another process, such as a virus scanner, has the
# file open; a few moments later the same rename succeeds.
RENAME_WAITS = (0.01, 0.03, 0.1, 0.3, 1.0) if os.name == "nt" else ()


# ---- whole files -------------------------------------------------------------------------------------------


def write_file(path: str | os.PathLike, content: bytes) -> None:
    """Replace the file at ``path`` by ``content``."""
    write_durably(path, [content])


def write_durably(path: str | os.PathLike, pieces: Iterable) -> None:
    """Replace the file at ``path`` by the buffers ``pieces``, one after the other."""
    path = Path(path)
    _replace_all(path.parent, {path.name: lambda temporary: write_new(temporary, pieces)})


def write_files(folder: str | os.PathLike, files: Mapping[str, bytes]) -> None:
    """Write ``files`` (name → content) into ``folder``, which is made if missing.

    All files are on the disk before the first one gets its name, so an ``OSError`` while writing changes nothing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _replace_all(folder, {name: _writer_of(content) for name, content in files.items()})


def replace_files(folder: str | os.PathLike, writers: Mapping[str, Callable[[Path], object]]) -> None:
    """As ``write_files``, for files that a library writes: ``writers`` maps a name to a function of the path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _replace_all(folder, {name: _flushed(write) for name, write in writers.items()})


def _replace_all(folder, writers):
    suffix = f".{uuid.uuid4().hex}.tmp"
    temporary = {name: folder / f".{name}{suffix}" for name in writers}
    try:
        for name, write in writers.items():
            write(temporary[name])
        for name, path in temporary.items():
            replace(path, folder / name)
    except BaseException:
        for path in temporary.values():
            path.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def _writer_of(content):
    return lambda path: write_new(path, [content])


def _flushed(write):
    """Call ``write``; afterwards its file has a new file's usual permissions and is flushed to the disk."""

    def write_and_flush(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        permissions = os.stat(path).st_mode & 0o777
        write(path)
        os.chmod(path, permissions)  # the safetensors library lets only the owner read
        sync_file(path)

    return write_and_flush


def write_new(path: str | os.PathLike, pieces: Iterable) -> None:
    """Write the buffers ``pieces`` to ``path``, which must not exist yet, and flush them to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        for piece in pieces:
            _write_all(descriptor, piece)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: str | os.PathLike, content: bytes, size: int) -> None:
    """Append ``content`` to the file of ``size`` bytes at ``path``; after a failure, the file has ``size`` bytes again."""
    # A FIFO in the file's place is refused (ENXIO) instead of waiting for a reader.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        try:
            _write_all(descriptor, content)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


# ---- names -------------------------------------------------------------------------------------------------


def replace(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """``os.replace``, tried again where Windows refuses it for a moment."""
    _patiently(os.replace, source, target)


def rename(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """``os.rename`` of a file or a folder to a free name, tried again where Windows refuses it for a moment."""
    _patiently(os.rename, source, target)


def _patiently(operation, source, target):
    for wait in RENAME_WAITS:
        try:
            return operation(source, target)
        except PermissionError:
            time.sleep(wait)
    return operation(source, target)


# ---- down to the disk --------------------------------------------------------------------------------------


def sync_file(path: str | os.PathLike) -> None:
    """Flush a file that other code wrote."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: str | os.PathLike) -> None:
    """Flush a folder's list of names, where the system can: Windows opens no folder, some file systems flush none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # the answer of file systems that do not flush folders
            raise
    finally:
        os.close(descriptor)


def _write_all(descriptor, piece):
    view = memoryview(piece).cast("B")
    while view:
        written = os.write(descriptor, view[:_CHUNK])
        view = view[written:]
