"""Compiled code on disk: files that are written whole, and checked before anything in them is used.

Each function has an index, ``NAME.nbi``, and one code file, ``NAME.KEY.nbc``, for each combination of argument types.
Every file begins with a checksum. A file that is empty, cut, changed, unreadable or of another version is therefore
noticed before it is loaded; one warning is given for the process, the function is compiled anew, and saving the new
code replaces the file. numba's own cache has no checksum: a cut file ends every later start with an exception, and a
flipped bit in machine code is executed.

Several processes may use one folder at once. A file is written under a temporary name and then renamed, the name of a
code file follows from its contents' key, and a process that loses a race compiles once more than needed.

This module knows nothing of numba: ``numba_inside`` turns compiled functions into bytes and back.
"""

import glob
import hashlib
import json
import os
import shutil
import sys
import uuid
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ...errors import GPTNumpyError
from ...files import durable
from ...files.regular import read_regular

_MAGIC = b"gpt_numpy compiled code 1\n"
_HEADER = len(_MAGIC) + hashlib.sha256().digest_size
_KERNELS = Path(__file__).parents[1]
_warned = set()


class Damaged(GPTNumpyError):
    """A file that is not what was written. The message names the file without its folder, which the warning names."""

    def __init__(self, message, *, path, found=None, expected=None):
        super().__init__(message, path=Path(path).name, found=found, expected=expected)


class Contents(NamedTuple):
    """What a folder of compiled code holds."""

    folder: Path
    functions: int  # indexes
    codes: int  # code files
    nbytes: int
    damaged: int  # files that are thrown away when they are next used


def folders():
    """The folders in which compiled code is looked for; new code goes into the first that can be written.

    ``NUMBA_CACHE_DIR`` names the one folder. Otherwise they are ``__pycache__`` beside the kernels, and the user's
    folder for caches where there is one.
    """
    own = "gpt_numpy-" + _short_hash(os.fsdecode(_KERNELS))
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return [Path(chosen).absolute() / own]
    home = _user_caches()
    return [_KERNELS / "__pycache__" / "compiled", *([home / own] if home else [])]


def _user_caches():
    """The folder in which this system keeps a user's caches; None where the user has none."""
    if sys.platform == "win32":
        path = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        path = "~/Library/Caches"
    else:
        path = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(path):  # the XDG specification: a relative path is to be ignored
            path = "~/.cache"
    path = os.path.expanduser(path)
    return Path(path) if os.path.isabs(path) else None


def warn_once(kind, message):
    """Give one warning of a kind for the process: sixty kernels share whatever is wrong with their folder."""
    if kind not in _warned:
        _warned.add(kind)
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def writable_folder():
    """The folder in which new code is kept, or None after a warning where none can be written."""
    return _writable_folder(tuple(folders()))


@cache
def _writable_folder(candidates):
    """The first of ``candidates`` in which a file can be made, or None after a warning that names them all."""
    reasons = []
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f"probe.{uuid.uuid4().hex[:16]}.tmp"
            with open(probe, "xb"):
                pass
            probe.unlink()
            return folder
        except OSError as error:
            reasons.append(f"{folder} ({error.strerror or error})")
    _warn_unwritable(" and ".join(reasons))
    return None


def _warn_unwritable(where):
    warn_once(
        "unwritable",
        f"compiled kernels cannot be kept in {where}: each process compiles them anew, which takes up to a minute; "
        "set NUMBA_CACHE_DIR to a folder with free space that can be written",
    )


def _short_hash(text):
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def seal(name, payload):
    """The bytes of the file called ``name`` that holds ``payload``."""
    return _MAGIC + hashlib.sha256(os.fsencode(name) + b"\n" + payload).digest() + payload


def unseal(name, content):
    """The payload of the file called ``name``, whose bytes are ``content``; `Damaged` if they are not as written."""
    payload = content[_HEADER:]
    if content != seal(name, payload):
        raise Damaged("other bytes than were written" if content else "empty", path=name)
    return payload


def _read(path):
    """The payload of the file at ``path``; None where there is no such file; `Damaged` where it cannot be used."""
    try:
        return unseal(path.name, read_regular(path, Damaged))
    except FileNotFoundError:
        return None


def _write(path, payload):
    """Write a file whole, or not at all."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}.tmp")
    try:
        temporary.write_bytes(seal(path.name, payload))
        if path.is_dir() and not path.is_symlink():  # a file replaces everything but a folder
            shutil.rmtree(path)
        durable.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class CodeFiles:
    """The compiled code of one function on disk.

    ``name`` is the function's, and begins the names of its files. ``version`` names the programs that made the code:
    code of another version is thrown away with a warning. ``stamp`` identifies the source text: code of another stamp
    is thrown away in silence, because an edited source is nothing to warn of.
    """

    def __init__(self, name, version, stamp):
        self.name, self.version, self.stamp = name, version, stamp

    def load(self, key):
        """The bytes that were saved under ``key``, or None where they have to be made anew."""
        for folder in folders():
            try:
                if key in (self._index(folder) or ()):
                    payload = _read(folder / self._code_name(key))
                    if payload is not None:
                        return payload
            except Damaged as error:
                self.discard(folder, error)
        return None

    def holds_any(self):
        """Whether any folder holds code of this source, for whatever argument types."""
        try:
            return any(self._index(folder) for folder in folders())
        except Damaged:
            return False

    def save(self, key, payload):
        """Keep ``payload`` under ``key``. A folder that cannot be written costs a warning, never an exception."""
        folder = writable_folder()
        if folder is None:
            return
        code = folder / self._code_name(key)
        try:
            _write(code, payload)
            keys = self._index_or_none(folder)
            index = {"version": self.version, "stamp": self.stamp, "keys": sorted({*(keys or ()), key})}
            _write(folder / f"{self.name}.nbi", json.dumps(index).encode())
            if keys is None:
                self._remove_obsolete(folder)
        except OSError as error:
            _warn_unwritable(f"{folder} ({error.strerror or error})")

    def discard(self, folder, reason):
        """Say that code in ``folder`` is not used; saving what is compiled instead replaces it."""
        warn_once("damaged", f"damaged kernels in {folder} are thrown away and compiled anew: {reason}")

    def _code_name(self, key):
        return f"{self.name}.{self._made_by()}-{_short_hash(key)}.nbc"

    def _made_by(self):
        return _short_hash(f"{self.version}\n{self.stamp}")

    def _index(self, folder):
        """The keys whose code ``folder`` holds; None where it holds none of this source."""
        path = folder / f"{self.name}.nbi"
        payload = _read(path)
        if payload is None:
            return None
        index = json.loads(payload)
        if index["version"] != self.version:
            raise Damaged(f"made by {index['version']}; this is {self.version}", path=path)
        return index["keys"] if index["stamp"] == self.stamp else None

    def _index_or_none(self, folder):
        try:
            return self._index(folder)
        except Damaged:
            return None

    def _remove_obsolete(self, folder):
        """Remove this function's code that was made by another version or from another source."""
        made_by = self._made_by()
        for path in folder.glob(f"{glob.escape(self.name)}.*.nbc"):
            function, code = path.stem.rsplit(".", 1)
            if function == self.name and code.partition("-")[0] != made_by:
                path.unlink(missing_ok=True)


def contents():
    """What each folder of compiled code holds: one `Contents` for each that exists."""
    return [_contents(folder) for folder in folders() if os.path.isdir(folder)]  # False where it may not be looked at


def _contents(folder):
    try:
        paths = [path for path in folder.iterdir() if path.suffix in (".nbi", ".nbc")]
    except OSError:  # a folder that may not be read
        paths = []
    damaged = nbytes = 0
    for path in paths:
        try:
            _read(path)
            nbytes += path.stat().st_size
        except Damaged:
            damaged += 1
        except FileNotFoundError:  # removed by another process since the folder was listed
            pass
    indexes = sum(path.suffix == ".nbi" for path in paths)
    return Contents(folder, indexes, len(paths) - indexes, nbytes, damaged)
