"""Best-fit packing: whole documents into rows of a fixed length, cutting as few as possible.

``concat`` cuts a document wherever a block happens to end. Best-fit packing (after Ding et al. 2024, "Fewer truncations
improve language modeling") works differently. A document longer than a row gives as many full rows as the document
fills. The rest of that document, like every shorter document, is placed whole: longest first, each into the row with
the least room that still takes it. Few or awkward lengths can leave gaps. While the gaps come to more than
``MAX_PADDING`` of all positions, the emptiest row is taken apart again to fill the largest gaps, at one cut a gap.

Every document ends with an end-of-text token. A stretch of a document that a cut separates from its end has none, so
that stretch is always the last of its row and fills the row. An end-of-text token or the row's end therefore closes
every stretch, and ``segments`` finds each boundary in the row itself.
"""

import heapq
from typing import NamedTuple

import numpy as np

from ...errors import DataError

MAX_PADDING = 0.02


class Span(NamedTuple):
    """Tokens ``start`` … ``stop`` of a document."""

    document: int
    start: int
    stop: int

    @property
    def size(self):
        return self.stop - self.start


def fit_rows(lengths, row_length, max_padding=MAX_PADDING):
    """A plan for documents of ``lengths`` tokens (none 0): list of rows, each a list of ``Span``.

    A length counts the end-of-text token that closes the document. Each token is in exactly one row, and no row has
    more than ``row_length``. Spans in a row come in the order of their documents, except that a span that does not
    reach its document's end is the last of its row and fills the row. Rows come in the order of their first document.

    Source: Ding et al. 2024. Raises DataError for a ``row_length`` below 2.
    """
    if row_length < 2:
        raise DataError("a row must hold a token and its successor", field="row_length", found=row_length)
    rows, pieces = [], []
    for document, length in enumerate(lengths):
        whole = length - length % row_length
        rows += [[Span(document, start, start + row_length)] for start in range(0, whole, row_length)]
        if whole < length:
            pieces.append(Span(document, whole, length))
    rows += _fill_gaps(_best_fit(pieces, row_length), row_length, sum(lengths), len(rows), max_padding)
    for row in rows:
        row.sort(key=lambda span: (span.stop < lengths[span.document], span))
    return sorted(rows, key=min)


def _best_fit(pieces, row_length):
    """Best-fit decreasing. ``rooms`` has bit r set while some row has room for exactly r more tokens."""
    rows, by_room, rooms = [], {}, 0
    for piece in sorted(pieces, key=lambda piece: (-piece.size, piece)):
        enough = rooms >> piece.size
        if enough:
            room = piece.size + (enough & -enough).bit_length() - 1  # the least room that is enough
            row = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            row, room = len(rows), row_length
            rows.append([])
        rows[row].append(piece)
        room -= piece.size
        by_room.setdefault(room, []).append(row)
        rooms |= 1 << room
    return rows


def _fill_gaps(rows, row_length, tokens, full_rows, max_padding):
    """Take the emptiest rows apart until the padding of all rows together is at most ``max_padding``."""
    gaps = [(sum(span.size for span in row) - row_length, number) for number, row in enumerate(rows)]
    gaps = [(gap, number) for gap, number in gaps if gap < 0]  # negative, so that a heap gives the largest first
    heapq.heapify(gaps)
    places = (full_rows + len(rows)) * row_length
    while places - tokens > max_padding * places:
        if places - tokens < row_length:  # the other rows have too little room for this row's tokens
            break
        _, emptiest = heapq.heappop(gaps)
        pieces, rows[emptiest] = rows[emptiest], []
        for piece in sorted(pieces, key=lambda piece: -piece.size):
            _place(piece, rows, gaps)
        places -= row_length
    return [row for row in rows if row]


def _place(piece, rows, gaps):
    """Put ``piece`` into the largest gap, and the rest into the next."""
    while piece.size:
        gap, row = heapq.heappop(gaps)
        taken = min(piece.size, -gap)
        rows[row].append(Span(piece.document, piece.start, piece.start + taken))
        piece = Span(piece.document, piece.start + taken, piece.stop)
        if taken < -gap:
            heapq.heappush(gaps, (gap + taken, row))


def lay_out(rows, documents, row_length, eot_id, dtype):
    """The planned rows as one 1-D array of tokens; each row is filled up with ``eot_id``.

    Raises DataError for a plan in which a document's last tokens before a cut are followed by other tokens.
    """
    tokens = np.full(len(rows) * row_length, eot_id, dtype)
    for number, row in enumerate(rows):
        position, closed = number * row_length, True
        for document, start, stop in row:
            if not closed:
                raise DataError("a stretch without an end-of-text token is not the last of its row", field="rows")
            tokens[position : position + stop - start] = documents[document][start:stop]
            position += stop - start
            closed = documents[document][stop - 1] == eot_id
        if not closed and position < (number + 1) * row_length:
            raise DataError("a stretch without an end-of-text token does not fill its row", field="rows")
    return tokens


def count_cuts(rows):
    """(documents that a plan cuts, spans beyond one for each document)."""
    spans = [span.document for row in rows for span in row]
    documents, counts = np.unique(spans, return_counts=True) if spans else (np.array([]), np.array([]))
    return int((counts > 1).sum()), len(spans) - len(documents)


def concat_cuts(lengths, block_size):
    """(documents that the policy ``concat`` cuts, block ends inside documents)."""
    ends = np.cumsum(lengths)
    inside = (ends - 1) // block_size - (ends - np.asarray(lengths)) // block_size
    return int((inside > 0).sum()), int(inside.sum())
