"""Python texts as the kernels take them: UTF-8 in one array, and shares of similar size for the threads.

The way back is here too: the bytes of tokens, side by side.
"""

import ctypes
from typing import NamedTuple

import numpy as np

from ...errors import TokenizerError
from ..runtime.decorators import kernel
from ..runtime.vectors import read
from .bits import ENTRY_BYTES, copy_bytes, copy_entry
from .masks import BLOCK, character_starts
from .pretokenizer import cuts

_TOGETHER = 256  # texts joined at once: those without wide characters are not widened for the sake of others

_as_utf8 = ctypes.pythonapi.PyUnicode_AsUTF8AndSize
_as_utf8.argtypes = ctypes.py_object, ctypes.POINTER(ctypes.c_ssize_t)
_as_utf8.restype = ctypes.c_void_p


class Texts(NamedTuple):
    """Several texts side by side: text k is ``source[bounds[k]:bounds[k + 1]]``."""

    source: np.ndarray  # (n_bytes,) uint8, UTF-8; not to be written to
    bounds: np.ndarray  # (n_texts + 1,) int64
    owner: str | bytes  # the object whose memory ``source`` shows

    def holds(self, token):
        """Whether the str ``token`` occurs in the texts, or where two of them meet."""
        return (token if isinstance(self.owner, str) else token.encode()) in self.owner


def one_text(text):
    """A single str as ``Texts``, without a copy where its characters are all ASCII.

    CPython makes the UTF-8 of any other str once and keeps it with the str. TypeError for anything but a ``str``;
    TokenizerError, with the offset, for a lone surrogate.
    """
    if not isinstance(text, str):
        raise TypeError(f"text 0 is {type(text).__name__}; expected str")
    size = ctypes.c_ssize_t()
    try:
        address = _as_utf8(text, ctypes.byref(size))
    except UnicodeEncodeError:
        raise surrogate_error([text]) from None
    return Texts(_memory(address, size.value), np.array([0, size.value], dtype=np.int64), text)


def many_texts(texts):
    """A list of str, or a list of bytes in UTF-8, as ``Texts``.

    TypeError for anything else; TokenizerError for a lone surrogate and for what is not UTF-8. Errors name the text's
    number.
    """
    if texts and isinstance(texts[0], bytes):
        return _many_bytes(texts)
    try:
        parts = ["".join(texts[i : i + _TOGETHER]).encode() for i in range(0, len(texts), _TOGETHER)]
    except UnicodeEncodeError:
        raise surrogate_error(texts) from None
    except TypeError:
        number = next(number for number, text in enumerate(texts) if not isinstance(text, str))
        raise TypeError(f"text {number} is {type(texts[number]).__name__}; expected str") from None
    joined = b"".join(parts)
    source, bounds = _memory_of(joined), _bounds(texts)
    if bounds[-1] != len(joined):
        _to_bytes(source, bounds)
    return Texts(source, bounds, joined)


def _many_bytes(texts):
    for number, text in enumerate(texts):
        if not isinstance(text, bytes):
            raise TypeError(f"text {number} is {type(text).__name__}; expected bytes, as the first is")
    joined = b"".join(texts)
    source, bounds = _memory_of(joined), _bounds(texts)
    if not joined.isascii():
        _check_utf8(texts, joined, source[bounds[:-1][np.diff(bounds) > 0]])
    return Texts(source, bounds, joined)


def _check_utf8(texts, joined, first_bytes):
    """TokenizerError unless each text is UTF-8: all of them together, and none begins inside a character."""
    try:
        joined.decode()
        if not (first_bytes & 0xC0 == 0x80).any():
            return
    except UnicodeDecodeError:
        pass
    for number, text in enumerate(texts):
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise TokenizerError(
                "not UTF-8", field=f"text {number}", offset=error.start, found=text[error.start : error.start + 1]
            ) from None


def _bounds(texts):
    """Where each text begins and the last ends, in its own items: characters or bytes."""
    bounds = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)), out=bounds[1:])
    return bounds


def _memory_of(data):
    """The memory of ``data`` (bytes), typed as what can be written to: kernels are compiled for one type."""
    return _memory(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value, len(data))


def _memory(address, size):
    """The ``size`` bytes at ``address`` as an array."""
    if size == 0:
        return np.empty(0, dtype=np.uint8)
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=np.uint8)


@kernel(_nrt=False)
def _to_bytes(source, bounds):
    """Turn positions counted in characters, in ascending order, into positions counted in bytes."""
    characters, position, last = np.int64(0), np.int64(0), source.size - BLOCK
    for number in range(bounds.size):
        while position <= last:
            count = character_starts(source, position)
            if characters + count > bounds[number]:
                break
            characters += count
            position += BLOCK
        byte, missing = position, bounds[number] - characters
        while byte < source.size:
            missing -= source[byte] & 0xC0 != 0x80
            if missing < 0:
                break
            byte += 1
        bounds[number] = byte


@kernel(_nrt=False)
def _spelled_size(ids, starts):
    """The number of bytes of the tokens ``ids``."""
    size = np.int64(0)
    for i in range(ids.size):
        token = np.int64(ids[i])
        size += read(starts, token + 1) - read(starts, token)
    return size


@kernel(_nrt=False)
def _spell(ids, offsets, starts, spelling, data, bounds):
    """Write the bytes of the tokens ``ids`` to ``data``, and to ``bounds`` where those of each row begin and the last end.

    ``data`` has room for ENTRY_BYTES more.
    """
    at = np.int64(0)
    for row in range(offsets.size - 1):
        bounds[row] = at
        for i in range(offsets[row], offsets[row + 1]):
            token = np.int64(ids[i])
            start = read(starts, token)
            length = read(starts, token + 1) - start
            copy_entry(spelling, start, data, at)
            if length > ENTRY_BYTES:
                copy_bytes(data, at, spelling, start, length)
            at += length
    bounds[offsets.size - 1] = at


def spelled(ids, offsets, starts, spelling):
    """The bytes (n_bytes,) of the tokens ``ids``, and where those of each row begin and the last end (n_rows + 1,) int64.

    ids: integers, each the number of a token; row k has ``ids[offsets[k] : offsets[k + 1]]``, and offsets begins with 0.
    The bytes of token t are ``spelling[starts[t] : starts[t + 1]]``; behind the last, ``spelling`` has ENTRY_BYTES more.
    """
    size = _spelled_size(ids, starts)
    data, bounds = np.empty(size + ENTRY_BYTES, dtype=np.uint8), np.empty(len(offsets), dtype=np.int64)
    _spell(ids, offsets, starts, spelling, data, bounds)
    return data[:size], bounds


def surrogate_error(texts):
    """The error that names the first lone surrogate in ``texts``."""
    for number, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return TokenizerError(
                "a lone surrogate is no character and has no UTF-8",
                field=f"text {number}" if len(texts) > 1 else None,
                offset=error.start,
                found=text[error.start],
            )


def balanced(buffer, starts, stops, size, cut=True):
    """Cut long texts and gather short ones into groups of about ``size`` bytes: (starts, stops, text numbers) each.

    Texts are cut between words of GPT-2's pattern; they stay whole unless ``cut``.
    """
    too_long = np.flatnonzero(2 * (stops - starts) > 3 * size) if cut else ()
    long = {n: cuts(buffer, int(starts[n]), int(stops[n]), size) for n in too_long}
    n_pieces = np.ones(len(starts), dtype=np.int64)
    for number, positions in long.items():
        n_pieces[number] = len(positions) - 1
    owners = np.repeat(np.arange(len(starts)), n_pieces)
    starts, stops = starts[owners], stops[owners]
    for number, positions in long.items():
        first = int(np.searchsorted(owners, number))
        starts[first : first + len(positions) - 1] = positions[:-1]
        stops[first : first + len(positions) - 1] = positions[1:]
    before = np.cumsum(stops - starts) - (stops - starts)
    edges = np.flatnonzero(np.diff((before + size // 2) // size)) + 1  # pieces begin a little before multiples of size
    columns = (np.split(column, edges) for column in (starts, stops, owners))
    return list(zip(*columns, strict=True)) if len(owners) else []
