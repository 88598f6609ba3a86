"""llama.cpp opens the GGUF files: logits, greedy text and the ids of texts are the same there.

Needs llama-cpp-python, which is built from source (some ten minutes), so these tests are a campaign:

    pytest -m campaign tests/interop/test_llama_cpp.py
"""

import random

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.architecture.rotation import RopeScaling
from gpt_numpy.commands import main
from gpt_numpy.inference.cache import KVCache
from gpt_numpy.inference.decoder import OpsDecoder
from gpt_numpy.inference.generate import generate
from gpt_numpy.interop import gguf_files, gguf_vocabulary
from gpt_numpy.tokenizer import END_OF_TEXT, Tokenizer, load_tokenizer
from gpt_numpy.tokenizer.formats.pipeline import DIGITS
from gpt_numpy.tokenizer.pretokenize import GPT2_PATTERN
from gpt_numpy.tokenizer.vocabulary import Vocabulary
from tests.tokenizer.pieces import PIECES

pytestmark = pytest.mark.campaign

F32 = 0  # ggml's number of the type

LLAMA = dict(norm="rmsnorm", positions="rotary", mlp="swiglu", bias=False)
MODELS = {
    "gpt2": {},
    "untied gpt2": dict(tied=False, n_inner=96),
    "llama": dict(LLAMA, n_kv_head=2, n_inner=96),
    "biased llama": dict(LLAMA, bias=True, tied=False, rope_theta=500.0),
    "slowed llama": dict(LLAMA, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 32)),
    "linear llama": dict(LLAMA, rope_scaling=RopeScaling("linear", 4.0), rope_pairing="neighbours"),
    "mistral": dict(LLAMA, n_kv_head=2, sliding_window=7),
    "partly sliding": dict(LLAMA, n_kv_head=2, sliding_window=7, window_from=1),
    "qwen2": dict(LLAMA, bias="qkv", n_kv_head=1, tied=False),
    "sliding qwen2": dict(LLAMA, bias="qkv", sliding_window=7, window_from=1),
    "wide qwen2": dict(LLAMA, bias="qkv", head_dim=32, n_kv_head=2),
    "qwen3": dict(LLAMA, qk_norm=True, head_dim=32, n_kv_head=2),
}
PATTERNS = {
    "gpt-2": GPT2_PATTERN,
    "llama-3": gguf_vocabulary.LLAMA3_PATTERN,
    "qwen2": gguf_vocabulary.QWEN2_PATTERN,
    "digits": DIGITS[True],
}
TEXT = "The quick brown fox jumps over the lazy dog; it's 2,345 times as quick as the dog's dog. \n\n\tBut why?  " * 20


def opened(path, **options):
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama_cpp")
    options = dict(dict(n_ctx=256, n_batch=256, n_threads=1, verbose=False, logits_all=True), **options)
    return llama_cpp.Llama(str(path), **options)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([TEXT], 300)


@pytest.mark.parametrize("name", MODELS)
def test_logits(name, tokenizer, tmp_path):
    config = GPTConfig(tokenizer.n_vocab + 5, block_size=256, n_layer=2, n_head=4, n_embd=64, **MODELS[name])
    model = GPT(config, ops=layers, seed=3)
    rng = np.random.default_rng(5)
    for parameter, view in model.params.items():
        view[...] += rng.standard_normal(view.shape).astype(np.float32) * (0.1 if parameter != "wte.weight" else 0.3)
    gguf_files.save(tmp_path / "model.gguf", config, model.params, tokenizer)
    tokens = rng.integers(0, tokenizer.n_vocab, 100)
    llama = opened(tmp_path / "model.gguf")
    llama.eval(tokens.tolist())
    found = llama.scores[:100]
    expected = OpsDecoder(model).extend(tokens[None], KVCache(config, 1, 100), every=True)[0]
    # llama.cpp looks GPT-2's gelu up in a table of float16 and keeps keys and values in float16
    assert np.abs(found - expected).max() <= 0.01 * np.abs(expected).max()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9999
    llama.close()


@pytest.mark.parametrize("shape", [["--preset", "small-cpu"], ["--preset", "llama-tiny", "--n-embd", "64"]])
def test_greedy_text_of_a_trained_model(shape, test_data, tmp_path):
    (text,) = test_data("shakespeare")
    settings = ["--block-size", "256", "--max-steps", "300", "--vocab-size", "1024", "--out", tmp_path / "run"]
    assert main(["train", str(text), *shape, *map(str, settings)]) == 0
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "model.gguf")]) == 0
    model, tokenizer = GPT.load(tmp_path / "run"), load_tokenizer(tmp_path / "run")
    # Keys and values in float32, as here: rounded to float16, they decide where two tokens are nearly equally probable.
    llama = opened(tmp_path / "model.gguf", type_k=F32, type_v=F32)
    for text in ("ROMEO:\nWhat ", "First Citizen:\n", "The king"):
        prompt = tokenizer.encode(text)
        assert llama.tokenize(text.encode(), add_bos=False) == prompt
        llama.reset()
        llama.eval(prompt)
        nearly = 0
        for expected in generate(model, prompt, 200, temperature=0).tolist():
            logits = llama.scores[llama.n_tokens - 1]
            apart = logits.max() - logits[expected]
            assert apart <= 1e-3 * np.abs(logits).max(), (text, tokenizer.decode([expected]))
            nearly += apart > 0
            llama.eval([expected])
        assert nearly <= 2
    llama.close()


@pytest.mark.parametrize("name", PATTERNS)
def test_ids_of_texts(name, tmp_path):
    pattern = PATTERNS[name]
    samples = texts(2000, seed=1)
    tokenizer = Tokenizer.train(samples[:500], 600, special_tokens=["<|x|>", END_OF_TEXT], pattern=pattern)
    config = GPTConfig(tokenizer.n_vocab, block_size=16, n_layer=1, n_head=1, n_embd=32, **LLAMA)
    gguf_files.save(tmp_path / "model.gguf", config, GPT(config, ops=layers).params, tokenizer)
    llama = opened(tmp_path / "model.gguf", vocab_only=True)
    for text in samples:
        assert llama.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode_ordinary(text), text
    text = "a<|x|> b<|endoftext|>"
    assert llama.tokenize(text.encode(), add_bos=False, special=True) == tokenizer.encode(text, allowed_special="all")
    llama.close()


def test_llama_3s_words_and_beginning(tmp_path):
    samples = texts(2000, seed=2)
    trained = Tokenizer.train(samples, 500, ["<|b|>", END_OF_TEXT], gguf_vocabulary.LLAMA3_PATTERN).vocabulary
    used = {part for merge in trained.merges for part in merge}
    kept = [n for n, i in enumerate(trained.merged_ids) if i in used or n % 2]  # the others are made by no merge
    merges = tuple(trained.merges[n] for n in kept)
    own = dict(ignore_merges=True, begin=("<|b|>",))
    vocabulary = Vocabulary(trained.tokens, merges, trained.special_tokens, trained.pattern, **own)
    tokenizer = Tokenizer(vocabulary)
    assert tokenizer.whole_words
    config = GPTConfig(tokenizer.n_vocab, block_size=16, n_layer=1, n_head=1, n_embd=32, **LLAMA)
    gguf_files.save(tmp_path / "model.gguf", config, GPT(config, ops=layers).params, tokenizer)
    llama = opened(tmp_path / "model.gguf", vocab_only=True)
    for text in samples:
        expected = tokenizer.encode(text, disallowed_special=(), add_special_tokens=True)
        assert llama.tokenize(text.encode(), add_bos=True, special=False) == expected, text
    llama.close()


def texts(n, seed):
    """Texts of words, numbers, contractions, white space and letters of several scripts."""
    rng = random.Random(seed)
    pieces = [*PIECES, "²", "a\u0301"]
    return ["".join(rng.choices(pieces, k=rng.randint(1, 12))) for _ in range(n)]
