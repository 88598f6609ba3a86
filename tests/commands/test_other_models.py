"""Folders of Llama and Qwen 2 with their own tokenizers, as another program wrote them, in every command that takes a model."""

import json
import re

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import gpt_numpy
from gpt_numpy import GPT, GPTConfig, generate, layers
from gpt_numpy.commands import main
from gpt_numpy.data import open_dataset
from gpt_numpy.inference.packed_file import NAME as PACKED
from gpt_numpy.interop import huggingface
from gpt_numpy.interop.gguf_vocabulary import LLAMA3_PATTERN, QWEN2_PATTERN
from gpt_numpy.tokenizer import load_tokenizer

TEXT = "To be, or not to be: that is the question; whether 'tis nobler in the café 1234 to suffer. " * 20
PARTS = dict(norm="rmsnorm", positions="rotary", mlp="swiglu", n_kv_head=2, n_inner=24, norm_epsilon=1e-6)
FLAGS = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
SETTINGS = {
    "bos_token": "<|begin|>",
    "eos_token": {"__type": "AddedToken", "content": "<|end|>", **FLAGS, "special": True},
    "pad_token": "<|end|>",
    "unk_token": None,
    "model_max_length": 131072,
    "chat_template": [{"name": "default", "template": "{% for message in messages %}{{ message }}{% endfor %}"}],
}
GENERATION = {"eos_token_id": [1, 7], "temperature": 0.6, "do_sample": True}
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
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
    (path / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    (path / "generation_config.json").write_text(json.dumps(GENERATION, indent=1))
    (path / "chat_template.jinja").write_text("{{ messages }}\r\n")
    fields = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(fields | IDS))
    return path


def run(*argv):
    return main([str(word) for word in argv])


def ids_of(folder, text):
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


def test_generating_and_scoring(folder, capsys):
    text = "To be cafe\u0301 12"
    assert run("generate", "--model", folder, "--prompt", text, "--temperature", 0, "--max-new-tokens", 8) == 0
    model, tokenizer = GPT.load(folder), load_tokenizer(folder)
    new = generate(model, ids_of(folder, text), 8, temperature=0, stop_tokens=[1, 7], vocabulary=tokenizer.n_vocab)
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


def as_json(capsys):
    return json.loads(capsys.readouterr().out)


def test_every_command_reads_a_text_from_its_beginning(folder, tmp_path, capsys):
    tokenizer, text = load_tokenizer(folder), TEXT[:200]
    front = [0] if folder.name == "llama" else []
    assert tokenizer.begin_ids == front
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    assert run("quantize", "--model", folder, "--text", tmp_path / "text.txt", "--json") == 0
    measured = as_json(capsys)
    assert measured["tokens"] == len(ids_of(folder, text)) == len(front) + len(tokenizer.encode(text))
    assert run("eval", "--model", folder, "--text", tmp_path / "text.txt", "--stride", 32, "--json") == 0
    evaluated = as_json(capsys)[str(tmp_path / "text.txt")]
    assert evaluated["tokens"] == len(ids_of(folder, text)) - 1
    assert run("microscope", "--model", folder, "--text", text, "--out", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    shown = re.search(r'"tokens": \[\{"text": "([^"]*)"', page)[1].replace("\\u003c", "<")
    assert shown == ("<|begin|>" if front else "To")
    capsys.readouterr()


def test_a_prompt_that_spells_its_beginning(folder, capsys):
    written = []
    for prompt in ("<|begin|>To be", "To be"):
        options = "--temperature", 0, "--max-new-tokens", 8, "--allow-special", "--no-end"
        assert run("generate", "--model", folder, "--prompt", prompt, *options) == 0
        written.append(capsys.readouterr().out.removeprefix(prompt))
    assert (written[0] == written[1]) == (folder.name == "llama")


def test_every_document_of_training_begins(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    documents = [TEXT[:100], "<|begin|>" + TEXT[100:150], TEXT[150:700]]
    front = tokenizer.begin_ids
    expected = []
    for text in documents:
        ids = tokenizer.encode(text, allowed_special="all")
        expected += ids if ids[:1] == front else front + ids
        expected.append(tokenizer.eot_id)
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    prepare = "data", "prepare", tmp_path / "text.jsonl", "--tokenizer", folder, "--out", tmp_path / "shards"
    assert run(*prepare) == 0
    assert open_dataset(tmp_path / "shards").train[:].tolist() == expected
    assert run("data", "inspect", tmp_path / "shards") == 0
    sizes = "--max-steps", 1, "--block-size", 16, "--batch-size", 2, "--validation-fraction", 0.2, "--out"
    assert run("train", "--init-from", folder, "--data", tmp_path / "shards", *sizes, tmp_path / "run") == 0


def test_what_is_said_about_texts_is_carried(folder, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    sizes = "--block-size", 16, "--batch-size", 2
    assert (
        run("train", tmp_path / "text.txt", "--init-from", folder, "--max-steps", 1, *sizes, "--out", tmp_path / "run")
        == 0
    )
    assert run("train", "--resume", tmp_path / "run", "--max-steps", 2) == 0
    assert run("convert", tmp_path / "run", tmp_path / "converted") == 0
    assert run("quantize", "--model", tmp_path / "converted", "--out", tmp_path / "packed") == 0
    for made in (tmp_path / "run" / "checkpoints" / "step-2", tmp_path / "converted", tmp_path / "packed"):
        for name in ("generation_config.json", "chat_template.jinja"):
            assert (made / name).read_bytes() == (folder / name).read_bytes(), made
        settings = json.loads((made / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert SETTINGS.items() <= settings.items()
        assert IDS.items() <= json.loads((made / "config.json").read_text()).items()
        assert gpt_numpy.load(made)._stop_tokens == (1, 7)
    assert run("convert", folder, tmp_path / "other", "--tokenizer", tmp_path / "converted") == 0
    assert not (tmp_path / "other" / "generation_config.json").exists()


def test_a_new_model_says_what_its_tokenizer_says(folder, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    sizes = "--max-steps", 1, "--n-layer", 1, "--n-head", 2, "--n-embd", 8, "--block-size", 16, "--batch-size", 2
    command = "train", tmp_path / "text.txt", "--tokenizer", folder, *sizes, "--out", tmp_path / "run"
    assert run(*command) == 0
    fields = json.loads((tmp_path / "run" / "checkpoints" / "step-1" / "config.json").read_text())
    assert (fields["bos_token_id"], fields["eos_token_id"]) == (0 if folder.name == "llama" else 1, 1)


def test_a_damaged_generation_config_is_refused_at_once(folder, tmp_path, capsys):
    (folder / "generation_config.json").write_text('{"eos_token_id": ')
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    assert run("train", tmp_path / "text.txt", "--init-from", folder, "--max-steps", 1, "--out", tmp_path / "run") == 3
    assert "generation_config.json" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_transformers_reads_what_was_carried(folder, tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    assert run("convert", folder, tmp_path / "converted") == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "converted")
    original = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == original.chat_template is not None
    for role in ("bos_token", "eos_token", "pad_token", "unk_token"):
        assert getattr(tokenizer, role) == getattr(original, role)
    assert tokenizer("To be")["input_ids"] == original("To be")["input_ids"]
    assert len(tokenizer) == len(original)
    found = transformers.GenerationConfig.from_pretrained(tmp_path / "converted")
    assert (found.eos_token_id, found.temperature) == ([1, 7], 0.6)
