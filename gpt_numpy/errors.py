"""Every exception that gpt_numpy raises on purpose, in one place.

There are two families. Errors of bad input derive from ``ValueError`` too: the caller can mend the input.
Errors of files and processes derive from ``GPTNumpyError`` alone. A message names the file, field or offset,
then the value found and the value expected. A message is never longer than a screen:

>>> raise VocabError("id 7 appears twice", path="vocab.json", line=3)
Traceback (most recent call last):
gpt_numpy.errors.VocabError: vocab.json, line 3: id 7 appears twice

``exit_code`` is what a command returns for the error (see ``commands``): 2 for wrong usage, 3 for a bad
file, 75 for a locked run (the EX_TEMPFAIL of sysexits.h).
"""

from __future__ import annotations

_LONGEST = {"where": 400, "found": 300, "expected": 600, "message": 1600}  # characters; a terminal's screen has 1,920


def _cut(text, part):
    """``text``, without its middle where it is longer than a message has room for."""
    room = _LONGEST[part]
    return text if len(text) <= room else f"{text[: room * 2 // 3]} … {text[-(room // 3 - 3) :]}"


def _shown(value):
    try:
        return repr(value)
    except ValueError:  # Python writes no integer of more than some thousand digits
        return f"a {type(value).__name__} too long to write"


class GPTNumpyError(Exception):
    """Base of all errors of gpt_numpy. ``path``, ``line``, ``offset`` and ``field`` say where; each is kept as an attribute."""

    exit_code = 3

    def __init__(self, message, *, path=None, line=None, offset=None, field=None, found=None, expected=None):
        self.path, self.line, self.offset, self.field = path, line, offset, field
        self.found, self.expected = found, expected
        message = _cut(str(message), "message")
        where = [_cut(str(path), "where")] if path is not None else []
        if line is not None:
            where.append(f"line {line}")
        if offset is not None:
            where.append(f"offset {offset}")
        if field is not None:
            where.append(_cut(str(field), "where"))
        if found is not None:
            message += f": found {_cut(_shown(found), 'found')}"
        if expected is not None:
            message += f"{';' if found is not None else ':'} expected {_cut(str(expected), 'expected')}"
        super().__init__(_cut(f"{', '.join(where)}: {message}" if where else message, "message"))


class TokenizerError(GPTNumpyError, ValueError):
    """A text or an id that cannot be encoded or decoded."""

    exit_code = 2


class VocabError(GPTNumpyError, ValueError):
    """A vocabulary or merges file with invalid content."""


class DataError(GPTNumpyError, ValueError):
    """A corpus or a shard that cannot be read."""


class ConfigError(GPTNumpyError, ValueError):
    """A configuration value out of its range, or an unknown key."""

    exit_code = 2


class GenerationError(GPTNumpyError, ValueError):
    """A sampling parameter or prompt that generation cannot work with."""

    exit_code = 2


class ContextLengthError(GenerationError):
    """More positions than the model has."""


class CheckpointCorrupt(GPTNumpyError):
    """A checkpoint whose bytes differ from those that were written."""


class CheckpointMismatch(GPTNumpyError):
    """A sound checkpoint of another model: missing, extra or misshapen tensors."""


class ModelNotFound(GPTNumpyError, FileNotFoundError):
    """The given path holds no model, or one of the model's files is missing."""

    def __init__(self, message, path, expected=None):
        super().__init__(message, path=path, expected=expected)


class RunLocked(GPTNumpyError):
    """Another process is training in this run folder."""

    exit_code = 75


class LockUnsupported(GPTNumpyError):
    """The file system of a folder has no locks, so a second process in the folder would not be noticed."""


class NonFinite(GPTNumpyError):
    """A NaN or an infinity in a loss or a gradient; the parameters were not touched."""


class RankFailed(GPTNumpyError):
    """A rank of a distributed run raised, died or disagreed with the others."""


class KernelError(GPTNumpyError, ValueError):
    """A kernel that cannot run on this machine or with these arguments."""
