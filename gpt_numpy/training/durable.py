"""Every write that a run has to be able to rely on, and nothing else that writes.

A file is replaced by writing a temporary one beside it, flushing that to the disk and renaming it; the folder is
flushed too, because a rename is a change of the folder. All go through ``os``, so that a test can make the
Nth operation fail, for N = 1, 2, … until nothing fails any more.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

_CHUNK = 1 << 24


def write_file(path, content):
    """Put ``content`` (bytes) at ``path``: afterwards the old file or the new one is there, whole."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write_new(temporary, [content])
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_new(path, pieces):
    """Write the buffers ``pieces`` one after the other to ``path``, which must not exist yet, down to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for piece in pieces:
            _write_all(descriptor, piece)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path, content, size):
    """Append ``content`` to the file of ``size`` bytes at ``path``; if that fails, the file is ``size`` long again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        try:
            _write_all(descriptor, content)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def sync_file(path):
    """Flush a file that somebody else wrote."""
    _sync(path, os.O_RDWR)


def sync_folder(path):
    """Flush a folder's list of names."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(path, os.O_RDONLY)


def _sync(path, flags):
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor, piece):
    view = memoryview(piece).cast("B")
    while view:
        written = os.write(descriptor, view[:_CHUNK])
        view = view[written:]
