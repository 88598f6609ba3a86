"""GGUF files, read back by the package ``gguf``: every tensor, the order of the rotary pairs, the tokenizer, and refusals."""

import dataclasses

import gguf
import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.architecture.rotation import RopeScaling, frequencies
from gpt_numpy.errors import CheckpointMismatch, ConfigError, VocabError
from gpt_numpy.interop import gguf_files, gguf_vocabulary
from gpt_numpy.tokenizer import END_OF_TEXT, Tokenizer
from gpt_numpy.tokenizer.char import CharTokenizer
from gpt_numpy.tokenizer.formats.pipeline import DIGITS
from gpt_numpy.tokenizer.pretokenize import GPT2_PATTERN
from gpt_numpy.tokenizer.vocabulary import Extras, Origin

LLAMA = dict(norm="rmsnorm", positions="rotary", mlp="swiglu", bias=False)
MODELS = {  # name → (architecture, fields, how llama.cpp pairs the numbers of a head)
    "gpt2": ("gpt2", {}, "halves"),
    "untied gpt2": ("gpt2", dict(tied=False, n_inner=24, norm_epsilon=1e-4), "halves"),
    "llama": ("llama", dict(LLAMA, n_kv_head=2, n_inner=20, tied=False), "neighbours"),
    "biased llama": ("llama", dict(LLAMA, n_kv_head=1, head_dim=4, bias=True), "neighbours"),
    "slowed llama": ("llama", dict(LLAMA, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 16)), "neighbours"),
    "neighbours": ("llama", dict(LLAMA, rope_pairing="neighbours"), "neighbours"),
    "mistral": ("granite_swa", dict(LLAMA, sliding_window=3, window_from=1), "neighbours"),
    "wide window": ("llama", dict(LLAMA, sliding_window=9), "neighbours"),
    "qwen2": ("qwen2", dict(LLAMA, bias="qkv", n_kv_head=2), "halves"),
    "neighbours as qwen2": ("qwen2", dict(LLAMA, bias="qkv", rope_pairing="neighbours"), "halves"),
    "qwen3": ("qwen3", dict(LLAMA, qk_norm=True, head_dim=8, rope_scaling=RopeScaling("linear", 2.0)), "halves"),
    "neighbours as qwen3": ("qwen3", dict(LLAMA, qk_norm=True, rope_pairing="neighbours"), "halves"),
}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["hello, hello world"], 262, special_tokens=[END_OF_TEXT])


def make(tokenizer, padding=2, **fields):
    config = GPTConfig(tokenizer.n_vocab + padding, block_size=9, n_layer=2, n_head=4, n_embd=24, **fields)
    model = GPT(config, ops=layers, dtype=np.float64)
    rng = np.random.default_rng(5)
    for view in model.params.values():  # also norms and biases, all different
        view[...] = (rng.standard_normal(view.shape) * 0.3 + 0.1).astype(np.float32)
    return model


def read(path):
    """(fields, name → float32 array) of a file."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}


def as_ours(model, tensors, pairing):
    """The model of ``tensors``, put together as llama.cpp uses them, with its pairing of rotary numbers."""
    config = model.config.replace(rope_pairing=pairing if model.config.positions == "rotary" else "halves")
    other = GPT(config, ops=layers, dtype=np.float64)
    outer = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output"}
    qkv = ["attn_qkv"] if "blk.0.attn_qkv.weight" in tensors else ["attn_q", "attn_k", "attn_v"]
    inner = {
        "ln_1": ["attn_norm"],
        "attn.c_attn": qkv,
        "attn.c_proj": ["attn_output"],
        "ln_2": ["ffn_norm"],
        "mlp.c_fc": ["ffn_gate", "ffn_up"] if config.is_gated else ["ffn_up"],
        "mlp.c_proj": ["ffn_down"],
        "attn.q_norm": ["attn_q_norm"],
        "attn.k_norm": ["attn_k_norm"],
    }
    for name, view in other.params.items():
        stem, kind = name.rsplit(".", 1)
        if stem in outer:
            view[...] = tensors.pop(f"{outer[stem]}.{kind}")
            continue
        _, layer, part = stem.split(".", 2)
        joined = np.concatenate([tensors.pop(f"blk.{layer}.{theirs}.{kind}") for theirs in inner[part]])
        view[...] = joined.T
    return other


@pytest.mark.parametrize("name", MODELS)
def test_the_same_logits_with_llama_cpps_pairing(name, tokenizer, tmp_path):
    architecture, fields, pairing = MODELS[name]
    model = make(tokenizer, **fields)
    written = gguf_files.save(tmp_path / "model.gguf", model.config, model.params, tokenizer)
    assert written == (architecture, [])
    found, tensors = read(tmp_path / "model.gguf")
    assert found["general.architecture"] == architecture
    slower = tensors.pop("rope_freqs.weight", None)
    scaling = model.config.rope_scaling
    if scaling is not None and scaling.kind == "llama3":
        theirs = frequencies(model.config.head_size, 10_000.0) / slower
        np.testing.assert_allclose(theirs, frequencies(model.config.head_size, 10_000.0, scaling), rtol=1e-6)
    else:
        assert slower is None
    sinks = [tensors.pop(f"blk.{i}.attn_sinks.weight") for i in range(2) if architecture == "granite_swa"]
    assert all(np.array_equal(sink, [np.float32(-1e30)] * 4) for sink in sinks)
    other = as_ours(model, tensors, pairing)
    assert not tensors
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (2, 9))
    expected, got = model.forward(tokens), other.forward(tokens)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_the_configuration(tokenizer, tmp_path):
    scaling = RopeScaling("linear", 2.0)
    model = make(tokenizer, **LLAMA, n_kv_head=2, n_inner=20, rope_theta=500.0, rope_scaling=scaling, norm_epsilon=1e-6)
    gguf_files.save(tmp_path / "model.gguf", model.config, model.params, tokenizer)
    fields, _ = read(tmp_path / "model.gguf")
    assert fields["llama.context_length"] == 9 and fields["llama.vocab_size"] == tokenizer.n_vocab + 2
    assert (fields["llama.block_count"], fields["llama.embedding_length"]) == (2, 24)
    assert (fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]) == (4, 2)
    assert fields["llama.feed_forward_length"] == 20 and fields["llama.rope.freq_base"] == 500.0
    assert fields["llama.rope.dimension_count"] == fields["llama.attention.key_length"] == 6
    assert fields["llama.attention.value_length"] == 6
    assert (fields["llama.rope.scaling.type"], fields["llama.rope.scaling.factor"]) == ("linear", 2.0)
    assert fields["llama.attention.layer_norm_rms_epsilon"] == np.float32(1e-6)
    model = make(tokenizer, **LLAMA, sliding_window=3, window_from=1)
    gguf_files.save(tmp_path / "window.gguf", model.config, model.params, tokenizer)
    fields, _ = read(tmp_path / "window.gguf")
    assert fields["granite_swa.attention.sliding_window"] == 3 and fields["granite_swa.logit_scale"] == 1.0
    assert fields["granite_swa.attention.sliding_window_pattern"] == [False, True]


@pytest.mark.parametrize("dtype", gguf_files.FORMATS)
def test_formats(dtype, tokenizer, tmp_path):
    fields = dict(LLAMA, n_embd=64, n_head=2, n_inner=40, block_size=9, n_layer=1, tied=False)
    model = GPT(GPTConfig(tokenizer.n_vocab, **fields), ops=layers)
    written = gguf_files.save(tmp_path / "a" / "model.gguf", model.config, model.params, tokenizer, dtype)
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "a" / "model.gguf").tensors}
    in_blocks = dtype in ("q8_0", "q4_0")
    own = gguf_files._TYPES[dtype]
    assert written.wider == (["blk.0.ffn_down.weight"] if in_blocks else [])
    assert kinds["blk.0.attn_q.weight"] == kinds["blk.0.ffn_up.weight"] == own
    assert kinds["blk.0.ffn_down.weight"] == ("F16" if in_blocks else own)
    assert kinds["token_embd.weight"] == kinds["output.weight"] == ("Q8_0" if in_blocks else own)
    assert kinds["output_norm.weight"] == kinds["blk.0.attn_norm.weight"] == "F32"
    _, tensors = read(tmp_path / "a" / "model.gguf")
    expected = model.params["h.0.mlp.c_proj.weight"].T
    np.testing.assert_allclose(tensors["blk.0.ffn_down.weight"], expected, rtol=2**-8, atol=1e-7)
    up, spread = model.params["h.0.mlp.c_fc.weight"][:, 40:].T, float(np.abs(model.params["h.0.mlp.c_fc.weight"]).max())
    error = float(np.abs(tensors["blk.0.ffn_up.weight"] - up).max())
    assert error <= spread * {"float32": 0, "float16": 2**-11, "bfloat16": 2**-8, "q8_0": 1 / 250, "q4_0": 1 / 7}[dtype]


def test_equal_models_make_equal_bytes(tokenizer, tmp_path):
    model = make(tokenizer, **LLAMA)
    for name in ("one", "two"):
        gguf_files.save(tmp_path / name / f"{name}.gguf", model.config, model.params, tokenizer, "bfloat16")
    assert (tmp_path / "one" / "one.gguf").read_bytes() == (tmp_path / "two" / "two.gguf").read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["one.gguf"]


def test_the_tokenizer(tmp_path):
    trained = Tokenizer.train(["hello, hello world é"], 264, special_tokens=["<|start|>", END_OF_TEXT])
    model = make(trained, **LLAMA)
    gguf_files.save(tmp_path / "model.gguf", model.config, model.params, trained)
    fields, _ = read(tmp_path / "model.gguf")
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    tokens = fields["tokenizer.ggml.tokens"]
    assert len(tokens) == model.config.vocab_size and tokens[-2:] == ["[PAD264]", "[PAD265]"]
    assert tokens[ord(" ")] == "Ġ" and tokens[262:264] == ["<|start|>", END_OF_TEXT]
    assert fields["tokenizer.ggml.token_type"] == [1] * 262 + [3, 3, 5, 5]
    merges = [f"{tokens[left]} {tokens[right]}" for left, right in trained.vocabulary.merges]
    assert fields["tokenizer.ggml.merges"] == merges and len(merges) == 6 and merges[1].count(" ") == 1
    assert fields["tokenizer.ggml.eos_token_id"] == fields["tokenizer.ggml.bos_token_id"] == trained.eot_id
    assert fields["tokenizer.ggml.add_bos_token"] is False
    gguf_files.save(tmp_path / "ends.gguf", model.config, model.params, trained, end_of_text=(262, 263))
    fields, _ = read(tmp_path / "ends.gguf")
    assert (fields["tokenizer.ggml.eos_token_id"], fields["tokenizer.ggml.eot_token_id"]) == (262, 263)


@pytest.mark.parametrize("where", ["file", "entry", "several"])
def test_the_chat_template_and_the_padding_token(tmp_path, where):
    trained = Tokenizer.train(["hello, hello world é"], 264, special_tokens=["<|pad|>", END_OF_TEXT])
    template = "{{ messages }}é"
    several = [{"name": "tools", "template": "other"}, {"name": "default", "template": template}]
    settings = {"file": {"chat_template": "older"}, "entry": {"chat_template": template}}
    extras = Extras(
        {"pad_token": "<|pad|>", **settings.get(where, {"chat_template": several})},
        {"chat_template.jinja": template.encode()} if where == "file" else {},
    )
    tokenizer = Tokenizer(dataclasses.replace(trained.vocabulary, extras=extras, origin=Origin(), made=None))
    model = make(trained, **LLAMA)
    gguf_files.save(tmp_path / "model.gguf", model.config, model.params, tokenizer)
    fields, _ = read(tmp_path / "model.gguf")
    assert fields["tokenizer.chat_template"] == template
    assert fields["tokenizer.ggml.padding_token_id"] == trained.special_tokens["<|pad|>"]


def test_llama_cpps_names_of_patterns():
    def words(pattern, **own):
        trained = Tokenizer.train(["hello"], 258, special_tokens=["<|b|>"], pattern=pattern).vocabulary
        return gguf_vocabulary.vocabulary_of(Tokenizer(dataclasses.replace(trained, **own)), 258)

    llama3 = gguf_vocabulary.LLAMA3_PATTERN
    assert words(llama3).pattern == "smaug-bpe" and words(llama3, ignore_merges=True).pattern == "llama-bpe"
    assert words(gguf_vocabulary.QWEN2_PATTERN, normal_form="NFC", ignore_merges=True).pattern == "qwen2"
    assert words(DIGITS[True]).pattern == "smollm"
    found = words(llama3, begin=("<|b|>",))
    assert (found.begin, found.end, found.adds_begin) == (257, 0xFF, True)
    with pytest.raises(VocabError, match="one token in front"):
        words(llama3, begin=("<|b|>", "<|b|>"))
    with pytest.raises(VocabError, match="prefix space"):
        words(GPT2_PATTERN, add_prefix_space=True)
    with pytest.raises(VocabError, match="ignore_merges: .*Llama 3's pattern alone"):
        words(GPT2_PATTERN, ignore_merges=True, merges=())


def test_a_file_without_a_tokenizer(tokenizer, tmp_path):
    model = make(tokenizer)
    gguf_files.save(tmp_path / "model.gguf", model.config, model.params, None)
    fields, _ = read(tmp_path / "model.gguf")
    assert [name for name in fields if name.startswith("tokenizer")] == ["tokenizer.ggml.model"]
    assert fields["tokenizer.ggml.model"] == "no_vocab" and fields["gpt2.vocab_size"] == tokenizer.n_vocab + 2


def test_a_tokenizer_without_an_end_stops_at_no_text(tokenizer, tmp_path):
    trained = Tokenizer.train(["hello, hello world"], 260, special_tokens=[])
    words = gguf_vocabulary.vocabulary_of(trained, 260)
    assert words.end == 0xFF  # llama.cpp would take id 11, a comma in GPT-2, where a file names none


@pytest.mark.parametrize(
    "fields, field",
    [
        (dict(mlp="relu"), "mlp"),
        (dict(bias=False), "bias"),
        (dict(scale_attn_weights=False), "scale_attn_weights"),
        (dict(LLAMA, mlp="geglu"), "mlp"),
        (dict(LLAMA, norm="layernorm"), "norm"),
        (dict(LLAMA, positions="learned"), "positions"),
        (dict(LLAMA, scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx"),
        (dict(LLAMA, qk_norm=True, bias="attention"), "bias"),
        (dict(LLAMA, qk_norm=True, sliding_window=3), "sliding_window"),
        (dict(LLAMA, qk_norm=True, rope_scaling=RopeScaling("llama3", 8.0)), "rope_scaling"),
    ],
)
def test_models_that_llama_cpp_does_not_have(fields, field, tokenizer, tmp_path):
    config = GPTConfig(tokenizer.n_vocab, block_size=9, n_layer=2, n_head=4, n_embd=24, **fields)
    with pytest.raises(ConfigError, match="llama.cpp") as caught:
        gguf_files.save(tmp_path / "model.gguf", config, {}, tokenizer)
    assert caught.value.field == field and not list(tmp_path.iterdir())


def test_other_refusals(tokenizer, tmp_path):
    model = make(tokenizer, padding=-1)
    with pytest.raises(ConfigError, match="more ids"):
        gguf_files.save(tmp_path / "model.gguf", model.config, model.params, tokenizer)
    with pytest.raises(VocabError, match="tokenizer of characters"):
        gguf_vocabulary.vocabulary_of(CharTokenizer("abc"), 3)
    odd = Tokenizer.train(["hello world"], 258, special_tokens=[], pattern=r"\w+|\W+")
    with pytest.raises(VocabError, match="no such pattern"):
        gguf_vocabulary.vocabulary_of(odd, 258)
    with pytest.raises(ConfigError, match="no such format"):
        gguf_files.save(tmp_path / "model.gguf", model.config, model.params, tokenizer, "q2_k")
    model = make(tokenizer)
    model.params["h.1.mlp.c_fc.weight"][0, 0] = 1e5
    with pytest.raises(CheckpointMismatch, match="blk.1.ffn_up.weight: too large for float16"):
        gguf_files.save(tmp_path / "model.gguf", model.config, model.params, tokenizer, "float16")
    assert not list(tmp_path.iterdir())
