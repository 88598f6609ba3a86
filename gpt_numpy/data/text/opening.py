"""From names on a command line to text: finding the files, opening them, decoding their bytes.

Bytes are decoded unchanged: no newline is translated and nothing is dropped. (``normalizing`` changes text, by steps
that are chosen and recorded.) Bytes that are not text are refused with the file and the offset, because a corpus with
a gzip file or a UTF-16 file read as text would train a model without any error.
Files are read in chunks, so a file may be larger than memory.
"""

import codecs
import glob
import gzip
import os
import re
import sys
import zlib

from ...errors import DataError
from ...files.regular import open_regular, size_of_regular
from ...wording import fault_of
from .corpora import BUILTIN_CORPORA

STDIN = "-"
_EXPECTED = "a file (or - for standard input)"
CHUNK_BYTES = 1 << 20

# suffixes of the files that are read from a folder; a file named by itself or by a glob may have any suffix
TEXT_SUFFIXES = frozenset(
    ".txt .text .md .markdown .rst .tex .html .csv .tsv .jsonl .ndjson .py .pyi .pyx .c .h .cc .cpp .hpp .rs .go .java"
    " .js .ts .rb .sh .sql .toml .yaml .yml .ini .cfg .css .xml".split()
)

_SHARD = re.compile(r"(train|validation)-\d{5,}\.bin")
_OTHER_HALF = {"merges.txt": "vocab.json", "vocab.bpe": "encoder.json"}  # of a tokenizer: not text
_SIGNS_OF_A_RUN = {"config.toml", "environment.json"}  # both are in every folder that `train` wrote
_OF_A_RUN = {"config.toml", "metrics.jsonl", "samples.txt", "checkpoints"}

_SIGNATURES = {
    b"\x1f\x8b": "gzip data (name it .gz to have it decompressed)",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "zstandard data",
    b"\xfd7zXZ\x00": "xz data",
    b"\xff\xfe": "UTF-16 or UTF-32 text (choose the encoding)",
    b"\xfe\xff": "UTF-16 text (choose the encoding)",
    b"\x00\x00\xfe\xff": "UTF-32 text (choose the encoding)",
    b"\x7fELF": "a program",
    b"\x89PNG": "a picture",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "model weights",
}


def find_files(inputs):
    """The files that ``inputs`` names, in the order given; a folder's and a glob's in sorted order.

    An input is a file, a folder (searched recursively for ``TEXT_SUFFIXES``, also with ``.gz`` after them; hidden
    files and folders are skipped, and so are ``merges.txt`` and ``vocab.bpe`` beside a tokenizer's other file and what
    a training run wrote into its folder), a glob with ``*``, ``?`` or ``[``, ``-`` for standard input, or the name of a
    built-in corpus where no file has this name.
    Raises DataError where an input names nothing, names something that is not a regular file, where two inputs name the
    same file (its text would count twice), and where a folder is or holds token shards, which are not text.
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    paths, seen = [], {}
    for name in map(os.fspath, inputs):
        for path in _expand(name):
            identity = _identity(path)
            if identity in seen:
                raise DataError(f"the same file as {seen[identity]}: its text would be read twice", path=path)
            seen[identity] = path
            paths.append(path)
    if not paths:
        raise DataError("no input was named", expected="files, folders, globs or - for standard input")
    return paths


def _identity(path):
    """The identity of a file, equal for all its names, links of either kind included."""
    if path == STDIN or not os.path.lexists(path):
        return path
    status = os.stat(path)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def is_builtin(path):
    """Whether ``path`` names a built-in corpus and no file."""
    return path in BUILTIN_CORPORA and not os.path.lexists(path)


def _expand(name):
    if name == STDIN or is_builtin(name):
        return [name]
    if os.path.isdir(name):
        found = _walk(name)
        if not found:
            raise DataError("the folder holds no text file", path=name, expected="a name ending in .txt, .md, .py, …")
        return found
    if not os.path.lexists(name) and glob.has_magic(name):
        found = sorted(path for path in glob.glob(name, recursive=True) if not os.path.isdir(path))
        if not found:
            raise DataError("the pattern matches no file", path=name)
        return [_regular(path) for path in found]
    return [_regular(name)]


def _walk(folder):
    found = []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        _refuse_shards(parent, folders, names)
        own = _OF_A_RUN if _SIGNS_OF_A_RUN.issubset(names) else ()
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in own)
        for name in sorted(set(names).difference(own)):
            stem = name[:-3] if name.endswith(".gz") else name
            if name.startswith(".") or _OTHER_HALF.get(name) in names:
                continue
            if os.path.splitext(stem)[1].lower() in TEXT_SUFFIXES:
                found.append(_regular(os.path.join(parent, name)))
    return found


def _refuse_shards(folder, folders, names):
    """Raise DataError if ``folder``, with ``folders`` and files ``names`` in it, is one that ``data prepare`` wrote."""
    shards = sorted(name for name in names if _SHARD.fullmatch(name))
    if not shards and not ("tokenizer" in folders and "progress.json" in names):
        return
    expected = "the same `gpt-numpy data prepare` again"
    if "manifest.json" in names:
        state, expected = "is not text", "one prepared folder by itself, or text alone"
    elif "progress.json" in names:
        state = "is unfinished: its preparation has not come to its end"
    else:
        state = "lacks manifest.json, which says what the shards are"
    found = shards[0] if shards else "progress.json"
    raise DataError(f"the folder of token shards {state}", path=folder, found=found, expected=expected)


def _raise(error):
    raise error


def _regular(path):
    """``path`` unchanged, or DataError unless it is a regular file."""
    size_of_regular(path, expected=_EXPECTED)
    return path


def read_text(path, encoding="utf-8", errors="strict", observe=None):
    """Yield the text of ``path`` (``-``: standard input) in chunks, exactly as decoded.

    A name ending in ``.gz`` is decompressed. ``errors="replace"`` puts U+FFFD for each undecodable or NUL
    byte; with "strict" those raise DataError with the byte's offset (for ``.gz``: in the decompressed text).
    ``observe`` is called with all bytes of the file, in order and as they are on the disk.
    """
    if errors not in ("strict", "replace"):
        raise DataError("unknown way to treat a bad byte", field="errors", found=errors, expected="strict or replace")
    codec = _codec(encoding)
    utf8 = codec.name == "utf-8"
    decoder = codec.incrementaldecoder(errors)
    offset = 0  # bytes handed to the decoder so far
    for chunk in _read_bytes(path, observe):
        if offset == 0 and utf8:
            _refuse_signature(path, chunk)
        base = offset - len(decoder.getstate()[0])  # the first byte that the decoder still holds back
        yield _without_nul(_decode(decoder, chunk, False, path, base), path, base if utf8 else None, errors)
        offset += len(chunk)
    yield _decode(decoder, b"", True, path, offset - len(decoder.getstate()[0]))


def _codec(encoding):
    try:
        b" ".decode(encoding, "replace")  # refuses Python's codecs between bytes, such as "hex"
        return codecs.lookup(encoding)
    except LookupError:
        raise DataError("not a text encoding Python knows", field="encoding", found=encoding) from None


def _decode(decoder, chunk, final, path, base):
    try:
        return decoder.decode(chunk, final)
    except UnicodeDecodeError as error:
        raise DataError(
            f"not {error.encoding.upper()} text ({error.reason})",
            path=path,
            offset=base + error.start,
            found=f"byte 0x{error.object[error.start]:02x}",
            expected="text in that encoding, another encoding, or errors=replace",
        ) from error


def _without_nul(text, path, base, errors):
    """``text``, with every NUL refused or replaced; the error gives the offset where ``base`` is known (UTF-8)."""
    place = text.find("\0")
    if place < 0:
        return text
    if errors == "replace":
        return text.replace("\0", "\ufffd")
    raise DataError(
        "a NUL byte, which text does not have (a binary file, or UTF-16?)",
        path=path,
        offset=None if base is None else base + len(text[:place].encode("utf-8")),
        expected="text, another encoding, or errors=replace",
    )


def _refuse_signature(path, head):
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            raise DataError("not UTF-8 text", path=path, offset=0, found=kind, expected="text")


def _read_bytes(path, observe):
    if path == STDIN:
        yield from _chunks(_Observed(sys.stdin.buffer, observe))
        return
    try:
        with open_regular(path, expected=_EXPECTED) as raw:
            file = _Observed(raw, observe)
            if str(path).endswith(".gz"):
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield from _chunks(unpacked)
            else:
                yield from _chunks(file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"damaged gzip data ({error})", path=path) from error
    except OSError as error:
        raise DataError(fault_of(error), path=path) from error


def _chunks(file):
    return iter(lambda: file.read(CHUNK_BYTES), b"")


class _Observed:
    """A file read from start to end; ``observe`` receives its bytes too."""

    mode = "rb"

    def __init__(self, file, observe):
        self._file, self._observe = file, observe

    def read(self, size):
        data = self._file.read(size)
        if self._observe is not None:
            self._observe(data)
        return data
