"""``gpt-numpy convert``: there and back, and what it refuses."""

import json
import sys

import gguf
import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.commands import main
from gpt_numpy.interop import huggingface, llmc
from gpt_numpy.interop.safetensors import float32_to_bfloat16
from gpt_numpy.tokenizer import END_OF_TEXT, Tokenizer, load_tokenizer


@pytest.fixture
def folder(tmp_path):
    tokenizer = Tokenizer.train(["hello, hello world"], 262, special_tokens=[END_OF_TEXT])
    GPT(GPTConfig(tokenizer.n_vocab, block_size=5, n_layer=2, n_head=3, n_embd=12), ops=layers).save(tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    return tmp_path / "model"


def convert(*argv):
    return main(["convert", *map(str, argv)])


def test_a_folder_to_llmc_and_back(folder, tmp_path, capsys):
    assert convert(folder, tmp_path / "model.bin") == 0
    assert convert(tmp_path / "model.bin", tmp_path / "back", "--tokenizer", folder) == 0
    assert "written to" in capsys.readouterr().out
    config, params = huggingface.load(folder)
    found_config, found = huggingface.load(tmp_path / "back")
    assert found_config == config and np.array_equal(found.flat, params.flat)
    tokenizer = load_tokenizer(tmp_path / "back")
    assert tokenizer.encode("hello") == load_tokenizer(folder).encode("hello")
    assert huggingface.load_config(tmp_path / "back")[1]["eos_token_id"] == tokenizer.eot_id


def test_bfloat16_and_a_folder_without_a_tokenizer(folder, tmp_path):
    assert convert(folder, tmp_path / "model.bin", "--dtype", "bfloat16") == 0
    assert convert(tmp_path / "model.bin", tmp_path / "back") == 0
    expected = (float32_to_bfloat16(huggingface.load(folder)[1].flat).astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(huggingface.load(tmp_path / "back")[1].flat, expected)
    assert not (tmp_path / "back" / "vocab.json").exists()


def test_what_is_refused(folder, tmp_path, capsys):
    assert convert(folder, folder) == 2
    assert "there is something already" in capsys.readouterr().err
    assert convert(folder, tmp_path / "other", "--dtype", "bfloat16") == 2
    assert "--dtype" in capsys.readouterr().err
    (tmp_path / "odd.bin").write_bytes(bytes(2000))
    assert convert(tmp_path / "odd.bin", tmp_path / "other") != 0
    assert "not a checkpoint of llm.c" in capsys.readouterr().err
    assert not (tmp_path / "other").exists() and llmc.MAGIC == 20240326


def test_a_folder_to_llama_cpp(folder, tmp_path, capsys):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "eos_token_id": 7}))
    assert convert(folder, tmp_path / "model.gguf", "--dtype", "q8_0") == 0
    out = capsys.readouterr().out
    assert "written to" in out and "float16 instead of q8_0" in out  # 12 wide, and blocks are 32 wide
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert reader.fields["general.architecture"].contents() == "gpt2"
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == 7
    assert convert(folder, tmp_path / "model.bin") == convert(tmp_path / "model.bin", tmp_path / "again.gguf") - 2 == 0
    assert "--tokenizer FOLDER" in capsys.readouterr().err
    assert convert(tmp_path / "model.bin", tmp_path / "again.gguf", "--tokenizer", folder) == 0


def test_a_gguf_that_cannot_be(folder, tmp_path, capsys, monkeypatch):
    assert convert(folder, tmp_path / "model.bin", "--dtype", "q8_0") == 2
    assert "llm.c has no such format" in capsys.readouterr().err
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert convert(tmp_path / "model.gguf", tmp_path / "other") == 2
    assert "only written" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "gguf", None)  # as where it is not installed
    assert convert(folder, tmp_path / "another.gguf") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and 'pip install ".[gguf]"' in err
    assert not (tmp_path / "another.gguf").exists()
