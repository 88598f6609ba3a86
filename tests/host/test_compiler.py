"""Where numba cannot compile, everything but the kernels works, in its slow form and with one line of warning."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, Tokenizer, layers
from gpt_numpy.errors import KernelError, TokenizerError
from gpt_numpy.host import compiler
from gpt_numpy.tokenizer.plain_encoder import PlainEncoder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(compiler, "missing", lambda: "numba is away: install it")
    compiler.warn_missing.cache_clear()
    yield
    compiler.warn_missing.cache_clear()


@pytest.fixture(params=["NUMBA_DISABLE_JIT", "numba that raises ImportError"])
def run(request, tmp_path):
    """A function that runs Python with arguments in a new process in which numba cannot compile."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    if request.param == "NUMBA_DISABLE_JIT":
        environment["NUMBA_DISABLE_JIT"] = "1"
    else:
        broken = tmp_path / "broken"
        broken.mkdir()
        (broken / "numba.py").write_text("raise ImportError('Numba needs NumPy 1.2 or less')\n")
        environment["PYTHONPATH"] = os.pathsep.join([str(broken), str(ROOT)])

    def run(*arguments):
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    run.what_to_do = "unset it" if request.param == "NUMBA_DISABLE_JIT" else "install a version"
    return run


def test_kernels_are_refused_in_one_line_that_says_what_to_do(run):
    ended = run("-m", "gpt_numpy", "gradcheck", "gelu", "--ops", "kernels")
    assert ended.returncode == 3 and len(ended.stderr.splitlines()) == 1
    assert run.what_to_do in ended.stderr and "--ops layers" in ended.stderr


def test_gradient_checks_studies_and_lessons_work(run):
    ended = run("-m", "gpt_numpy", "gradcheck", "gelu", "layernorm")
    assert ended.returncode == 0 and "0 failed" in ended.stdout and ended.stderr == ""
    ended = run("-m", "gpt_numpy", "study", "bugs")
    assert ended.returncode == 0 and ended.stderr == ""
    ended = run(ROOT / "scripts" / "lessons" / "01_tokenizer.py")
    assert ended.returncode == 0, ended.stderr


def test_a_tokenizer_is_trained_and_used_with_one_warning(run, tmp_path):
    (tmp_path / "text.txt").write_text("a text about words, and about words again; a text\n" * 5)
    ended = run("-m", "gpt_numpy", "tokenizer", "train", "text.txt", "--vocab-size", "265", "--out", "t")
    assert ended.returncode == 0
    assert len([line for line in ended.stderr.splitlines() if run.what_to_do in line]) == 1
    ended = run("-m", "gpt_numpy", "tokenizer", "encode", "--tokenizer", "t", "words again")
    assert ended.returncode == 0 and len(ended.stderr.splitlines()) == 1
    expected = Tokenizer.load(tmp_path / "t").encode("words again")
    assert list(map(int, ended.stdout.split())) == expected


def test_a_model_takes_the_layers_by_itself(no_compiler):
    config = GPTConfig(11, block_size=4, n_layer=1, n_head=1, n_embd=4)
    with pytest.warns(RuntimeWarning, match="install it") as given:
        assert GPT(config).ops is layers
        assert GPT(config).ops is layers
    assert len(given) == 1
    with pytest.raises(KernelError, match="install it"):
        compiler.require()


@pytest.mark.filterwarnings("ignore:numba is away")
def test_the_plain_form_gives_the_same_ids(no_compiler, monkeypatch, hard_strings, shakespeare):
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "missing", lambda: None)
        fast = Tokenizer.train(shakespeare[:20000], 400)
        expected = _encoded(fast, hard_strings(120, 1))
    plain = Tokenizer(fast.vocabulary)
    found = _encoded(plain, hard_strings(120, 1))
    assert isinstance(plain._encoder, PlainEncoder)
    for name, values in expected.items():
        for one, other in zip(values, found[name], strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
            assert getattr(one, "dtype", None) == getattr(other, "dtype", None)


def _encoded(tokenizer, texts):
    """What every way of encoding gives: name → list of lists or arrays of ids."""
    options = {"disallowed_special": ()}
    invalid = [
        text.encode()[:cut] + b" \n \xff\xfe" + text.encode()[cut:]
        for text in texts[:60]
        for cut in (1, len(text.encode()) // 2)
    ]
    return {
        "one": [tokenizer.encode_ordinary(text) for text in texts],
        "batch": tokenizer.encode_batch(texts, **options),
        "arrays": tokenizer.encode_batch_to_arrays(texts, **options),
        "ragged": list(tokenizer.encode_batch(texts, as_arrays=True, **options)),
        "special": [tokenizer.encode("a\nb <|endoftext|> c", allowed_special="all")],
        "bytes": [tokenizer.encode_bytes(data) for data in invalid],
    }


@pytest.mark.filterwarnings("ignore:numba is away", "ignore:the text has only")
def test_the_plain_form_learns_the_same_merges(no_compiler, monkeypatch, shakespeare):
    texts = [shakespeare[:3000], "aaaa aaaa <|endoftext|> ab ab"]
    calls = []
    plain = Tokenizer.train(texts, 300, progress=lambda *numbers: calls.append(numbers))
    assert calls[-1] == (43, 43)
    with pytest.raises(TokenizerError, match="no text"):
        Tokenizer.train([""], 300)
    monkeypatch.undo()
    assert plain.vocabulary.tokens == Tokenizer.train(texts, 300).vocabulary.tokens


@pytest.mark.filterwarnings("ignore:numba is away", "ignore:the text has only")
@pytest.mark.parametrize("text", ["a\ud800b", "é\udfff"])
def test_the_plain_form_refuses_a_lone_surrogate(no_compiler, text):
    tokenizer = Tokenizer.train("a text", 257)
    with pytest.raises(TokenizerError, match="surrogate"):
        tokenizer.encode(text)
    with pytest.raises(TokenizerError, match="text 1.*surrogate"):
        tokenizer.encode_batch(["fine", text])
