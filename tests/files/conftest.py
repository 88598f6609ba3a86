"""One of each file that the package reads: a run, models, tokenizers of all forms, prepared data."""

import json
import shutil

import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.data.shards.preparing import Settings, prepare
from gpt_numpy.inference.packed import PackedWeights
from gpt_numpy.inference.packed_file import save_packed
from gpt_numpy.interop import llmc
from gpt_numpy.sweeping import Sweep
from gpt_numpy.tokenizer import CharTokenizer, Tokenizer
from gpt_numpy.training import Settings as TrainingSettings
from gpt_numpy.training import start

TEXT = "a text of words; é, ü and 文\n" * 40
TINY = dict(n_layer=1, n_head=1, n_embd=8, block_size=8, batch_size=2, ops="layers", sample_every=0, eval_windows=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One of each: a run, a model, tokenizers of all forms, prepared data, files of tasks."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    settings = TrainingSettings(data=(str(folder / "text.txt"),), tokenizer="char", max_steps=2, save_every=1, **TINY)
    start(settings, folder / "run")
    Tokenizer.train([TEXT], 265, pattern=r"\w+|\W").encode(TEXT)  # compiles what patterns other than GPT-2's need
    words = Tokenizer.train([TEXT], 265)
    for form in ("huggingface", "openai", "tiktoken"):
        words.save(folder / form, form)
    shutil.copytree(folder / "huggingface", folder / "two files")
    (folder / "two files" / "tokenizer.json").unlink()
    for name in ("added_tokens.json", "special_tokens_map.json"):
        (folder / "two files" / name).write_text("{}")
    CharTokenizer.train([TEXT]).save(folder / "characters")
    prepare([folder / "text.txt"], words, folder / "shards", Settings(shard_tokens=10_000, validation_every=0))
    model = GPT(GPTConfig(vocab_size=270, block_size=8, n_layer=1, n_head=1, n_embd=8), seed=1, ops=layers)
    model.save(folder / "model")
    words.save(folder / "model")
    shutil.copytree(folder / "model", folder / "sharded")
    (folder / "sharded" / "model.safetensors").rename(folder / "sharded" / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(model.params, "model-00001-of-00001.safetensors")}
    (folder / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    llmc.save(folder / "llm.bin", model.config, model.params)
    save_packed(folder / "packed", PackedWeights.pack(model.config, model.params, "bfloat16"))
    words.save(folder / "packed")
    words.encode_to_array(TEXT).astype("<u2").tofile(folder / "nano.bin")
    question = {"ctx": "a text", "endings": [" of words", " of letters"], "label": 0}
    (folder / "questions.jsonl").write_text(json.dumps(question) + "\n" + json.dumps(question) + "\n")
    Sweep(folder / "sweep", settings, {"seed": (1, 2)}).create()
    return folder
