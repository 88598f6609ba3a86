"""``--products bfloat16`` where a trained model reads a text: score, eval, generate; and where there is no such product."""

import json

import pytest

import gpt_numpy
from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.commands import main
from gpt_numpy.tokenizer import Tokenizer

TEXT = "hello, hello world of words " * 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.train(["hello, hello world"], 262)
    model = GPT(GPTConfig(tokenizer.n_vocab, block_size=96, n_layer=2, n_head=2, n_embd=32), seed=4, ops=layers)
    model.params.flat[...] *= 5
    model.save(folder)
    tokenizer.save(folder)
    return folder


def score(folder, capsys, *options):
    assert main(["score", "--model", str(folder), TEXT, "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)["loss"]


def test_score(folder, capsys):
    exact, rounded = score(folder, capsys), score(folder, capsys, "--products", "bfloat16")
    assert 0 < abs(rounded - exact) < 0.02 * exact
    assert gpt_numpy.load(folder, products="bfloat16").score(TEXT).loss == rounded


def test_eval(folder, capsys, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    found = []
    for products in ("float32", "bfloat16"):
        command = ["eval", "--model", str(folder), "--text", str(tmp_path / "text.txt"), "--json"]
        assert main([*command, "--products", products]) == 0
        figures = json.loads(capsys.readouterr().out)[str(tmp_path / "text.txt")]
        found.append(figures["loss"])
    assert 0 < abs(found[0] - found[1]) < 0.02 * found[0]


def test_generate_compares_the_prompt_with_the_limit_of_its_products(folder, capsys):
    command = ["generate", "--model", str(folder), "--prompt", TEXT[:60], "--max-new-tokens", "3", "--figures"]
    assert main([*command, "--products", "bfloat16"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(TEXT[:60]) and "of this machine's bfloat16 arithmetic" in captured.err
    assert main(command) == 0
    assert "of this machine's arithmetic" in capsys.readouterr().err


def test_int8_has_no_such_products(folder, capsys):
    assert main(["score", "--model", str(folder), TEXT, "--format", "int8", "--products", "bfloat16"]) == 2
    assert "int8 are multiplied as integers" in capsys.readouterr().err
