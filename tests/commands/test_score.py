import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.commands import main
from gpt_numpy.tokenizer import END_OF_TEXT, Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.train(["hello, hello world"], 262, special_tokens=[END_OF_TEXT])
    config = GPTConfig(vocab_size=tokenizer.n_vocab, block_size=16, n_layer=1, n_head=2, n_embd=8)
    GPT(config, seed=4, ops=layers).save(folder)
    tokenizer.save(folder)
    return folder


def test_score_of_a_text(folder, capsys, tmp_path):
    (tmp_path / "text.txt").write_text("hello wörld" * 5, encoding="utf-8")
    assert main(["score", "hello wörld" * 5, "--model", str(folder), "--tokens", "--colour", "always"]) == 0
    out = capsys.readouterr().out
    assert "bytes 60" in out and "perplexity" in out and "bits per byte" in out
    n_lines = len([line for line in out.splitlines() if line.endswith("'")])
    assert out.count("\x1b[0m") == n_lines - 5 > 10, "the two tokens of each ö are coloured as one"
    assert main(["score", "--file", str(tmp_path / "text.txt"), "--model", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == out.splitlines()[-2:]


@pytest.mark.parametrize("argv", [[], ["a", "--file", "x"], [""]])
def test_usage_errors(folder, capsys, argv):
    assert main(["score", *argv, "--model", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_that_is_no_text(folder, capsys, tmp_path):
    (tmp_path / "bad").write_bytes(b"abc\xff")
    assert main(["score", "--file", str(tmp_path / "bad"), "--model", str(folder)]) == 3
    assert "offset 3" in capsys.readouterr().err


def test_json_has_every_token(folder, capsys):
    import json

    assert main(["score", "--model", str(folder), "xyzzy", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == len(found["listed"]) and "".join(one["text"] for one in found["listed"]) == "xyzzy"
    assert found["loss"] == -sum(one["logprob"] for one in found["listed"]) / found["tokens"]
