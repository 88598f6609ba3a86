"""Streams in both directions: text from a stream of ids, and text in chunks, divided where words end.

One character may be spread over several tokens (an emoji is four bytes), so the bytes of a single
token need not be text. The decoder holds back an unfinished character until the rest has come.

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
from ..unicode.classes import seen_by_regex
from ..wording import counted
from .specials import find_specials


class StreamDecoder:
    """Decodes a stream of ids of ``tokenizer``. The joined text equals ``tokenizer.decode`` of all ids."""

    def __init__(self, tokenizer, errors: str = "replace"):
        self._decode_bytes = tokenizer.decode_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)

    def __repr__(self):
        return f"<StreamDecoder: {counted(len(self._decoder.getstate()[0]), 'byte')} held back>"

    def feed(self, ids: int | Iterable[int]) -> str:
        """The text that ``ids`` (one id or several) complete."""
        one = hasattr(ids, "__index__") and not hasattr(ids, "__len__")
        return self._decoder.decode(self._decode_bytes([ids] if one else ids))

    def finish(self) -> str:
        """The bytes that were held back, decoded (a replacement character for half a character)."""
        return self._decoder.decode(b"", final=True)


CHUNK_BYTES = 1 << 20


def read_chunks(file: BinaryIO, name: str | os.PathLike) -> Iterator[str]:
    """The text of ``file``, open for bytes, in chunks; ``DataError`` with the offset of bytes that are not UTF-8."""
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


# Positions where a word of GPT-2's pattern always ends: behind a letter that no letter follows,
# a number that no number follows, or any visible character before white space. (?r) searches from the end.
_WORD_END = regex.compile(r"(?r)(?<=\p{L})(?=\P{L})|(?<=\p{N})(?=\P{N})|(?<=\S)(?=\s)")

_COMBINING = "\u0300"  # a character below never joins with one before it


def stable_parts(
    chunks: Iterable[str], special_tokens: Collection[str] = (), normalizes: bool = False
) -> Iterator[str]:
    """The text in ``chunks``, divided where GPT-2's words end and no special token is cut.

    With ``normalizes``, also where the parts can be brought into NFC one by one.

    The tokens of the parts are the tokens of the whole text. Text after the last division waits for the next chunk. The
    time is proportional to the text, for chunks of any size and divisions at any distance.

    >>> list(stable_parts(["so", "me te", "xt"]))
    ['some', ' text']
    """
    cutter = _Cutter(special_tokens, normalizes)
    for chunk in chunks:
        if not isinstance(chunk, str):
            raise TypeError(f"a text to encode is a str, not {type(chunk).__name__}")
        part = cutter.feed(chunk)
        if part:
            yield part
    rest = cutter.rest()
    if rest:
        yield rest


class _Cutter:
    """Finds the last position where the text so far may be divided, and reads each character a few times at most."""

    def __init__(self, special_tokens, normalizes):
        self._special_tokens, self._normalizes = special_tokens, normalizes
        self._longest = max(map(len, special_tokens), default=0)
        self._done: list[str] = []  # text before ``_text``: searched, without a position to divide
        self._text = ""
        self._searched = 0  # position in ``_text`` up to which no division was found
        self._resume = 0  # position in ``_text`` from which the search for special tokens goes on
        self._spans: list[tuple[int, int]] = []  # special tokens in ``_text`` that may lie across a later position

    def rest(self) -> str:
        """What is left."""
        return "".join([*self._done, self._text])

    def feed(self, chunk: str) -> str:
        """The text up to the last position where it may be divided, as far as known after ``chunk``; "" if there is none."""
        self._text += chunk
        limit = len(self._text) - self._longest
        if limit <= self._searched:
            return ""
        self._find_specials(limit)
        cut = self._last_cut(limit)
        part = ""
        if cut:
            part = "".join([*self._done, self._text[:cut]])
            self._done.clear()
            self._drop(cut)
            limit -= cut
        self._searched = max(limit, 0)
        if self._searched > 1:  # the search looks at one character before a position
            before = self._searched - 1
            self._done.append(self._text[:before])
            self._drop(before)
            self._searched = 1
        return part

    def _drop(self, count):
        """Forget the first ``count`` characters of ``_text``."""
        self._text = self._text[count:]
        self._resume = max(self._resume - count, 0)
        self._spans = [(start - count, end - count) for start, end in self._spans if end > count]

    def _find_specials(self, limit):
        """Find the special tokens that begin before ``limit``: ``_text`` holds them, and all that they may overlap, in full."""
        if self._resume < limit:
            for match in find_specials(self._text[self._resume :], self._special_tokens):
                if self._resume + match.start() >= limit:
                    break
                self._spans.append((self._resume + match.start(), self._resume + match.end()))
            self._resume = max(limit, self._spans[-1][1] if self._spans else 0)

    def _last_cut(self, limit) -> int:
        """The last position from ``_searched`` to ``limit`` where ``_text`` may be divided; 0 if there is none."""
        seen = seen_by_regex(self._text)
        while limit > self._searched:
            # One character past the limit, because the search reads the character after a position.
            match = _WORD_END.search(seen, self._searched, limit + 1)
            if match is None or match.start() == 0:
                return 0
            if self._normalizes and self._text[match.start()] >= _COMBINING:
                limit = match.start() - 1
                continue
            inside = [span for span in self._spans if span[0] < match.start() < span[1]]
            if not inside:
                return match.start()
            limit = inside[0][0]
        return 0
