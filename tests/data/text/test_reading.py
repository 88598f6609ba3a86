"""Documents: splitting, JSON records, and pieces that change neither the text nor its tokens."""

import gzip
import json
import random
import re
import sys
import unicodedata

import pytest
import regex

from gpt_numpy.data.text import opening, reading
from gpt_numpy.data.text.normalizing import STEPS, normalize
from gpt_numpy.data.text.reading import Piece, parse_separator, read_documents, read_pieces
from gpt_numpy.errors import DataError

# the published pre-tokenization patterns of GPT-2 and of its successor cl100k
PATTERNS = [
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
]


def documents(path, **options):
    return list(read_documents(str(path), **options))


def test_each_file_is_a_document(tmp_path):
    for name, text in (("b.txt", "bee\r\n"), ("a.txt", "\ufeffay"), ("c.txt", "")):
        (tmp_path / name).write_bytes(text.encode())
    assert documents(tmp_path) == ["\ufeffay", "bee\r\n"]


def test_lines_end_with_lf_or_crlf(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\n\ntwo\rstill two\n three \nfour")
    assert documents(tmp_path, split="line") == ["one", "two\rstill two", " three ", "four"]


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1 << 20])
@pytest.mark.parametrize("separator", ["|", "<|end|>", "aa", "\n\n", "é😀"])
def test_a_separator_is_found_across_chunks(tmp_path, monkeypatch, chunk, separator):
    monkeypatch.setattr(opening, "CHUNK_BYTES", chunk)
    alphabet = ["a", "b", "|", "<", "é", separator, separator[:1], separator[1:]]
    text = "".join(random.Random(len(separator)).choices(alphabet, k=300))
    (tmp_path / "a.txt").write_bytes(text.encode())
    expected = [document for document in text.split(separator) if document]
    assert documents(tmp_path, separator=separator) == expected
    assert len(expected) > 5


def test_json_records_are_found_by_name_and_field(tmp_path):
    lines = ['{"text": "one\\n", "body": "x"}', "", ' {"body": "y", "text": "\\ud83d\\ude00"}', '{"text": ""}']
    (tmp_path / "a.jsonl").write_bytes("\r\n".join(lines).encode())
    assert documents(tmp_path) == ["one\n", "😀"]
    (tmp_path / "a.jsonl").write_bytes(("\ufeff" + lines[0]).encode())
    assert documents(tmp_path, text_field="body") == ["x"]
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines[0].encode()))
    assert documents(tmp_path) == ["one\n"]


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "not a JSON record"),
        ("[" * 200_000, "not a JSON record"),
        ('["text"]', "found 'list'|'list'"),
        ('{"txt": "a"}', "lacks.*txt"),
        ('{"text": 3}', "'int'"),
        ('{"text": null}', "'NoneType'"),
        ('{"text": "a\\ud800"}', "U[+]D800 at character 1"),
        ('{"text": "\\u0000"}', "U[+]0000"),
    ],
)
def test_a_bad_record_names_its_line(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=message) as caught:
        documents(tmp_path)
    assert caught.value.line == 3
    if "U[+]" in message:
        assert "\ufffd" in documents(tmp_path, errors="replace")[1]


@pytest.mark.parametrize(
    "options", [{"split": "words"}, {"split": "separator"}, {"separator": "", "split": "separator"}]
)
def test_impossible_splits_are_refused(tmp_path, options):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match="split|separator"):
        documents(tmp_path, **options)


def test_an_endless_record_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_RECORD_CHARACTERS", 1000)
    monkeypatch.setattr(reading, "PIECE_CHARACTERS", 100)
    monkeypatch.setattr(opening, "CHUNK_BYTES", 64)
    (tmp_path / "a.txt").write_text("short\n" + "x" * 2000)
    with pytest.raises(DataError, match="document 2 is longer than 1000"):
        documents(tmp_path, split="line")
    with pytest.raises(DataError, match="1000 characters without"):
        documents(tmp_path)
    (tmp_path / "a.txt").write_text("x" * 900 + " " + "y" * 900)
    assert documents(tmp_path) == ["x" * 900 + " " + "y" * 900]


def pieces_of(tmp_path, monkeypatch, text, size):
    monkeypatch.setattr(reading, "PIECE_CHARACTERS", size)
    monkeypatch.setattr(opening, "CHUNK_BYTES", size)
    (tmp_path / "a.txt").write_bytes(text.encode())
    pieces = list(read_pieces(str(tmp_path / "a.txt")))
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert "".join(piece.text for piece in pieces) == text
    return pieces


def hostile_text(rng, length):
    words = [
        "one",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\t",
        "'s",
        "'",
        "é",
        "e\u0301",
        "\u0301\u0323",
        "12",
        "_",
        "。",
        "字",
        "\x01",
        "\u00a0",
        "\ufb01",
        "\u2003",
        "\ufc5e",
        "가",
        "\u11a8",
        "😀",
        "...",
        "\x0b",
        "\u0308",
    ]
    return "".join(rng.choices(words, k=length))


@pytest.mark.parametrize("seed", range(40))
def test_pieces_change_neither_tokens_nor_normal_forms(tmp_path, monkeypatch, seed):
    rng = random.Random(seed)
    pieces = pieces_of(tmp_path, monkeypatch, hostile_text(rng, 3000), rng.choice([16, 40, 200]))
    assert len(pieces) > 10
    for form in ("nfc", "nfkc"):
        for steps in ((), (form,), tuple(step for step in STEPS if step not in {"nfc", "nfkc"} - {form})):
            parts = [normalize(piece.text, steps) for piece in pieces]
            whole = normalize("".join(piece.text for piece in pieces), steps)
            assert "".join(parts) == whole
            for pattern in PATTERNS:
                tokens = [token for part in parts for token in regex.findall(pattern, part)]
                assert tokens == regex.findall(pattern, whole)


def test_letters_to_cut_at_stay_letters():
    letters = re.findall(f"[{reading._LETTERS}]", "".join(map(chr, range(sys.maxunicode + 1))))
    assert len(letters) > 30_000
    for letter in letters:
        for form in (letter, unicodedata.normalize("NFC", letter), unicodedata.normalize("NFKC", letter)):
            assert regex.fullmatch(r"[\p{L}\p{N}](.*[\p{L}\p{N}])?", form)


def test_a_text_without_spaces_is_still_cut(tmp_path, monkeypatch):
    text = "".join(random.Random(0).choices(["字", "文", "。\n", "，"], k=4000))
    assert len(pieces_of(tmp_path, monkeypatch, text, 200)) > 10


def test_a_document_in_one_piece(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a b"}))
    assert list(read_pieces(str(tmp_path / "a.jsonl"))) == [Piece("a b", True)]


@pytest.mark.parametrize("separator", ["\n\n", r"\n\n", "\r\n\r\n", r"\r\n\r\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
def test_a_separator_is_the_same_however_newlines_are_written(tmp_path, monkeypatch, separator, newline, chunk):
    monkeypatch.setattr(opening, "CHUNK_BYTES", chunk)
    poems = [f"poem {number}\nline" for number in range(20)]
    text = "\n\n".join(poems).replace("\n", newline)
    (tmp_path / "poems.txt").write_bytes(text.encode())
    assert documents(tmp_path, separator=separator) == [poem.replace("\n", newline) for poem in poems]


def test_a_separator_that_was_read_is_read_again_as_it_is():
    for text in ("\n\n", r"\n\n", r"|\t|", "||", r"\d", ""):
        assert parse_separator(parse_separator(text)) == parse_separator(text)
    assert parse_separator(r"a\n\tb") == "a\n\tb"
    assert parse_separator("") is parse_separator(None) is None


@pytest.mark.parametrize("chunk", [1, 5, 50, 1 << 20])
@pytest.mark.parametrize("options", [{}, {"separator": "#"}, {"split": "line"}])
def test_the_text_of_end_of_text_ends_a_document(tmp_path, monkeypatch, chunk, options):
    monkeypatch.setattr(opening, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(reading, "PIECE_CHARACTERS", 30)
    text = "one two three <end>four#<end><end>five six seven eight nine ten eleven twelve#thirteen<end"
    (tmp_path / "a.txt").write_text(text)
    expected = ["one two three ", "four#", "five six seven eight nine ten eleven twelve#thirteen<end"]
    if "separator" in options:
        expected = ["one two three ", "four", "five six seven eight nine ten eleven twelve", "thirteen<end"]
    assert documents(tmp_path, end_of_text="<end>", **options) == expected
    assert sum(piece.last for piece in read_pieces(str(tmp_path / "a.txt"), end_of_text="<end>")) == 3


def test_the_text_of_end_of_text_ends_a_record(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a<end>b"}))
    assert documents(tmp_path, end_of_text="<end>") == ["a", "b"]


@pytest.mark.parametrize("seed", range(10))
def test_no_cut_divides_a_text_that_stays_whole(tmp_path, monkeypatch, seed):
    rng = random.Random(seed)
    whole = ["New York", "a\nb c", "<x y>"]
    text = "".join(rng.choices([*whole, " ", "New ", "word", "\n", "York"], k=2000))
    monkeypatch.setattr(reading, "PIECE_CHARACTERS", 50)
    monkeypatch.setattr(opening, "CHUNK_BYTES", rng.choice([7, 40]))
    (tmp_path / "a.txt").write_text(text)
    pieces = [piece.text for piece in read_pieces(str(tmp_path / "a.txt"), whole=whole)]
    assert "".join(pieces) == text and len(pieces) > 50
    for one in whole:
        assert sum(piece.count(one) for piece in pieces) == text.count(one)
