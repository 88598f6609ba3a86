"""Recording which launches a stretch of Python code makes, and whether they are all that it does to arrays.

Launchers note their launches here (``threads``); code that changes or copies an array by other means says so with
`not_only_launches`. What was recorded as a whole may be done again without the Python code: ``remembering`` does.
"""

import contextlib
import threading

_recordings: dict[int, "Recording"] = {}  # Python thread → what it records


class Recording:
    """Launches in order, and whether they are the whole of what was done to arrays."""

    def __init__(self):
        self.launches, self.whole = [], True


@contextlib.contextmanager
def recording():
    """Record the launches of this Python thread in the ``Recording`` that it yields, and in none that is open already."""
    mine = threading.get_ident()
    before, _recordings[mine] = _recordings.get(mine), Recording()
    try:
        yield _recordings[mine]
    finally:
        del _recordings[mine]
        if before is not None:
            _recordings[mine] = before


def wanted():
    """Whether this Python thread records."""
    return bool(_recordings) and threading.get_ident() in _recordings


def note(launch):
    """Add a launch to the recording of this Python thread."""
    _recordings[threading.get_ident()].launches.append(launch)


def not_only_launches():
    """Say that the calling code changes or copies arrays by other means, so that what is recorded is not whole."""
    if wanted():
        _recordings[threading.get_ident()].whole = False
