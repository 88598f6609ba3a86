"""Numbers and system errors in words: ``1 document``, ``4.14 GB``, ``3 min 20 s``, full disks."""

from __future__ import annotations

import errno

_FAULTS = {
    errno.ENOENT: "there is no such file or folder",
    errno.EACCES: "there is no permission to use this",
    errno.EPERM: "there is no permission to use this",
    errno.EEXIST: "a file or folder of this name exists already",
    errno.ENOTDIR: "a part of this path is not a folder",
    errno.EISDIR: "this is a folder, not a file",
    errno.ENOSPC: "the disk is full",
    errno.EROFS: "this disk is read-only",
    errno.ENAMETOOLONG: "this name is too long",
    errno.ENOTEMPTY: "this folder is not empty",
    errno.EMFILE: "this process has too many files open",
    errno.EIO: "the disk reports an error",
}


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 document``, ``1,234 documents``; ``plural`` for a noun whose plural is not the noun with an s.

    >>> counted(1, "document"), counted(2000, "document"), counted(0, "entry", "entries")
    ('1 document', '2,000 documents', '0 entries')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def in_bytes(number: float) -> str:
    """A number of bytes with a unit: three digits, powers of 1000.

    >>> in_bytes(999), in_bytes(4_141_534_252)
    ('999 bytes', '4.14 GB')
    """
    if number < 1000:
        return counted(int(number), "byte")
    return f"{_three_digits(number)}B"


def large(number: float) -> str:
    """A large number with a unit of the SI: three digits.

    >>> large(124_439_808), large(29_317), large(950)
    ('124 M', '29.3 k', '950')
    """
    return f"{number:g}" if number < 1000 else _three_digits(number).rstrip()


def in_time(seconds: float) -> str:
    """A time with the two units that matter.

    >>> in_time(0.25), in_time(41), in_time(200), in_time(209_000)
    ('0.25 s', '41 s', '3 min 20 s', '2 days 10 h')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min" + (f" {seconds % 60} s" if seconds % 60 else "")
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    hours = round(minutes / 60)
    return counted(hours // 24, "day") + (f" {hours % 24} h" if hours % 24 else "")


def fault_of(error: OSError) -> str:
    """What is wrong, in words, without the path and the system's number.

    >>> fault_of(FileNotFoundError(2, "No such file or directory", "notes.txt"))
    'there is no such file or folder'
    """
    return _FAULTS.get(error.errno or 0) or (error.strerror or str(error) or type(error).__name__)


def in_words(error: OSError) -> str:
    """One sentence for an ``OSError``: the path and what is wrong with it, without the system's number.

    >>> in_words(FileNotFoundError(2, "No such file or directory", "notes.txt"))
    'notes.txt: there is no such file or folder'
    """
    fault = fault_of(error)
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' → '.join(names)}: {fault}" if names else fault


def _three_digits(number: float) -> str:
    for unit in ("", "k", "M", "G", "T", "P"):
        if number < 999.5 or unit == "P":
            digits = 0 if number >= 99.95 else 1 if number >= 9.995 else 2
            return f"{number:.{digits}f} {unit}"
        number /= 1000
    raise AssertionError("unreachable")
