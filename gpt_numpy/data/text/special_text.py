"""Special tokens that a training text spells out, such as ``<|endoftext|>`` between stories.

A text file can hold the spelling of a special token for two reasons. In a corpus that others prepared, the spelling
is the token: TinyStories, for example, closes every story with ``<|endoftext|>``. In prose about language models the
spelling is text. The setting ``specials`` decides:

``token``   the spelling is the token. End-of-text closes a document and is left out of the text, as ``packing`` puts
            the token after every document; any other special token becomes its id inside the document
``refuse``  a spelling is a ``DataError`` that names the file, the token and this setting
``text``    a spelling is ordinary text, and is encoded as such
"""

from __future__ import annotations

import numpy as np

from ...errors import DataError
from ...tokenizer import END_OF_TEXT
from ...tokenizer.specials import find_specials, missing_begin

SPECIALS = ("token", "refuse", "text")
DEFAULT_SPECIALS = "token"


def document_end(specials, tokenizer=None):
    """The text that closes a document for the setting ``specials``, or None: ``end_of_text`` of ``read_documents``.

    tokenizer: the tokenizer that will encode the text; None: a new one, whose token is ``END_OF_TEXT``.
    """
    check_specials(specials)
    if specials != "token":
        return None
    return END_OF_TEXT if tokenizer is None else tokenizer.end_of_text


def check_specials(specials):
    """``specials`` unchanged. Raises DataError unless it is one of ``SPECIALS``."""
    if specials not in SPECIALS:
        raise DataError("unknown choice", field="specials", found=specials, expected=f"one of {', '.join(SPECIALS)}")
    return specials


def refuse_special_text(text, special_tokens, path=None, document=None):
    """Raise DataError, with the position, where ``text`` spells out one of ``special_tokens``."""
    for match in find_specials(text, special_tokens):
        where = f"character {match.start()}" + (f" of document {document}" if document is not None else "")
        raise DataError(
            f"the text holds the special token {match.group()!r} at {where}",
            path=path,
            field="specials",
            expected="--specials token to read it as the token, or --specials text as ordinary text",
        )


def encode_documents(texts, tokenizer, specials=DEFAULT_SPECIALS, threads=None):
    """An array of ids for each of ``texts``, without an end-of-text token behind it.

    A document that is not empty has the tokenizer's ``begin_ids`` in front (``tokenizer.specials``).
    End-of-text was left out when the documents were read (see ``document_end``). A spelling that normalising made is
    ordinary text: the token would end a document that goes on.
    Raises DataError for a special token with ``specials="refuse"``.
    """
    texts = list(texts)
    if specials == "refuse":
        for number, text in enumerate(texts):
            refuse_special_text(text, tokenizer.special_tokens, document=number)
    arrays = tokenizer.encode_batch_to_arrays(
        texts, allowed_special=inner_specials(tokenizer, specials), disallowed_special=(), threads=threads
    )
    return [begun_document(tokenizer, ids) for ids in arrays]


def begun_document(tokenizer, ids):
    """The array ``ids`` of a document with the tokenizer's ``begin_ids`` in front; an empty document stays empty."""
    begin = missing_begin(tokenizer, ids) if len(ids) else []
    return np.concatenate([np.array(begin, ids.dtype), ids]) if begin else ids


def inner_specials(tokenizer, specials=DEFAULT_SPECIALS):
    """The special tokens that become their id inside a document: with ``token`` all but end-of-text."""
    return set(tokenizer.special_tokens) - {tokenizer.end_of_text} if specials == "token" else set()
