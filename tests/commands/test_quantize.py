import json
import re

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.commands import main
from gpt_numpy.errors import CheckpointCorrupt, CheckpointMismatch, ConfigError
from gpt_numpy.inference.loading import load_decoder
from gpt_numpy.inference.packed_file import NAME
from gpt_numpy.tokenizer import END_OF_TEXT, Tokenizer

TEXT = "hello, hello world. " * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.train([TEXT], 262, special_tokens=[END_OF_TEXT])
    model = GPT(GPTConfig(vocab_size=tokenizer.n_vocab, block_size=16, n_layer=2, n_head=2, n_embd=80), ops=layers)
    model.params.flat[:] *= 5
    model.save(folder)
    tokenizer.save(folder)
    (folder / "text.txt").write_text(TEXT)
    return folder


def quantize(folder, *argv):
    return main(["quantize", "--model", str(folder), *map(str, argv)])


@pytest.mark.parametrize("format, ratio", [("int8", 2.5), ("bfloat16", 1.9)])
def test_saved_loaded_and_measured(folder, tmp_path, capsys, format, ratio):
    assert quantize(folder, "--format", format, "--out", tmp_path / "small", "--text", folder / "text.txt") == 0
    out = capsys.readouterr().out
    assert float(re.search(r"([\d.]+) times smaller", out)[1]) > ratio
    assert abs(float(re.search(r"([+-][\d.]+)%$", out.splitlines()[2])[1])) < 5
    decoder, tokenizer = load_decoder(tmp_path / "small")
    made, _ = load_decoder(folder, format)
    assert decoder.weights.format == format and tokenizer.n_vocab == 262
    for name in ("data", "vectors", "positions"):
        assert np.array_equal(getattr(decoder.weights, name), getattr(made.weights, name))
    assert main(["generate", "--model", str(tmp_path / "small"), "--prompt", "hello", "--max-new-tokens", "4"]) == 0
    with pytest.raises(ConfigError, match="another format"):
        load_decoder(tmp_path / "small", "float32")


def test_without_a_text_only_the_logits_are_compared(folder, capsys):
    assert quantize(folder) == 0
    out = capsys.readouterr().out
    assert "logits move by" in out and "perplexity" not in out


def test_damaged_packed_files(folder, tmp_path, capsys):
    assert quantize(folder, "--out", tmp_path) == 0
    whole = (tmp_path / NAME).read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / NAME).write_bytes(whole[:length])
        with pytest.raises(CheckpointCorrupt):
            load_decoder(tmp_path)
    for old, new in ((b'"int8"', b'"int4"'), (b'"16"', b'"32"'), (b'"vectors"', b'"vectorz"')):
        (tmp_path / NAME).write_bytes(whole.replace(old, new, 1))
        with pytest.raises(CheckpointMismatch):
            load_decoder(tmp_path)
    (tmp_path / NAME).write_bytes(whole)
    decoder, _ = load_decoder(tmp_path)
    scale = 64 * 16 + 1
    data = decoder.weights.data.tobytes()
    poisoned = data[: scale - 1] + b"\xff\x7f" + data[scale + 1 :]
    (tmp_path / NAME).write_bytes(whole.replace(data, poisoned))
    with pytest.raises(CheckpointMismatch, match="finite"):
        load_decoder(tmp_path)


@pytest.mark.parametrize("argv", [["--max-tokens", "1"], ["--out", "SELF"], ["--text", "no-such-file"]])
def test_usage_errors(folder, capsys, argv):
    code = quantize(folder, *(folder if word == "SELF" else word for word in argv))
    assert code in (2, 3) and capsys.readouterr().err.count("\n") == 1


def test_int4_calibrated_on_a_text(folder, tmp_path, capsys):
    text = folder / "text.txt"
    assert quantize(folder, "--format", "int4", "--text", text, "--json") == 0
    plain = json.loads(capsys.readouterr().out)
    assert quantize(folder, "--format", "int4", "--text", text, "--calibrate", text, "--out", tmp_path, "--json") == 0
    calibrated = json.loads(capsys.readouterr().out)
    assert plain["format"] == "int4" and plain["bytes"] < plain["float32_bytes"] / 3
    assert calibrated["logits"] != plain["logits"]
    decoder, _ = load_decoder(tmp_path)
    assert decoder.weights.format == "int4"
    assert main(["score", "--model", str(tmp_path), "hello"]) == 0
    assert quantize(folder, "--calibrate", text) == 2 and "--calibrate" in capsys.readouterr().err
    (tmp_path / "empty.txt").write_text("")
    assert quantize(folder, "--format", "int4", "--calibrate", tmp_path / "empty.txt") == 2
    assert "empty" in capsys.readouterr().err
