"""From text to documents: by file, by line, by a separator, or one a JSON record.

A document is the unit of text for the model: an end-of-text token follows each document, and attention may be kept
within a document. With ``end_of_text``, each spelling of that token (``<|endoftext|>`` between stories) closes a
document too (see ``special_text``). Documents are read one at a time, and a long document (a whole file) in pieces, so
that memory does not grow with the corpus.

A piece ends between a letter or digit and white space, or between a line's single newline and a letter or digit.
Every pre-tokenization pattern in use starts a new token there, and no Unicode composition reaches over it, so
normalising and encoding piece by piece gives the same result as for the whole document (tests/data/test_reading.py
tests both).
"""

import json
import re
from typing import NamedTuple

from ...errors import DataError
from .corpora import builtin_corpus
from .opening import find_files, is_builtin, read_text

PIECE_CHARACTERS = 1 << 20
MAX_RECORD_CHARACTERS = 1 << 26  # of a line, a record, or a part of a file without a position to cut

# letters and digits whose every normal form begins and ends with a letter or digit (a test goes through them):
# Latin, Greek, Cyrillic, Hebrew, Arabic, kana, Han, Hangul; texts of other scripts have digits at their lines' ends
_LETTERS = (
    r"0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u013e\u0141-\u02af\u0391-\u03a1\u03a3-\u03ce\u0400-\u0481\u048a-\u052f"
    r"\u05d0-\u05ea\u0620-\u064a\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
)
# a cut is where a match ends; the second form serves scripts without spaces, whose lines end with punctuation
_CUT = re.compile(rf"[{_LETTERS}](?=[ \t\n\r])|[^\s\0-\x1f\x7f-\x9f]\n(?=[{_LETTERS}])")
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
SPLITS = ("auto", "file", "line", "separator", "json")


class Piece(NamedTuple):
    """A stretch of one document; ``last`` closes the document."""

    text: str
    last: bool


def read_documents(
    inputs, split="auto", separator=None, text_field="text", encoding="utf-8", errors="strict", end_of_text=None
):
    """Yield each document of ``inputs`` (see ``find_files``) as a str, in order. Arguments as ``read_pieces``."""
    parts = []
    for path in find_files(inputs):
        for piece in read_pieces(path, split, separator, text_field, encoding, errors, end_of_text=end_of_text):
            parts.append(piece.text)
            if piece.last:
                yield "".join(parts)
                parts.clear()


def read_pieces(
    path,
    split="auto",
    separator=None,
    text_field="text",
    encoding="utf-8",
    errors="strict",
    observe=None,
    end_of_text=None,
    whole=(),
):
    """Yield the documents of one file as ``Piece``s. ``encoding``, ``errors`` and ``observe`` as ``read_text``.

    split        ``file``: one document. ``line``: one a line (LF or CRLF ends it and is left out; empty lines are no
                 documents). ``separator``: the text between occurrences of ``separator``. ``json``: one JSON object
                 a line, its ``text_field``. ``auto``: json for .jsonl and .ndjson names, separator where one is
                 given, else file
    separator    as ``parse_separator`` reads it; a newline in it stands for LF, CRLF and CR
    end_of_text  a text that closes a document at every occurrence, and is left out; None: no such text
    whole        texts that no cut between two pieces divides

    An empty document is skipped. A built-in corpus consists of documents already. Raises DataError with path and line
    or offset.
    """
    if is_builtin(path):
        for text in builtin_corpus(path):
            if observe:
                observe(text.encode("utf-8"))
            yield from _closed_pieces([text], end_of_text)
        return
    split = _resolve_split(path, split, separator)
    chunks = read_text(path, encoding, errors, observe)
    if split == "file":
        stretches = _stretches(chunks, end_of_text) if end_of_text else _unclosed(chunks)
        yield from _pieces(stretches, path, [text for text in whole if _can_be_cut(text)])
        return
    if split == "separator":
        records = _records(chunks, parse_separator(separator), path)
    elif split == "line":
        records = (line.removesuffix("\r") for line in _records(chunks, "\n", path, _LINE_END))
    else:
        records = _json_texts(_records(chunks, "\n", path, _LINE_END), text_field, errors, path)
    yield from _closed_pieces(records, end_of_text)


def parse_separator(text):
    r"""The separator that ``text`` means: ``\n``, ``\r`` and ``\t`` written as two characters are one.

    Every separator of a setting or an argument is read by this function, so that ``'\n\n'`` in a shell, in TOML and in Python
    is the same separator. A separator without these spellings is returned unchanged. Empty or None: None.
    """
    for escape, character in ((r"\n", "\n"), (r"\r", "\r"), (r"\t", "\t")):
        text = (text or "").replace(escape, character)
    return text or None


def _resolve_split(path, split, separator):
    if split not in SPLITS:
        raise DataError("unknown way to split", field="split", found=split, expected=f"one of {', '.join(SPLITS)}")
    if split == "auto":
        split = "json" if str(path).lower().endswith(_JSON_SUFFIXES) else "separator" if separator else "file"
    if split == "separator" and not separator:
        raise DataError("splitting by a separator needs one", field="separator", found=separator)
    return split


def _closed_pieces(records, end_of_text):
    """Each of ``records``, or each of its parts between ``end_of_text``, as a document in one piece."""
    for record in records:
        for text in record.split(end_of_text) if end_of_text else (record,):
            if text:
                yield Piece(text, True)


def _unclosed(chunks):
    """(text, whether a document ends behind it) of a file that is one document."""
    for chunk in chunks:
        yield chunk, False
    yield "", True


def _stretches(chunks, end_of_text):
    """(text, whether a document ends) of a file whose documents end with ``end_of_text``, which may lie across chunks."""
    tail = ""
    for chunk in chunks:
        *closed, rest = (tail + chunk).split(end_of_text)
        for text in closed:
            yield text, True
        held = min(len(end_of_text) - 1, len(rest))
        yield rest[: len(rest) - held], False
        tail = rest[len(rest) - held :]
    yield tail, True


def _pieces(stretches, path, whole):
    """The documents in ``stretches``, cut at positions that no token and no composition crosses."""
    pending, empty, searched = "", True, 0
    for text, closed in stretches:
        pending += text
        if closed:
            if pending or not empty:
                yield Piece(pending, True)
            pending, empty, searched = "", True, 0
        if len(pending) <= PIECE_CHARACTERS:
            continue
        cut = _last_cut(pending, searched, whole)
        if cut is not None:
            yield Piece(pending[:cut], False)
            pending, empty, searched = pending[cut:], False, 0
        elif len(pending) > MAX_RECORD_CHARACTERS:
            raise DataError(f"{MAX_RECORD_CHARACTERS} characters without a word's end: this is not text", path=path)
        else:
            searched = max(len(pending) - 2 - max(map(len, whole), default=0), 0)


def _last_cut(text, searched, whole):
    """The last position in ``text`` where it may be cut, searched backwards in growing steps as far as ``searched``."""
    limit = len(text) - max(map(len, whole), default=0)  # an occurrence may continue behind the end of ``text``
    reach = 256
    while True:
        start = max(searched, len(text) - reach)
        cuts = [match.end() for match in _CUT.finditer(text, start)]
        if whole:
            cuts = [cut for cut in cuts if cut <= limit and not _divides(text, cut, whole)]
        if cuts or start == searched:
            return cuts[-1] if cuts else None
        reach *= 16


def _can_be_cut(text):
    """Whether ``text`` has a position where pieces may be cut."""
    return any(match.end() < len(text) for match in _CUT.finditer(text))


def _divides(text, cut, whole):
    return any(text.find(one, max(cut - len(one) + 1, 0), cut + len(one) - 1) >= 0 for one in whole)


_LINE_END = re.compile("\n")


def _records(chunks, separator, path, pattern=None):
    """The stretches between occurrences of ``separator``, which may lie across chunks."""
    if pattern is None:
        separator = separator.replace("\r\n", "\n")
        newline = r"(?>\r\n|\r|\n)"  # CRLF is one newline, never two
        pattern = re.compile("".join(newline if c == "\n" else re.escape(c) for c in separator))
    longest = 2 * len(separator)  # characters that an occurrence may have
    pending, tail, size, number = [], "", 0, 1
    for chunk in chunks:
        text, start = tail + chunk, 0
        for match in pattern.finditer(text):
            if match.end() == len(text) and text.endswith("\r"):
                break  # the LF of this CR may be in the next chunk
            yield "".join(pending) + text[start : match.start()]
            pending.clear()
            size, number, start = 0, number + 1, match.end()
        # an occurrence that ends in a later chunk starts at the earliest in the last ``longest`` characters
        held = max(len(text) - longest, start)
        pending.append(text[start:held])
        size += held - start
        tail = text[held:]
        if size > MAX_RECORD_CHARACTERS:
            raise DataError(
                f"document {number} is longer than {MAX_RECORD_CHARACTERS} characters",
                path=path,
                expected=f"{separator!r} between documents, or one document a file",
            )
    *records, last = pattern.split(tail)
    for record in records:
        yield "".join(pending) + record
        pending.clear()
    yield "".join(pending) + last


def _json_texts(lines, field, errors, path):
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix("\ufeff")
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not a JSON record ({error})", path=path, line=number) from error
        if not isinstance(record, dict):
            raise DataError(
                "not a JSON object", path=path, line=number, found=type(record).__name__, expected="an object"
            )
        if field not in record:
            known = ", ".join(map(str, list(record)[:8])) or "none"
            raise DataError(
                "the record lacks its text field",
                path=path,
                line=number,
                field=field,
                expected=f"--text-field NAME, with one of its fields: {known}",
            )
        yield _checked(record[field], field, errors, path, number)


def _checked(text, field, errors, path, line):
    """Check for values of JSON that are not text: other types, lone surrogates, NUL."""
    if not isinstance(text, str):
        raise DataError("the text field is not a string", path=path, line=line, field=field, found=type(text).__name__)
    if errors == "replace":
        return re.sub("[\0\ud800-\udfff]", "\ufffd", text)
    bad = re.search("[\0\ud800-\udfff]", text)
    if bad:
        raise DataError(
            f"U+{ord(bad[0]):04X} at character {bad.start()}, which text does not have",
            path=path,
            line=line,
            field=field,
            expected="text, or errors=replace",
        )
    return text
