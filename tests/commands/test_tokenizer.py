"""The command line from its arguments to its files, output and exit codes."""

import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from gpt_numpy.commands import main
from gpt_numpy.tokenizer import CharTokenizer, Tokenizer

TEXT = "the theme of the thesis: thé 日本\n<|endoftext|>other themes, others\r\n"


@pytest.fixture()
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes(TEXT.encode())
    return path


@pytest.fixture()
def folder(tmp_path):
    Tokenizer.train(TEXT, 270).save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def run(*arguments, stdin=None, monkeypatch=None):
    if stdin is not None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
    return main(["tokenizer", *map(str, arguments)])


def test_train(corpus, tmp_path, capsys):
    assert run("train", corpus, "--vocab-size", 270, "--out", tmp_path / "out") == 0
    assert Tokenizer.load(tmp_path / "out").vocabulary == Tokenizer.train(TEXT, 270).vocabulary
    out, bars = capsys.readouterr()
    assert f"270 ids: 256 bytes, 13 merges, 1 special; from {len(TEXT)} characters" in out
    assert all(str(tmp_path / "out" / name) in out for name in os.listdir(tmp_path / "out"))
    assert "%" not in bars  # a bar is for a terminal


def test_train_with_options(corpus, tmp_path):
    more = tmp_path / "texts"
    more.mkdir()
    (more / "a.md").write_text("more of the text")
    specials = ["--special", "<|a b|>", "--special", "<|endoftext|>"]
    assert (
        run(
            "train",
            corpus,
            more,
            "--vocab-size",
            275,
            "--out",
            tmp_path / "out",
            "--pattern",
            r"\S+|\s+",
            "--form",
            "openai",
            *specials,
        )
        == 0
    )
    expected = Tokenizer.train([TEXT, "more of the text"], 275, ("<|a b|>", "<|endoftext|>"), r"\S+|\s+")
    assert Tokenizer.load(tmp_path / "out").vocabulary == expected.vocabulary
    assert sorted(os.listdir(tmp_path / "out")) == ["encoder.json", "tokenizer_config.json", "vocab.bpe"]


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["{tmp}/corpus.txt", "--vocab-size", "200", "--out", "{tmp}/out"], 2, "vocab_size: too small a vocabulary"),
        (["{tmp}/missing.txt", "--vocab-size", "300", "--out", "{tmp}/out"], 3, "missing.txt"),
        (["{tmp}/empty.txt", "--vocab-size", "300", "--out", "{tmp}/out"], 2, "no text to train on"),
        (["{tmp}/binary.txt", "--vocab-size", "300", "--out", "{tmp}/out"], 3, "binary.txt"),
        (["{tmp}/corpus.txt", "--vocab-size", "300", "--out", "{tmp}/corpus.txt"], 2, "not a folder"),
        (["{tmp}/corpus.txt", "--vocab-size", "300", "--out", "{tmp}/tokenizer"], 2, "a tokenizer already"),
        (["{tmp}/corpus.txt", "--vocab-size", "300", "--out", "{tmp}/out", "--pattern", "("], 2, "does not compile"),
        (
            ["{tmp}/corpus.txt", "--vocab-size", "300", "--out", "{tmp}/out", "--special", "a"],
            3,
            "ordinary token as well",
        ),
    ],
)
def test_train_refuses(corpus, folder, tmp_path, capsys, arguments, code, message):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x00")
    before = Tokenizer.load(folder).vocabulary
    assert run("train", *(argument.format(tmp=tmp_path) for argument in arguments)) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("gpt-numpy tokenizer: ") and message in last
    assert not (tmp_path / "out").exists()
    assert Tokenizer.load(folder).vocabulary == before


def test_train_says_when_pairs_run_out(corpus, tmp_path, capsys):
    assert run("train", corpus, "--vocab-size", 400, "--out", tmp_path / "out") == 0
    assert "gpt-numpy tokenizer: the text has only " in capsys.readouterr().err
    assert Tokenizer.load(tmp_path / "out").n_vocab < 400


def test_train_overwrites_if_told_to(corpus, folder):
    assert run("train", corpus, "--vocab-size", 260, "--out", folder, "--overwrite") == 0
    assert Tokenizer.load(folder).n_vocab == 260


@pytest.mark.skipif(os.name != "posix", reason="only on POSIX: signals")
def test_interrupting_training_leaves_nothing(tmp_path):
    command = [
        sys.executable,
        "-m",
        "gpt_numpy",
        "tokenizer",
        "train",
        "-",
        "--vocab-size",
        "300",
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"some text\n" * 500_000)  # more than a pipe holds: once it is written, reading has begun
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert err.decode().splitlines()[-1] == "gpt-numpy tokenizer: interrupted"
    assert not (tmp_path / "out").exists()


def test_encode_and_decode(folder, capfdbinary, monkeypatch):
    tokenizer = Tokenizer.load(folder)
    assert run("encode", "--tokenizer", folder, "the thésis") == 0
    ids = tokenizer.encode("the thésis")
    assert capfdbinary.readouterr().out.split() == [str(i).encode() for i in ids]
    assert run("decode", "--tokenizer", folder, *ids) == 0
    assert capfdbinary.readouterr().out == "the thésis".encode()
    assert run("decode", "--tokenizer", folder, stdin=f"{ids}\n195".encode(), monkeypatch=monkeypatch) == 0
    assert capfdbinary.readouterr().out == "the thésis".encode() + b"\xc3"


def test_encode_from_elsewhere(corpus, folder, tmp_path, capsys, monkeypatch):
    ids = Tokenizer.load(folder).encode(TEXT, allowed_special="all")
    for arguments in (["--file", corpus], []):
        assert (
            run(
                "encode",
                "--tokenizer",
                folder,
                *arguments,
                "--specials",
                "allow",
                stdin=TEXT.encode(),
                monkeypatch=monkeypatch,
            )
            == 0
        )
        assert [int(i) for i in capsys.readouterr().out.split()] == ids
    out = tmp_path / "ids.npy"
    assert run("encode", "--tokenizer", folder, "--file", corpus, "--specials", "text", "--out", out) == 0
    array = np.load(out)
    assert array.dtype == np.uint16 and array.tolist() == Tokenizer.load(folder).encode_ordinary(TEXT)


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["encode", "--tokenizer", "{folder}", "a<|endoftext|>"], 2, "offset 1: the text holds the special token"),
        (["encode", "--tokenizer", "{folder}", "--file", "{folder}/bad"], 3, "bad, offset 2: not UTF-8"),
        (["encode", "--tokenizer", "{folder}", "--file", "{folder}/missing"], 3, "missing"),
        (["encode", "--tokenizer", "{folder}/missing", "a"], 3, "missing: there is no such folder"),
        (["decode", "--tokenizer", "{folder}", "1", "270"], 2, "position 1: a token id out of range: found 270"),
        (["decode", "--tokenizer", "{folder}", "1", "x"], 2, "position 1: not a token id: found 'x'"),
        (["decode", "--tokenizer", "{folder}", "1.0"], 2, "position 0: not a token id: found '1.0'"),
        (["compare", "{folder}", "{folder}/none", "--text", "{folder}/vocab.json"], 3, "none: there is no such folder"),
    ],
)
def test_refusals(folder, capsys, arguments, code, message):
    (folder / "bad").write_bytes(b"ab\xffcd")
    assert run(*(argument.format(folder=folder) for argument in arguments)) == code
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and err[0].startswith("gpt-numpy tokenizer: ") and message in err[0]


def test_show(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert run("show", "--tokenizer", folder, "the thé") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split("|")[0].strip() == "the" and "\x1b" not in out
    assert out.splitlines()[-1].endswith("bytes per token")
    assert run("show", "--tokenizer", folder, "the thé", "--colour", "always") == 0
    assert "\x1b[97;48;5;" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert run("show", "--tokenizer", folder, "the <b>", "--html", page) == 0
    assert "&lt;b&gt;" in page.read_text(encoding="utf-8")


def test_compare(corpus, folder, tmp_path, capsys):
    CharTokenizer.train(TEXT).save(tmp_path / "char")
    assert run("compare", folder, tmp_path / "char", "--text", corpus) == 0
    out = capsys.readouterr().out.splitlines()
    table = {line[:15].strip(): line[15:].split() for line in out[2:]}
    n_ids = [len(Tokenizer.load(folder).encode_ordinary(TEXT)), len(TEXT)]
    n_bytes = len(TEXT.encode())
    assert table["tokens"] == [str(n) for n in n_ids]
    assert table["bytes per token"] == [f"{n_bytes / n:.3f}" for n in n_ids]
    assert table["tokens per word"] == [f"{n / len(TEXT.split()):.3f}" for n in n_ids]
    assert table["ids"] == ["270", str(len(set(TEXT)))]


@pytest.mark.parametrize("form", ["huggingface", "openai", "tiktoken"])
def test_convert(folder, tmp_path, form, capsys):
    assert run("convert", "--tokenizer", folder, "--out", tmp_path / "out", "--form", form) == 0
    assert Tokenizer.load(tmp_path / "out").vocabulary == Tokenizer.load(folder).vocabulary
    assert run("convert", "--tokenizer", folder, "--out", tmp_path / "out", "--form", form) == 2


def test_debug_may_stand_before_or_after_the_action(folder):
    for arguments in (["--debug", "decode"], ["decode", "--debug"]):
        with pytest.raises(ValueError):
            run(*arguments, "--tokenizer", folder, "x")
