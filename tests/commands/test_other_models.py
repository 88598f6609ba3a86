"""Folders of Llama and Qwen 2 with their own tokenizers, as another program wrote them, in every command that takes a model."""

import json

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import gpt_numpy
from gpt_numpy import GPT, GPTConfig, generate, layers
from gpt_numpy.commands import main
from gpt_numpy.inference.packed_file import NAME as PACKED
from gpt_numpy.interop import huggingface
from gpt_numpy.interop.gguf_vocabulary import LLAMA3_PATTERN, QWEN2_PATTERN
from gpt_numpy.tokenizer import load_tokenizer

TEXT = "To be, or not to be: that is the question; whether 'tis nobler in the café 1234 to suffer. " * 20
PARTS = dict(norm="rmsnorm", positions="rotary", mlp="swiglu", n_kv_head=2, n_inner=24, norm_epsilon=1e-6)
KINDS = {"llama": dict(PARTS, bias=False, tied=False), "qwen2": dict(PARTS, bias="qkv", tied=True)}


@pytest.fixture(params=KINDS)
def folder(request, tmp_path):
    """config.json, model.safetensors, tokenizer.json and tokenizer_config.json, and nothing of ours beside them."""
    kind, path = request.param, tmp_path / request.param
    made = Tokenizer(models.BPE(ignore_merges=kind == "llama"))
    pattern = LLAMA3_PATTERN if kind == "llama" else QWEN2_PATTERN
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])
    made.normalizer = normalizers.NFC() if kind == "qwen2" else None
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=byte_level.alphabet(),
        special_tokens=["<|begin|>", "<|end|>"],
        show_progress=False,
    )
    made.train_from_iterator([TEXT], trainer)
    made.add_tokens([AddedToken("<tool_call>", normalized=False)])
    if kind == "llama":
        made.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    size = made.get_vocab_size() + 3
    config = GPTConfig(size, block_size=64, n_layer=2, n_head=4, n_embd=16, **KINDS[kind])
    huggingface.save(path, config, GPT(config, ops=layers, seed=4).params, eos_token_id=1)
    made.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|begin|>", "eos_token": "<|end|>"}))
    return path


def run(*argv):
    return main([str(word) for word in argv])


def ids_of(folder, text):
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


def test_generating_and_scoring(folder, capsys):
    text = "To be cafe\u0301 12"
    assert run("generate", "--model", folder, "--prompt", text, "--temperature", 0, "--max-new-tokens", 8) == 0
    model, tokenizer = GPT.load(folder), load_tokenizer(folder)
    new = generate(model, ids_of(folder, text), 8, temperature=0, stop_tokens=[1], vocabulary=tokenizer.n_vocab)
    assert capsys.readouterr().out.endswith(tokenizer.decode(new.tolist()) + "\n")
    assert run("score", "--model", folder, text) == 0
    scored = gpt_numpy.load(folder).score(text)
    first = [0] if folder.name == "llama" else [1]
    assert scored.tokens.tolist() == first + ids_of(folder, text)[len(tokenizer.begin_ids) :]
    tokens = np.array([scored.tokens])
    assert scored.loss == pytest.approx(float(model.loss(tokens[:, :-1], tokens[:, 1:])), rel=1e-4)


def test_measuring(folder, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT[:400], encoding="utf-8")
    (tmp_path / "passages.txt").write_text("To be or not to be\nthat is the question\n", encoding="utf-8")
    measured = "--text", tmp_path / "text.txt", "--next-word", tmp_path / "passages.txt"
    assert run("eval", "--model", folder, *measured, "--json") == 0
    assert "perplexity" in capsys.readouterr().out
    assert run("microscope", "--model", folder, "--text", "To be, or", "--out", tmp_path / "page.html") == 0
    assert run("info", "--model", folder) == 0
    assert run("tokenizer", "show", "--tokenizer", folder, "To be 12") == 0


def test_training_on(folder, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    sizes = "--max-steps", 2, "--block-size", 16, "--batch-size", 2, "--out", tmp_path / "run"
    assert run("train", "--init-from", folder, "--data", tmp_path / "text.txt", *sizes) == 0
    trained = load_tokenizer(tmp_path / "run" / "checkpoints" / "step-2")
    assert trained.identity == load_tokenizer(folder).identity
    assert run("generate", "--model", tmp_path / "run", "--prompt", "To", "--max-new-tokens", 2) == 0


def test_other_formats(folder, tmp_path):
    assert run("quantize", "--model", folder, "--out", tmp_path / "int8") == 0
    assert (tmp_path / "int8" / PACKED).exists()
    assert run("generate", "--model", tmp_path / "int8", "--prompt", "To", "--max-new-tokens", 2) == 0
    assert run("convert", folder, tmp_path / "model.gguf") == 0
    assert run("convert", folder, tmp_path / "again") == 0
    assert load_tokenizer(tmp_path / "again").identity == load_tokenizer(folder).identity
    config, params = huggingface.load(tmp_path / "again")
    assert config == huggingface.load_config(folder)[0] and np.array_equal(
        params.flat, huggingface.load(folder)[1].flat
    )
