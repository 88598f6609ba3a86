import json
import os

import pytest

from gpt_numpy.errors import VocabError
from gpt_numpy.tokenizer import Tokenizer

TEXT = "the theme of the thesis\n"


@pytest.fixture()
def folder(tmp_path):
    Tokenizer.train(TEXT, 268, special_tokens=("<|endoftext|>", "<|ü 🙂|>")).save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()  # which would be read instead
    return tmp_path


def edit_vocab(folder, change):
    table = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    change(table)
    (folder / "vocab.json").write_text(json.dumps(table, ensure_ascii=False, indent=0), encoding="utf-8")


def test_huggingface_names_without_settings(folder):
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(VocabError, match="vocab.json, line .*neither special nor spelled"):
        Tokenizer.load(folder)
    edit_vocab(folder, lambda table: table.pop("<|ü 🙂|>"))
    assert Tokenizer.load(folder).special_tokens == {"<|endoftext|>": 266}


def test_a_special_token_that_only_the_settings_hold(folder):
    edit_vocab(folder, lambda table: table.pop("<|ü 🙂|>"))
    assert Tokenizer.load(folder).special_tokens == {"<|endoftext|>": 266, "<|ü 🙂|>": 267}


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_every_truncation_is_an_error(folder, name):
    for n in reversed(range((folder / name).stat().st_size)):
        os.truncate(folder / name, n)
        with pytest.raises(VocabError, match=r"(vocab.json|merges.txt|tokenizer_config.json)(, line \d+)?"):
            Tokenizer.load(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("a"), "no token has the id 97"),
        (lambda t: t.update({"a": 10**9}), "line 99: no token has the id 97"),
        (lambda t: t.update({"a": 98}), "line 100: the token 'b' has the id of 'a' too"),
        (lambda t: t.update({"a": -1}), "line 99: the token 'a' has a negative id"),
        (lambda t: t.update({"a": True}), "line 99: .* no whole number"),
        (lambda t: t.update({"a": 97.0}), "line 99: .* no whole number"),
        (lambda t: t.update({"zz": 268}), "line 270, id 268: no merge makes the token 'zz'"),
        (lambda t: t.update({"a a": 268}), "line 270, id 268: the token 'a a' is neither"),
        (lambda t: t.update({"": 268}), "line 270, id 268: an empty token"),
        (lambda t: (t.pop("a"), t.update({"zzz": 97})), "no token for the byte 0x61"),
        (
            lambda t: (t.pop("Ġof"), t.update({"qq": 265})),
            "merges.txt, line 11: makes 'Ġof', which is not in the vocabulary",
        ),
        (lambda t: t.update({"<|endoftext|>": 267, "<|ü 🙂|>": 266}), "has another id"),
    ],
)
def test_bad_vocabularies(folder, change, message):
    edit_vocab(folder, change)
    with pytest.raises(VocabError, match=message):
        Tokenizer.load(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.replace("t he\n", "t he\r\n"), "line 3: a carriage return"),
        (lambda s: "\ufeff" + s, "line 1: begins with a byte-order mark"),
        (lambda s: s[:-1], r"line 11: the last line does not end"),
        (lambda s: s + "\n", "line 12: not a merge"),
        (lambda s: s + "t he\n", "line 12: a merge for the second time, after 3"),
        (lambda s: s + "e th\n", "line 12: a merge of an unknown token.*'th'"),
        (lambda s: s + "t h e\n", "line 12: not a merge"),
        (lambda s: s.replace("h e\n", ""), "line 2: merges 'he', which neither"),
        (lambda s: s + "<|endoftext|> t\n", "line 12: merges '<.endoftext.>', which neither"),
        (lambda s: "", "line 1: empty|does not end"),
    ],
)
def test_bad_merges(folder, change, message):
    path = folder / "merges.txt"
    path.write_bytes(change(path.read_bytes().decode()).encode())
    with pytest.raises(VocabError, match=f"merges.txt, (?:{message})"):
        Tokenizer.load(folder)


def test_a_token_made_twice(folder):
    path = folder / "merges.txt"
    path.write_bytes(path.read_bytes() + "Ġt he\n".encode())
    edit_vocab(folder, lambda table: table.update({"Ġt": 268}))
    with pytest.raises(VocabError, match="line 12: merges 'Ġt', which neither"):
        Tokenizer.load(folder)
    path.write_bytes(path.read_bytes().replace("Ġt he".encode(), "Ġ t\nĠt he".encode()))
    with pytest.raises(VocabError, match="line 13: makes 'Ġthe', as merge 2 does"):
        Tokenizer.load(folder)


def test_merges_without_a_version_line(folder):
    before = Tokenizer.load(folder).vocabulary
    path = folder / "merges.txt"
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    assert Tokenizer.load(folder).vocabulary == before


@pytest.mark.parametrize("name", ["vocab.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "content, message",
    [
        (b"[" * 100_000, "line 1: nested deeper|line 1: not JSON"),
        (b'{"a":' * 100_000, "line 1: nested deeper|line 1: not JSON"),
        (b'{"a": 1,\n"b": 2,\n"\\u0061": 3}', "line 3: the same key twice: found 'a'"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "line 1: begins with a byte-order mark"),
        (b'{"a": 1,\n"\xff": 2}', "line 2: not UTF-8"),
        (b"[1]", "expected a JSON object"),
        (b"", "line 1: not JSON"),
    ],
)
def test_bad_json(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(VocabError, match=f"{name}.*(?:{message})"):
        Tokenizer.load(folder)


def test_what_is_no_regular_file(folder):
    (folder / "merges.txt").unlink()
    os.mkfifo(folder / "merges.txt")
    with pytest.raises(VocabError, match="not a regular file"):
        Tokenizer.load(folder)


def test_merges_of_a_checkout_on_windows_are_the_same(folder):
    before = Tokenizer.load(folder)
    path = folder / "merges.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert Tokenizer.load(folder).identity == before.identity
