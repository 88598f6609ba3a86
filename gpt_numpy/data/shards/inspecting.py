"""The content of a token file: lengths of documents, the effect of either packing, and examples of text."""

from typing import NamedTuple

import numpy as np

from ...wording import counted
from ..rows.fitting import concat_cuts, count_cuts, fit_rows

_STRETCH = 1 << 22
_BAR = 40


class PackingReport(NamedTuple):
    """One policy's treatment of documents, for one block size."""

    blocks: int
    utilisation: float  # share of the blocks' positions that hold tokens of documents
    kept: float  # share of the documents' tokens that are in blocks
    cut_documents: int
    cuts: int
    padding: int


def document_lengths(tokens, eot_id, row_length=0):
    """Lengths (int64) of the documents in ``tokens``, end-of-text tokens included.

    With ``row_length`` a row's end is an end too and padding is left out: the lengths are those of the stretches that
    best-fit packing made. Tokens after the last end-of-text token count as a document.
    """
    ends = []
    for start in range(0, len(tokens), _STRETCH):
        ends.append(np.flatnonzero(tokens[start : start + _STRETCH] == eot_id) + start + 1)
    ends = np.concatenate([*ends, [len(tokens)]]).astype(np.int64)
    if row_length:
        row_ends = np.arange(row_length, len(tokens) + 1, row_length)
        starts = np.concatenate([[0], row_ends])
        ends = np.union1d(ends, row_ends)
        lengths = np.diff(ends, prepend=0)
        padding = (lengths == 1) & ~np.isin(ends - 1, starts)
        return lengths[(lengths > 0) & ~padding]
    return np.diff(np.unique(ends), prepend=0)[(np.unique(ends) > 0)]


def packing_reports(lengths, block_size):
    """``{"concat": PackingReport, "fit": PackingReport}`` of documents of ``lengths``."""
    total = int(np.sum(lengths))
    blocks = max(total - 1, 0) // block_size
    concat = PackingReport(
        blocks, 1.0, min(1.0, (blocks * block_size + 1) / max(total, 1)), *concat_cuts(lengths, block_size), 0
    )
    rows = fit_rows(np.asarray(lengths).tolist(), block_size + 1)
    places = len(rows) * (block_size + 1)
    return {
        "concat": concat,
        "fit": PackingReport(len(rows), total / max(places, 1), 1.0, *count_cuts(rows), places - total),
    }


def histogram_lines(lengths):
    """A histogram of ``lengths`` in text: a line for each power of two, with a bar for the share of documents."""
    exponents = np.floor(np.log2(np.maximum(lengths, 1))).astype(int)
    counts = np.bincount(exponents)
    lines = []
    for exponent in range(int(exponents.min()) if len(exponents) else 0, len(counts)):
        tokens = int(np.sum(np.asarray(lengths)[exponents == exponent]))
        bar = "#" * -(-_BAR * int(counts[exponent]) // max(int(counts.max()), 1))
        lines.append(
            f"{1 << exponent:>10,} … {(2 << exponent) - 1:<10,} {counted(counts[exponent], 'document'):>20} "
            f"{counted(tokens, 'token'):>21}  {bar}"
        )
    return lines


def examples(tokens, eot_id, decode, count, length, row_length=0):
    """The first ``length`` tokens, as text, of ``count`` documents evenly spread over ``tokens``.

    With ``row_length`` (see ``document_lengths``) an example begins with a row and does not reach into the next.
    """
    texts = []
    for number in range(count):
        start = number * len(tokens) // count
        start -= start % (row_length or 1)
        stretch = tokens[start : start + (row_length or _STRETCH)]
        ends = np.flatnonzero(stretch == eot_id)
        begin = int(ends[0]) + 1 if number and len(ends) and not row_length else 0
        body = stretch[begin : begin + length]
        stops = np.flatnonzero(body == eot_id)
        texts.append(decode(body[: stops[0] if len(stops) else None].tolist()))
    return texts
