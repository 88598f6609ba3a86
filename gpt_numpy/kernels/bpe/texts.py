"""Python strings as the kernels take them: one UTF-8 buffer, and shares of similar size for the threads."""

import numpy as np

from ...errors import TokenizerError
from .bits import PAD
from .pretokenizer import cuts

_SLICE = 1 << 16  # characters; a slice without wide characters is narrow, and quicker to encode than the whole text


def utf8_buffer(texts):
    """Several texts in one buffer: (buffer, starts, stops), every text followed by a zero byte and all by PAD of them.

    TypeError for anything but ``str``; TokenizerError, with text and offset, for a lone surrogate.
    """
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {number} is {type(text).__name__}; expected str")
    try:
        encoded = [_utf8(text) for text in texts]
    except UnicodeEncodeError:
        raise surrogate_error(texts) from None
    sizes = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    stops = np.cumsum(sizes + 1) - 1
    encoded.append(bytes(PAD))
    return np.frombuffer(bytearray(b"\0").join(encoded), dtype=np.uint8), stops - sizes, stops


def _utf8(text):
    if len(text) <= _SLICE or text.isascii():
        return text.encode()
    return b"".join([text[i : i + _SLICE].encode() for i in range(0, len(text), _SLICE)])


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


def balanced(buffer, starts, stops, size):
    """Cut long texts and gather short ones into groups of about ``size`` bytes: (starts, stops, text numbers) each."""
    too_long = np.flatnonzero(2 * (stops - starts) > 3 * size)
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
    edges = np.flatnonzero(np.diff(before // size)) + 1
    columns = (np.split(column, edges) for column in (starts, stops, owners))
    return list(zip(*columns, strict=True)) if len(owners) else []
