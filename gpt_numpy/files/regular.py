"""Files are opened for reading here, whoever made them: regular files, and links to regular files, only.

Opening a FIFO may wait for ever, reading a device such as ``/dev/zero`` never ends, and a folder or a socket has no bytes.
All of these are refused before the first byte is read. ``tests/test_house.py`` holds that no other module opens a file
that may come from elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import stat
from io import BufferedReader

from ..errors import DataError, GPTNumpyError
from ..wording import fault_of

LARGEST_WHOLE = 1 << 30  # bytes of a file that is read into memory as a whole

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
}
# A FIFO that takes the file's name between the check and the opening is opened without waiting, and then refused.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

_open = os.open  # not looked up at each call: tests that let the Nth writing operation fail replace ``os.open``


def open_regular(
    path: str | os.PathLike, error: type[GPTNumpyError] = DataError, expected: str | None = None, follow: bool = True
) -> BufferedReader:
    """The file at ``path``, opened for reading bytes.

    Raises ``error`` where ``path`` is not a regular file or cannot be opened, ``FileNotFoundError`` where nothing is there.
    expected: what the message says was expected. follow: whether ``path`` may be a symbolic link to a regular file.
    """
    try:
        _check(path, os.stat(path, follow_symlinks=follow).st_mode, error, expected)
        file = open(path, "rb", opener=_descriptor)  # noqa: SIM115 (the caller closes it)
    except FileNotFoundError:
        raise
    except OSError as failure:
        raise error(fault_of(failure), path=path) from failure
    try:
        _check(path, os.fstat(file.fileno()).st_mode, error, expected)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(
    path: str | os.PathLike,
    error: type[GPTNumpyError] = DataError,
    expected: str | None = None,
    follow: bool = True,
    limit: int = LARGEST_WHOLE,
) -> bytes:
    """The bytes of the file at ``path``; ``error`` for more than ``limit``. All else is as in ``open_regular``."""
    with open_regular(path, error, expected, follow) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise error("too large", path=path, found=f"{size:,} bytes", expected=f"at most {limit:,}")
        try:
            return file.read()
        except OSError as failure:
            raise error(fault_of(failure), path=path) from failure


def sha256_of_file(
    path: str | os.PathLike, error: type[GPTNumpyError] = DataError, expected: str | None = None, follow: bool = True
) -> str:
    """The SHA-256, in hexadecimal, of the file at ``path``. All else is as in ``open_regular``."""
    with open_regular(path, error, expected, follow) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as failure:
            raise error(fault_of(failure), path=path) from failure


def size_of_regular(
    path: str | os.PathLike, error: type[GPTNumpyError] = DataError, expected: str | None = None, follow: bool = True
) -> int:
    """The size in bytes of the file at ``path``; ``error`` where it is missing or no regular file."""
    try:
        status = os.stat(path, follow_symlinks=follow)
    except OSError as failure:
        raise error(fault_of(failure), path=path) from failure
    _check(path, status.st_mode, error, expected)
    return status.st_size


def _descriptor(path, _):
    return _open(path, _FLAGS)


def _check(path, mode, error, expected):
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a special file")
        raise error("not a regular file", path=path, found=kind, expected=expected)
