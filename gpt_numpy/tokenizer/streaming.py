"""Streams in both directions: text from ids as they come, and text that comes in chunks cut where words end.

One character may be spread over several tokens (an emoji is four bytes), so the bytes of a token by
itself need not be text. The decoder holds back an unfinished character until the rest has come.

>>> from gpt_numpy.tokenizer import Tokenizer
>>> decoder = StreamDecoder(Tokenizer.train(["é"], 257, special_tokens=()))
>>> decoder.feed(0xC3), decoder.feed(0xA9), decoder.finish()
('', 'é', '')
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Collection, Iterable, Iterator
from typing import BinaryIO

import regex

from ..errors import DataError
from .specials import find_specials


class StreamDecoder:
    """Feeds ids of ``tokenizer`` in, gives text out; joined it is what ``tokenizer.decode`` of all ids gives."""

    def __init__(self, tokenizer, errors: str = "replace"):
        self._decode_bytes = tokenizer.decode_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)

    def feed(self, ids: int | Iterable[int]) -> str:
        """The text that ``ids`` (one id or several) complete."""
        one = hasattr(ids, "__index__") and not hasattr(ids, "__len__")
        return self._decoder.decode(self._decode_bytes([ids] if one else ids))

    def finish(self) -> str:
        """What was held back, decoded as it is (a replacement character for half a character)."""
        return self._decoder.decode(b"", final=True)


CHUNK_BYTES = 1 << 20


def read_chunks(file: BinaryIO, name: str | os.PathLike) -> Iterator[str]:
    """The text of ``file``, open for bytes, in chunks; ``DataError`` with the offset of what is no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    while True:
        data = file.read(CHUNK_BYTES)
        held = len(decoder.getstate()[0])
        try:
            yield decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise DataError(
                "not UTF-8",
                path=name,
                offset=offset - held + error.start,
                found=error.object[error.start : error.start + 1],
            ) from None
        if not data:
            return
        offset += len(data)


# Where every word of GPT-2's pattern ends, whatever comes before or after: behind a letter that no letter follows,
# a number that no number follows, or any visible character before white space. (?r) searches from the end.
_WORD_END = regex.compile(r"(?r)(?<=\p{L})(?=\P{L})|(?<=\p{N})(?=\P{N})|(?<=\S)(?=\s)")


def stable_parts(chunks: Iterable[str], special_tokens: Collection[str] = ()) -> Iterator[str]:
    """The text in ``chunks``, divided anew where GPT-2's words end and no special token is cut.

    Tokens of the parts are the tokens of the whole. What follows the last such place waits for the next chunk.

    >>> list(stable_parts(["so", "me te", "xt"]))
    ['some', ' text']
    """
    longest = max(map(len, special_tokens), default=0)
    pending, searched = "", 0
    for chunk in chunks:
        if not isinstance(chunk, str):
            raise TypeError(f"a text to encode is a str, not {type(chunk).__name__}")
        pending += chunk
        cut = _last_cut(pending, searched, len(pending) - longest, special_tokens)
        if cut:
            yield pending[:cut]
            pending = pending[cut:]
        searched = max(len(pending) - longest - 1, 0)
    if pending:
        yield pending


def _last_cut(text, searched, limit, special_tokens) -> int:
    """The last place from ``searched`` to ``limit`` where ``text`` may be divided; 0 if there is none."""
    # A special token that begins before the limit is there in full, and so are all that it may overlap.
    spans = [match.span() for match in find_specials(text, special_tokens) if match.start() < limit]
    while limit > searched:
        # One character past the limit, so that the search sees what follows it.
        match = _WORD_END.search(text, searched, limit + 1)
        if match is None or match.start() == 0:
            return 0
        inside = [span for span in spans if span[0] < match.start() < span[1]]
        if not inside:
            return match.start()
        limit = inside[0][0]
    return 0
