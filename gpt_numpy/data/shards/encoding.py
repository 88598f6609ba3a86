"""From files to tokens on all cores, in order, for ``prepare``.

The calling thread reads and cuts into documents; a pool normalises and encodes units of about a megabyte. Threads
help where the tokenizer's kernel releases the interpreter's lock. Only a few units are under way at any
time, so memory does not grow with the corpus.
"""

import collections
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from ...randomness import fold
from ..rows.packing import check_tokens
from ..text.normalizing import normalize
from ..text.reading import PIECE_CHARACTERS, read_pieces
from ..text.special_text import document_end, inner_specials, refuse_special_text
from .sources import Watch

_TEXTS_PER_UNIT = 4096


class Place(NamedTuple):
    """Numbers of a piece: its number in its file, and the documents before the file and before the piece."""

    file: int
    documents_before_file: int
    piece: int
    document: int


class EncodedPiece(NamedTuple):
    place: Place
    last: bool  # the piece closes its document
    tokens: np.ndarray  # (N,), without an end-of-text token
    text_bytes: int  # UTF-8, after normalising


def in_validation(document, every, seed):
    """Whether a document goes to validation: one of each ``every`` consecutive ones, drawn by ``seed``."""
    return bool(every) and fold(seed, document // every) % every == document % every


def encode_pieces(paths, tokenizer, settings, first, wanted, records, on_bytes, threads):
    """Yield ``EncodedPiece``s in the order of the text, from the file of the ``Place`` ``first`` on.

    ``wanted(place)`` says which pieces to encode. ``records`` gets name, bytes and SHA-256 of each file that has
    been read to its end; ``on_bytes`` is told how many bytes were read.
    """
    pieces = _read(paths, tokenizer, settings, first, wanted, records, on_bytes)
    under_way = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for unit in _units(pieces):
                under_way.append((unit, pool.submit(_encode, tokenizer, settings, unit, paths)))
                if len(under_way) > 2 * threads:
                    yield from _finished(*under_way.popleft())
            while under_way:
                yield from _finished(*under_way.popleft())
        finally:
            for _, future in under_way:
                future.cancel()


def _read(paths, tokenizer, settings, first, wanted, records, on_bytes):
    """Yield (place, text, last) of the wanted pieces."""
    documents = first.documents_before_file
    options = settings.reading()
    options.update(end_of_text=document_end(settings.specials, tokenizer), whole=tuple(tokenizer.special_tokens))
    for number, path in enumerate(paths[first.file :], first.file):
        before_file, watch = documents, Watch(path, on_bytes)
        pieces = read_pieces(path, **options, observe=watch)
        for piece_number, piece in enumerate(pieces):
            place = Place(number, before_file, piece_number, documents)
            documents += piece.last
            if wanted(place):
                yield place, piece.text, piece.last
        records.append(watch.record())


def _units(pieces):
    """Lists of consecutive pieces with about ``PIECE_CHARACTERS`` between them."""
    unit, size = [], 0
    for piece in pieces:
        unit.append(piece)
        size += len(piece[1])
        if size >= PIECE_CHARACTERS or len(unit) >= _TEXTS_PER_UNIT:
            yield unit
            unit, size = [], 0
    if unit:
        yield unit


def _encode(tokenizer, settings, unit, paths):
    """(tokens, bytes) of each text of ``unit``, on the calling thread."""
    texts = [normalize(text, settings.normalize) for _, text, _ in unit]
    sizes = [len(text) if text.isascii() else len(text.encode("utf-8")) for text in texts]
    if settings.specials == "refuse":
        for (place, _, _), text in zip(unit, texts, strict=True):
            refuse_special_text(text, tokenizer.special_tokens, paths[place.file], place.document)
    inner = inner_specials(tokenizer, settings.specials)
    if any(token in text for token in inner for text in texts):
        arrays = tokenizer.encode_batch_to_arrays(texts, allowed_special=inner, disallowed_special=(), threads=1)
    else:
        arrays = encode_texts(tokenizer, texts)
    check_tokens(np.concatenate(arrays), tokenizer.n_vocab, "tokens that the tokenizer made")
    return list(zip(arrays, sizes, strict=True))


def encode_texts(tokenizer, texts):
    """An array of tokens for each text, made on the calling thread; special tokens in the text are ordinary text."""
    return tokenizer.encode_batch_to_arrays(texts, disallowed_special=(), threads=1)


def _finished(unit, future):
    for (place, _, last), (tokens, size) in zip(unit, future.result(), strict=True):
        yield EncodedPiece(place, last, tokens, size)
