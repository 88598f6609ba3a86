"""Text from ids as they come, without ever cutting a character.

One character may be spread over several tokens (an emoji is four bytes), so the bytes of a token by
itself need not be text. The decoder holds back an unfinished character until the rest has come.

>>> from gpt_numpy.tokenizer import Tokenizer
>>> decoder = StreamDecoder(Tokenizer.train(["é"], 257, special_tokens=()))
>>> decoder.feed(0xC3), decoder.feed(0xA9), decoder.finish()
('', 'é', '')
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable


class StreamDecoder:
    """Feeds ids of ``tokenizer`` in, gives text out; joined it is what ``tokenizer.decode`` of all ids gives."""

    def __init__(self, tokenizer, errors: str = "replace"):
        self._decode_bytes = tokenizer.decode_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)

    def feed(self, ids: int | Iterable[int]) -> str:
        """The text that ``ids`` (one id or several) complete."""
        ids = [ids] if hasattr(ids, "__index__") and not hasattr(ids, "__len__") else ids
        return self._decoder.decode(self._decode_bytes(ids))

    def finish(self) -> str:
        """What was held back, decoded as it is (a replacement character for half a character)."""
        return self._decoder.decode(b"", final=True)
