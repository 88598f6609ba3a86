"""One process at a time in a folder: a lock that the system releases when its process ends, however it ends.

The locks are those of the ``filelock`` package: ``flock`` on POSIX systems, ``msvcrt.locking`` on Windows. Some network
file systems have no such locks. There, ``GPT_NUMPY_LOCK=soft`` in the environment uses a file that names its
owner instead. A process on the same machine removes the file of an owner that has ended. A process on another machine
cannot know whether the owner has ended: there, the user has to remove the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, LockUnsupported, RunLocked
from ..wording import fault_of
from .regular import read_regular

VARIABLE = "GPT_NUMPY_LOCK"
KINDS = ("system", "soft")
# What flock reports where a file system has no locks, or where its lock service does not answer.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class Lock:
    """The lock file ``path``, held from ``acquire`` to ``release``, or inside ``with``.

    doing: what the holder does, for the message of ``RunLocked``: "is training in this folder".
    remove: whether ``release`` removes the file, where the system allows that. (A process that opened the file a moment
    before is then refused although no process holds the lock any more.)
    """

    def __init__(self, path: str | os.PathLike, doing: str, remove: bool = False):
        self.path, self.doing, self.remove = Path(path), doing, remove
        self._lock: Any = None

    def acquire(self) -> None:
        """Take the lock, or raise ``RunLocked`` at once. ``LockUnsupported`` where the file system has no locks."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where Python has no fcntl, the package says that only soft locks are left
            import filelock

        kind = os.environ.get(VARIABLE) or KINDS[0]
        if kind not in KINDS:
            raise ConfigError("unknown kind of lock", field=VARIABLE, found=kind, expected=" or ".join(KINDS))
        soft = kind == "soft" or filelock.FileLock is filelock.SoftFileLock
        if soft:
            lock = filelock.SoftFileLock(f"{self.path}.soft", timeout=0, thread_local=False)
        else:
            lock = filelock.FileLock(self.path, timeout=0, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise RunLocked(f"{self._holder()} {self.doing}", path=self.path.parent) from None
        except OSError as error:
            if soft or error.errno not in _UNSUPPORTED:
                raise
            raise LockUnsupported(
                f"the file system of this folder has no locks ({fault_of(error)}): two processes in it at a time "
                "would destroy each other's files",
                path=self.path.parent,
                expected=f"a folder on another file system, or {VARIABLE}=soft in the environment and care",
            ) from error
        self._lock = lock
        if not soft:
            self._name_holder(f"process {os.getpid()}\n")

    def release(self) -> None:
        """Let go of the lock."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if self.remove:
            with contextlib.suppress(OSError):  # Windows does not remove an open file
                self.path.unlink(missing_ok=True)
        lock.release()

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *_):
        self.release()

    def _holder(self):
        try:
            return read_regular(self.path).decode("utf-8", "replace").strip()[:64] or "another process"
        except (OSError, DataError):  # Windows does not allow reading a locked file
            return "another process"

    def _name_holder(self, text):
        try:
            with open(self.path, "r+", encoding="utf-8") as file:
                file.write(text)
                file.truncate()
        except OSError:
            pass  # the name serves only the error message; Windows does not allow writing to a locked file
