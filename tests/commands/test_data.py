"""``gpt-numpy data``: what it prints, and one clear line for what goes wrong."""

from pathlib import Path

import pytest

from gpt_numpy.commands import main
from gpt_numpy.data.shards.dataset import open_dataset
from gpt_numpy.tokenizer import Tokenizer


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "the quick brown fox jumps over the lazy dog.\n" * 20
    Tokenizer.train([text], 280).save("tok")
    (tmp_path / "corpus").mkdir()
    for number in range(6):
        (tmp_path / "corpus" / f"{number}.txt").write_text(text[number * 7 : number * 100 + 50])


def command(*words):
    return main(["data", *words])


def test_prepare_inspect_verify(folders, capsys):
    assert command("prepare", "corpus", "--tokenizer", "tok", "--out", "out", "--validation-every", "3") == 0
    out = capsys.readouterr().out
    assert "train: " in out
    assert "4 documents" in out
    assert command("verify", "out") == 0
    assert "2 shards" in capsys.readouterr().out
    assert command("inspect", "out", "--block-size", "16", "--examples", "2") == 0
    out = capsys.readouterr().out
    for expected in (
        "vocabulary 280",
        "normalize: bom, nfc, newlines",
        "bytes a token",
        "cut in",
        "example 2: '",
        "concat",
        "fit",
        "####",
    ):
        assert expected in out
    assert command("prepare", "corpus", "--tokenizer", "tok", "--out", "out", "--validation-every", "3") == 0


def test_prepare_with_every_option(folders, capsys):
    Path("lines.txt").write_text("one fox|two dogs|\n\nthree")
    words = [
        "prepare",
        "lines.txt",
        "--tokenizer",
        "tok",
        "--out",
        "fit",
        "--split",
        "separator",
        "--separator",
        r"|\n\n",
        "--packing",
        "fit",
        "--block-size",
        "8",
        "--normalize",
        "none",
        "--errors",
        "replace",
        "--encoding",
        "ascii",
        "--threads",
        "1",
        "--shard-tokens",
        "100",
        "--seed",
        "3",
    ]
    assert command(*words) == 0
    assert "rows of 9: utilisation" in capsys.readouterr().out
    dataset = open_dataset("fit")
    assert dataset.manifest["settings"]["separator"] == "|\n\n"
    assert dataset.manifest["splits"]["train"]["documents"] == 2
    assert dataset.manifest["settings"]["normalize"] == []
    assert command("inspect", "fit") == 0
    assert "pieces of documents" in capsys.readouterr().out
    assert command(*words, "--restart") == 0


def test_the_built_in_corpus_and_a_token_file(folders, capsys):
    assert command("prepare", "python-docs", "--tokenizer", "tok", "--out", "docs") == 0
    assert command("inspect", "docs/train-00000.bin", "--tokenizer", "tok") == 0
    assert "tokens of uint16" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["prepare", "nothing", "--tokenizer", "tok", "--out", "out"], 3, "nothing: there is no such file or folder"),
        (["prepare", "corpus", "--tokenizer", "none", "--out", "out"], 3, "none"),
        (["prepare", "corpus", "--tokenizer", "tok", "--out", "corpus"], 3, "corpus: lies inside the input"),
        (["prepare", "corpus", "--tokenizer", "tok", "--out", "out", "--normalize", "nfcc"], 2, "'nfc'"),
        (
            ["prepare", "corpus", "--tokenizer", "tok", "--out", "out", "--packing", "fit"],
            2,
            "--block-size go together",
        ),
        (["verify", "corpus"], 3, "corpus: not a prepared folder: expected manifest.json"),
        (["verify", "nosuch"], 3, "nosuch: there is no such folder"),
        (["inspect", "nosuch"], 3, "nosuch: there is no such file or folder"),
        (["inspect", "corpus/0.txt"], 3, "--tokenizer DIR"),
    ],
)
def test_what_goes_wrong_is_one_line(folders, capsys, words, code, message):
    assert command(*words) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_usage_errors_exit_with_2(folders):
    for words in ([], ["prepare"], ["prepare", "x", "--split", "words"], ["burn", "out"]):
        with pytest.raises(SystemExit) as caught:
            command(*words)
        assert caught.value.code == 2
