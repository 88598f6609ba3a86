"""Files that are whole or as they were: several are written under temporary names, then take their places."""

import os
import secrets
from pathlib import Path


def replace_files(folder, writers):
    """Write files into ``folder``, made if missing: ``writers`` maps a name to a function of the path to write to.

    All are complete on the disk before the first takes its place, so a failure leaves what was there before.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    suffix = f".{secrets.token_hex(4)}.tmp"
    temporary = {name: folder / (name + suffix) for name in writers}
    try:
        for name, write in writers.items():
            write(temporary[name])
            os.chmod(temporary[name], 0o666 & ~_umask())  # the safetensors library allows the owner alone to read
            sync(temporary[name])
        for name, path in temporary.items():
            os.replace(path, folder / name)
    except BaseException:
        for path in temporary.values():
            path.unlink(missing_ok=True)
        raise
    sync(folder)


def sync(path):
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
