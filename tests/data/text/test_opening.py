"""Finding, opening and decoding files: every way a corpus can be something else than text."""

import gzip
import io
import os

import pytest

from gpt_numpy.data.text import opening
from gpt_numpy.data.text.opening import find_files, read_text
from gpt_numpy.errors import DataError


def text_of(path, **options):
    return "".join(read_text(str(path), **options))


def make(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_a_folder_is_searched_in_sorted_order_for_text(tmp_path):
    make(tmp_path, ["b.txt", "a/z.md", "a/c.py", "b.png", ".hidden.txt", ".git/x.txt", "d.jsonl.gz", "e.gz"])
    found = [os.path.relpath(path, tmp_path) for path in find_files(tmp_path)]
    assert found == ["b.txt", "d.jsonl.gz", "a/c.py", "a/z.md"]


def test_what_a_run_wrote_is_no_text(tmp_path):
    own = ["config.toml", "environment.json", "metrics.jsonl", "samples.txt", "checkpoints/step-3/notes.txt"]
    make(tmp_path, ["a.txt", "config.toml", "samples.txt", "b/metrics.jsonl", "b/checkpoints/c.txt"])
    make(tmp_path / "runs" / "notes-1", [*own, "mine.txt"])
    found = [os.path.relpath(path, tmp_path) for path in find_files(tmp_path)]
    expected = [
        "a.txt",
        "config.toml",
        "samples.txt",
        "b/metrics.jsonl",
        "b/checkpoints/c.txt",
        "runs/notes-1/mine.txt",
    ]
    assert found == expected


def test_inputs_keep_their_order_and_globs_are_sorted(tmp_path):
    make(tmp_path, ["x/2.log", "x/1.log", "y.log"])
    found = find_files([str(tmp_path / "y.log"), str(tmp_path / "x" / "*.log")])
    assert [os.path.relpath(path, tmp_path) for path in found] == ["y.log", "x/1.log", "x/2.log"]


def test_a_name_with_glob_characters_is_first_a_name(tmp_path):
    make(tmp_path, ["a[1].txt", "a1.txt"])
    assert find_files(str(tmp_path / "a[1].txt")) == [str(tmp_path / "a[1].txt")]


@pytest.mark.parametrize(
    "inputs, message",
    [
        (["missing.txt"], "there is no such file or folder"),
        (["none*.txt"], "matches no file"),
        (["empty"], "no text file"),
        ([], "no input"),
        (["a.txt", "./a.txt"], "twice"),
        (["a.txt", "link.txt"], "twice"),
        (["a.txt", "."], "twice"),
        (["fifo"], "FIFO"),
        (["/dev/null"], "device"),
    ],
)
def test_inputs_that_are_not_files_are_refused(tmp_path, monkeypatch, inputs, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "link.txt").symlink_to("a.txt")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match=message):
        find_files(inputs)


def test_a_fifo_found_in_a_folder_is_refused_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match="pipe.txt.*FIFO"):
        find_files(tmp_path)


@pytest.mark.parametrize("chunk", [1, 2, 3, 1 << 20])
def test_text_comes_back_as_it_is(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(opening, "CHUNK_BYTES", chunk)
    text = "\ufeffone\r\ntwo\rthree\n\n é e\u0301 \u2028\x85\x0b 😀 \U0010ffff"
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert text_of(tmp_path / "a.txt") == text
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert text_of(tmp_path / "a.txt.gz") == text
    (tmp_path / "b.txt").write_bytes(text.encode("utf-16"))
    assert text_of(tmp_path / "b.txt", encoding="utf-16") == text


@pytest.mark.parametrize("chunk", [1, 4, 1 << 20])
@pytest.mark.parametrize(
    "content, offset",
    [
        (b"abc\xffdef", 3),
        ("é".encode() * 5 + b"\xe9 x", 10),
        ("😀".encode() + b"ab\xf0\x9f\x98", 6),  # cut short at the end
        (b"x\xed\xa0\x80", 1),  # a surrogate
        (b"\xc0\x80", 0),  # an overlong NUL
        ("é".encode() + b"ab\0cd", 4),
    ],
)
def test_a_bad_byte_names_file_and_offset(tmp_path, monkeypatch, content, offset, chunk):
    monkeypatch.setattr(opening, "CHUNK_BYTES", chunk)
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        text_of(path)
    assert caught.value.offset == offset
    assert str(path) in str(caught.value)
    assert text_of(path, errors="replace") == content.decode(errors="replace").replace("\0", "\ufffd")


@pytest.mark.parametrize(
    "content, kind",
    [
        (gzip.compress(b"text", mtime=0), "gzip"),
        ("text".encode("utf-16"), "UTF-16"),
        ("text".encode("utf-16-be"), "NUL"),
        ("text".encode("utf-32"), "UTF-32"),
        (b"\x7fELF\x02\x01\x01\0", "program"),
        (b"PK\x03\x04....", "zip"),
        (b"GGUF\x03\0\0\0", "weights"),
    ],
)
def test_other_data_taken_for_text_is_refused(tmp_path, content, kind):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=kind):
        text_of(tmp_path / "a.txt")


@pytest.mark.parametrize("damage", ["cut", "flip", "not gzip"])
def test_damaged_gzip_is_refused(tmp_path, damage):
    packed = bytearray(gzip.compress(os.urandom(5000).hex().encode()))
    if damage == "flip":
        packed[2000] ^= 4
    (tmp_path / "a.txt.gz").write_bytes({"cut": packed[:-9], "flip": packed, "not gzip": b"plain text"}[damage])
    with pytest.raises(DataError, match="gzip"):
        text_of(tmp_path / "a.txt.gz")


@pytest.mark.parametrize("encoding", ["utf-9", "hex", ""])
def test_an_unknown_encoding_is_refused(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match="encoding"):
        text_of(tmp_path / "a.txt", encoding=encoding)


def test_unknown_error_treatment_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match="ignore"):
        text_of(tmp_path / "a.txt", errors="ignore")


def test_standard_input_is_read_as_bytes(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("a\r\né".encode()), newline=None))
    assert find_files("-") == ["-"]
    assert text_of("-") == "a\r\né"


def test_one_file_under_two_names_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    os.link(tmp_path / "a.txt", tmp_path / "b.txt")
    with pytest.raises(DataError, match="the same file"):
        find_files([tmp_path / "a.txt", tmp_path / "b.txt"])


def test_half_of_a_tokenizer_is_not_text(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "run").mkdir()
    for name in ("merges.txt", "vocab.json", "vocab.bpe"):
        (tmp_path / "run" / name).write_text("x")
    assert [os.path.relpath(path, tmp_path) for path in find_files(tmp_path)] == ["a.txt"]
    (tmp_path / "run" / "vocab.json").unlink()
    assert len(find_files(tmp_path)) == 2
