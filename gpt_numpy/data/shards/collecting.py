"""The tokens of one split, gathered until they make a shard; and where in the input each shard ended.

A shard takes a prefix of the split's remaining tokens. The end of the prefix depends on the tokens only. A killed
preparation can therefore go on after its last shard and write the same bytes as an uninterrupted one.
"""

import collections
from typing import NamedTuple

import numpy as np

from ..rows.fitting import fit_rows, lay_out
from ..text.special_text import begun_document
from .encoding import Place


class Position(NamedTuple):
    """Where a split's next shard begins: so many tokens into a piece (``begin_ids`` and its end-of-text token counted).

    ``inside`` says that the piece's document has had tokens before this piece, ``continued`` that it has had
    tokens in an earlier shard.
    """

    place: Place = Place(0, 0, 0, 0)
    tokens: int = 0
    inside: bool = False
    continued: bool = False


class _Chunk(NamedTuple):
    position: Position  # of the first token in ``tokens``
    tokens: np.ndarray
    ends: bool  # the last token is the document's end of text
    text_bytes: int  # counted with the first token of the piece; 0 where that was in an earlier shard


class Taken(NamedTuple):
    """The content of a shard: its documents (the last perhaps unfinished), and its share of the totals."""

    documents: list  # of arrays
    finished: int
    text_bytes: int
    continued: bool  # the first document began in an earlier shard
    unfinished: bool  # the last document goes on in the next shard


def shard_tokens(taken, row_length, eot_id, dtype):
    """(tokens of the shard, counts of what was cut and filled up to make rows of ``row_length``; 0: no rows)."""
    if not row_length:
        return np.concatenate(taken.documents), {"cut_documents": 0, "cuts": 0, "padding": 0}
    lengths = [len(document) for document in taken.documents]
    rows = fit_rows(lengths, row_length)
    spans = np.bincount([span.document for row in rows for span in row], minlength=len(lengths))
    cut = spans > 1
    cut[-1] |= taken.unfinished
    cut[0] &= not taken.continued  # counted in the shard it began in
    return lay_out(rows, taken.documents, row_length, eot_id, dtype), {
        "cut_documents": int(cut.sum()),
        "cuts": int(spans.sum()) - len(lengths) + taken.continued,
        "padding": len(rows) * row_length - sum(lengths),
    }


class Collector:
    """Gathers the encoded pieces of one split. ``position`` is where the next shard begins."""

    def __init__(self, tokenizer, dtype, position):
        self.position = position
        self._tokenizer, self._eot, self._dtype = tokenizer, np.array([tokenizer.eot_id], dtype), dtype
        self._chunks = collections.deque()
        self._inside = position.inside  # the current document has had tokens
        self.buffered = 0  # tokens gathered
        self._complete = 0  # those of documents that have ended

    def wants(self, place):
        """Whether the piece at ``place`` still has tokens for this split."""
        return (place.file, place.piece) >= (self.position.place.file, self.position.place.piece)

    def add(self, encoded):
        """Take in the next piece of this split.

        A document that is not empty begins with the tokenizer's ``begin_ids``, and an end-of-text token follows it.
        """
        place, last, tokens, text_bytes = encoded
        tokens = np.asarray(tokens).astype(self._dtype)
        inside = self._inside
        if not inside:
            tokens = begun_document(self._tokenizer, tokens)
        if last and (inside or len(tokens)):
            tokens = np.concatenate([tokens, self._eot])
        self._inside = not last and (inside or len(tokens) > 0)
        skipped = self.position.tokens if place == self.position.place else 0
        if len(tokens) > skipped:
            position = Position(place, skipped, inside)
            self._chunks.append(_Chunk(position, tokens[skipped:], last, 0 if skipped else text_bytes))
            self.buffered += len(tokens) - skipped
            if last:
                self._complete = self.buffered

    def fitting_size(self, row_length):
        """The tokens of all documents that have ended, and the full rows of the current one."""
        return self.buffered - (self.buffered - self._complete) % row_length

    def take(self, size):
        """Remove the first ``size`` tokens: a ``Taken``."""
        documents, parts, finished, text_bytes = [], [], 0, 0
        continued = self.position.continued
        self.buffered -= size
        self._complete = max(self._complete - size, 0)
        while size:
            chunk = self._chunks.popleft()
            count = min(size, len(chunk.tokens))
            parts.append(chunk.tokens[:count])
            text_bytes += chunk.text_bytes
            size -= count
            done = chunk.ends and count == len(chunk.tokens)
            if done:
                finished += 1
                documents.append(np.concatenate(parts))
                parts = []
            self.position = chunk.position._replace(tokens=chunk.position.tokens + count, continued=not done)
            if count < len(chunk.tokens):
                self._chunks.appendleft(_Chunk(self.position, chunk.tokens[count:], chunk.ends, 0))
        if parts:
            documents.append(np.concatenate(parts))
        return Taken(documents, finished, text_bytes, continued, bool(parts))
