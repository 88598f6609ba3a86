"""Random Llama, Mistral, Qwen 2 and Qwen 3 models of transformers: its logits, loss and gradients, and folders both ways."""

import contextlib
import json
import random

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.architecture.rotation import RopeScaling
from gpt_numpy.errors import CheckpointMismatch
from gpt_numpy.inference.cache import KVCache
from gpt_numpy.inference.decoder import OpsDecoder
from gpt_numpy.interop import huggingface, llama_folders

KINDS = ("Llama", "Qwen2", "Mistral", "Qwen3")


@contextlib.contextmanager
def everything_in_float64(torch):
    """transformers computes norms, angles and softmax in float32, whatever the model's type: not within this."""
    narrow, method = torch.float32, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = lambda tensor, *args, **options: tensor.double()
    try:
        yield
    finally:
        torch.float32 = torch.float = narrow
        torch.Tensor.float = method


def fields_of(kind, rng):
    n_kv_head, sharing = rng.randint(1, 3), rng.choice([1, 2, 3])
    head = rng.choice([4, 6, 8])
    fields = dict(
        vocab_size=rng.randint(5, 40),
        hidden_size=n_kv_head * sharing * head if kind != "Qwen3" else rng.choice([12, 20]),
        intermediate_size=rng.randint(3, 40),
        num_hidden_layers=rng.randint(1, 3),
        num_attention_heads=n_kv_head * sharing,
        num_key_value_heads=n_kv_head,
        max_position_embeddings=rng.randint(6, 24),
        rms_norm_eps=rng.choice([1e-6, 1e-5, 1e-3]),
        rope_theta=rng.choice([10_000.0, 500_000.0, 50.0]),
        hidden_act=rng.choice(["silu", "silu", "gelu_pytorch_tanh", "gelu"]),
        tie_word_embeddings=rng.random() < 0.5,
        head_dim=head,
    )
    scaling = rng.choice(["", "", "linear", "llama3"])
    if scaling:
        fields["rope_scaling"] = {"rope_type": scaling, "factor": rng.choice([2.0, 8.0])}
    if scaling == "llama3":
        fields["rope_scaling"] |= dict(low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
    if kind == "Llama":
        fields |= dict(attention_bias=rng.random() < 0.3, mlp_bias=rng.random() < 0.3)
    if kind == "Mistral":
        fields["sliding_window"] = rng.choice([None, 3, 5])
    if kind in ("Qwen2", "Qwen3"):
        layers_without = rng.randint(0, fields["num_hidden_layers"])
        fields |= dict(use_sliding_window=rng.random() < 0.5, sliding_window=4, max_window_layers=layers_without)
    return fields


def check(kind, seed, folder):
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    rng = random.Random(f"{kind} {seed}")
    config = getattr(transformers, f"{kind}Config")(
        **fields_of(kind, rng), bos_token_id=None, eos_token_id=None, attn_implementation="eager"
    )
    torch.manual_seed(seed)
    with everything_in_float64(torch):
        model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.4 * torch.randn_like(parameter))
        angles = model.model.rotary_emb.inv_freq.clone()  # a buffer, which changes of the type round as well
        model = model.to(rng.choice([torch.float64, torch.bfloat16]))
        model.save_pretrained(folder, max_shard_size=rng.choice(["5GB", "4KB"]))
        theirs = model.to(torch.float64)
        model.model.rotary_emb.inv_freq.copy_(angles)
        ours = GPT.load(folder, dtype=np.float64, ops=layers)
        tokens = np.random.default_rng(seed).integers(0, config.vocab_size, (2, config.max_position_embeddings))
        expected = compare(ours, theirs, tokens, torch)
        cached_equals_uncached(ours, tokens)
        ours.save(folder / "again")
        again, info = type(model).from_pretrained(
            folder / "again", dtype=torch.float64, output_loading_info=True, attn_implementation="eager"
        )
        assert not info["missing_keys"] and not info["unexpected_keys"]
        with torch.no_grad():
            assert np.abs(again.eval()(torch.tensor(tokens)).logits.numpy() - expected).max() <= 1e-9
    assert GPT.load(folder / "again", ops=layers).config == ours.config


def compare(ours, theirs, tokens, torch):
    """Logits, loss and every gradient of the two; returns the logits."""
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    logits = theirs(torch.tensor(inputs)).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets.ravel()))
    theirs.zero_grad()
    loss.backward()
    scale = np.abs(logits.detach().numpy()).max()
    assert np.abs(ours.forward(inputs) - logits.detach().numpy()).max() <= 1e-9 * scale
    assert abs(ours.loss(inputs, targets) - loss.item()) <= 1e-9 * loss.item()
    ours.zero_gradients()
    ours.backward()
    found = llama_folders.tensors(ours.config, ours.grads)
    for name, parameter in theirs.named_parameters():
        expected = parameter.grad.numpy()
        assert np.abs(found[name] - expected).max() <= 1e-9 * max(np.abs(expected).max(), 1e-3), name
    with torch.no_grad():
        return theirs(torch.tensor(tokens)).logits.numpy()


def cached_equals_uncached(ours, tokens):
    whole = ours.forward(tokens)
    decoder, cache = OpsDecoder(ours), KVCache(ours.config, batch=2, dtype=np.float64)
    found = [decoder.extend(tokens[:, :3], cache, every=True)]
    found += [decoder.extend(tokens[:, i : i + 1], cache, every=True) for i in range(3, tokens.shape[1])]
    assert np.abs(np.concatenate(found, axis=1) - whole).max() <= 1e-9 * np.abs(whole).max()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_a_random_model_of_transformers(kind, seed, tmp_path):
    check(kind, seed, tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(3, 103))
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_more_of_each(kind, seed, tmp_path):
    check(kind, seed, tmp_path)


# ---- without transformers ----------------------------------------------------------------------------------

SIZES = dict(vocab_size=31, block_size=12, n_layer=3, n_head=4, n_embd=24)
LLAMA = dict(norm="rmsnorm", positions="rotary", mlp="swiglu", n_inner=20, bias=False, n_kv_head=2)
FORMS = {
    "llama": (LLAMA, "llama"),
    "llama 3": (dict(LLAMA, tied=False, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 16)), "llama"),
    "biased llama": (dict(LLAMA, bias=True, rope_scaling=RopeScaling("linear", 2.0)), "llama"),
    "mistral": (dict(LLAMA, sliding_window=4, tied=False), "mistral"),
    "qwen 2": (dict(LLAMA, bias="qkv", norm_epsilon=1e-6), "qwen2"),
    "qwen 2 with a window": (dict(LLAMA, bias="qkv", sliding_window=4, window_from=1), "qwen2"),
    "qwen 3": (dict(LLAMA, qk_norm=True, head_dim=10), "qwen3"),
    "usual widths": (dict(LLAMA, n_inner=None, n_kv_head=None), "llama"),
    "qwen 3, heads of any width": (dict(LLAMA, qk_norm=True, head_dim=10, n_embd=18), "qwen3"),
    "a mixture": (dict(norm="rmsnorm", mlp="swiglu", sliding_window=3), "gpt_numpy"),
    "another": (
        dict(positions="rotary", rope_pairing="neighbours", rope_scaling=RopeScaling("linear", 2.0)),
        "gpt_numpy",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_reads_back_as_it_was(form, tmp_path):
    fields, model_type = FORMS[form]
    made = GPT(GPTConfig(**{**SIZES, **fields}), seed=2, ops=layers)
    made.params.flat += 0.1 * np.random.default_rng(0).standard_normal(made.params.flat.size).astype(np.float32)
    made.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == model_type
    read = GPT.load(tmp_path, ops=layers)
    assert read.config == made.config
    np.testing.assert_array_equal(read.params.flat, made.params.flat)
    config, views = huggingface.load_views(tmp_path)
    assert config == made.config and list(views) == list(made.params)
    assert all(np.array_equal(views[name], view) for name, view in made.params.items())


@pytest.mark.parametrize(
    "without_effect", [dict(window_from=2), dict(n_inner=96), dict(n_kv_head=4), dict(head_dim=6)], ids=str
)
def test_what_has_no_effect_or_is_usual_makes_no_other_model(without_effect, tmp_path):
    config = GPTConfig(**SIZES, **(LLAMA | dict(n_inner=None, n_kv_head=None) | without_effect))
    assert config.canonical() == GPTConfig(**SIZES, **(LLAMA | dict(n_inner=None, n_kv_head=None)))
    GPT(config, ops=layers).save(tmp_path)
    assert GPT.load(tmp_path, ops=layers).config == config.canonical()
    assert GPTConfig(**SIZES, rope_theta=7.0, rope_pairing="neighbours").differing() == {}  # its positions are learned


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_hidden_layers": 4}, "missing tensors: layers.3"),
        ({"num_hidden_layers": 10**12}, "do not fit"),
        ({"num_key_value_heads": 4}, "num_key_value_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"intermediate_size": "20"}, "intermediate_size"),
        ({"hidden_act": "xielu"}, "hidden_act.*xielu"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type.*yarn"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "rope_scaling low_freq_factor"),
        ({"rope_scaling": 3}, "rope_scaling"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor.*0.5"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor.*0.5"),
        ({"rope_theta": 20_000.0}, "rope_theta"),
        ({"rms_norm_eps": 1e-4}, "rms_norm_eps"),
        ({"attention_bias": 1}, "attention_bias"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"hidden_size": None}, "hidden_size"),
        ({"head_dim": 5}, "head_size|head_dim"),
        ({"model_type": "qwen2"}, "another config.json.*|missing"),
    ],
)
def test_a_config_of_another_model(tmp_path, changes, message):
    GPT(GPTConfig(**SIZES, **LLAMA), ops=layers).save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointMismatch, match=message):
        GPT.load(tmp_path, ops=layers)


def test_kernels_and_layers_compute_the_same_from_a_folder(tmp_path):
    GPT(GPTConfig.preset("llama-tiny"), ops=layers).save(tmp_path)
    tokens = np.random.default_rng(0).integers(0, 256, (2, 17))
    found, expected = (GPT.load(tmp_path, np.float64, ops).forward(tokens) for ops in (kernels, layers))
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()
