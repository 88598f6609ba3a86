"""Writing several files into a folder so that a kill or a full disk leaves no half-written one.

Every file is written and flushed under a temporary name first; only when all of them are on the disk
are they renamed, one after the other, to their own names.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path


def write_files(folder: str | os.PathLike, files: Mapping[str, bytes]) -> None:
    """Write ``files`` (name → content) into ``folder``, made if missing. ``OSError`` leaves old files as they were."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    suffix = f".{uuid.uuid4().hex}.tmp"
    temporary = {name: folder / f".{name}{suffix}" for name in files}
    try:
        for name, content in files.items():
            with open(temporary[name], "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name in files:
            os.replace(temporary[name], folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened to be flushed
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
