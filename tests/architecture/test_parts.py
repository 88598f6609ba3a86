"""The parts that a configuration chooses: GPT-2 keeps its bits, and every other form keeps its promises."""

import copy
import pickle

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.config import GATED_ACTIVATIONS, PLAIN_ACTIVATIONS
from gpt_numpy.errors import ConfigError
from gpt_numpy.inference.cache import KVCache
from gpt_numpy.inference.decoder import OpsDecoder
from gpt_numpy.inference.panel_decoder import PanelDecoder
from gpt_numpy.parameters import table

SIZES = dict(vocab_size=31, block_size=9, n_layer=2, n_head=3, n_embd=12)
FORMS = {
    "gpt2": {},
    "relu, narrow": dict(mlp="relu", n_inner=7),
    "exact gelu, untied": dict(mlp="gelu_erf", tied=False, norm_epsilon=1e-3),
    "scores by layer": dict(scale_attn_by_inverse_layer_idx=True),
    "scores as they are": dict(scale_attn_weights=False, mlp="quick_gelu"),
    "llama": dict(norm="rmsnorm", positions="rotary", mlp="swiglu", n_inner=20, bias=False, n_kv_head=1),
    "qwen 2": dict(norm="rmsnorm", positions="rotary", mlp="swiglu", n_inner=20, bias="qkv", tied=False),
    "mistral": dict(norm="rmsnorm", positions="rotary", mlp="swiglu", bias=False, sliding_window=3),
    "qwen 3": dict(norm="rmsnorm", positions="rotary", mlp="geglu", bias=False, qk_norm=True, n_kv_head=1, head_dim=6),
    "no biases": dict(bias=False, positions="rotary", rope_pairing="neighbours", sliding_window=4, window_from=1),
}


def model(ops, dtype=np.float64, **fields):
    made = GPT(GPTConfig(**SIZES, **fields), seed=3, dtype=dtype, ops=ops)
    rng = np.random.default_rng(5)
    made.params.flat += 0.1 * rng.standard_normal(made.params.flat.size).astype(dtype)
    return made


def gpt2_by_hand(p, tokens, targets, n_layer, n_head):
    """GPT-2's loss, written out with layers."""
    x, _ = layers.embedding_forward(tokens, np.arange(tokens.shape[1]), p["wte.weight"], p["wpe.weight"])
    for i in range(n_layer):
        h = {name.removeprefix(f"h.{i}."): p[name] for name in p if name.startswith(f"h.{i}.")}
        normed, _ = layers.layernorm_forward(x, h["ln_1.weight"], h["ln_1.bias"])
        weights = (h[f"attn.{n}"] for n in ("c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias"))
        branch, _ = layers.multi_head_attention_forward(normed, *weights, n_head)
        x, _ = layers.residual_forward(x, branch)
        normed, _ = layers.layernorm_forward(x, h["ln_2.weight"], h["ln_2.bias"])
        weights = (h[f"mlp.{n}"] for n in ("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias"))
        branch, _ = layers.mlp_forward(normed, *weights)
        x, _ = layers.residual_forward(x, branch)
    x, _ = layers.layernorm_forward(x, p["ln_f.weight"], p["ln_f.bias"])
    return layers.lm_head_cross_entropy_forward(x, p["wte.weight"], targets)[0]


def batch(seed=0, shape=(2, 9)):
    return np.random.default_rng(seed).integers(0, 31, (2, *shape))


def test_gpt2_is_the_default_and_has_the_bits_of_the_layers_put_together():
    made = model(layers, np.float32)
    tokens, targets = batch()
    assert made.loss(tokens, targets) == gpt2_by_hand(made.params, tokens, targets, 2, 3)
    assert made.config.differing() == {} and "lm_head.weight" not in made.params


@pytest.mark.parametrize("form", FORMS)
def test_kernels_equal_layers(form):
    results = []
    for ops in (layers, kernels):
        made = model(ops, **FORMS[form])
        loss = made.loss_and_gradients(*batch(), 0.7)
        results.append((loss, made.grads.flat.copy(), made.forward(batch()[0])))
    (loss, grads, logits), (found_loss, found_grads, found_logits) = results
    assert found_loss == pytest.approx(loss, rel=1e-12)
    assert np.abs(found_grads - grads).max() <= 1e-12 * np.abs(grads).max()
    assert np.abs(found_logits - logits).max() <= 1e-12 * np.abs(logits).max()


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_alone_and_with_its_gradients(form):
    made = model(layers, **FORMS[form])
    tokens, targets = batch()
    loss = made.loss(tokens, targets)
    made.backward()
    expected = made.grads.flat.copy()
    made.zero_gradients()
    assert made.loss_and_gradients(tokens, targets) == loss
    np.testing.assert_array_equal(made.grads.flat, expected)
    again = model(layers, **FORMS[form])
    again.recompute = True
    again.loss_and_gradients(tokens, targets)
    np.testing.assert_array_equal(again.grads.flat, expected)


@pytest.mark.parametrize("ops", [layers, kernels], ids=lambda ops: ops.__name__)
@pytest.mark.parametrize("form", FORMS)
def test_the_first_gradients_may_replace_what_is_there(form, ops):
    """Every tensor of every form is written once and then added to: a tied one within the pass, all in the next."""
    made = model(ops, **FORMS[form])
    made.loss_and_gradients(*batch())
    once = made.grads.flat.copy()
    made.grads.flat.fill(np.nan)
    made.replace_gradients()
    made.loss(*batch())
    made.backward()
    np.testing.assert_allclose(made.grads.flat, once, rtol=1e-12, atol=1e-15)
    made.loss_and_gradients(*batch())
    np.testing.assert_allclose(made.grads.flat, 2 * once, rtol=1e-12, atol=1e-15)
    made.replace_gradients()
    made.zero_gradients()
    made.loss_and_gradients(*batch())
    np.testing.assert_array_equal(made.grads.flat, once)


@pytest.mark.parametrize("form", FORMS)
def test_decoders_agree_with_the_whole_pass(form):
    made = model(kernels, np.float32, **FORMS[form])
    tokens, _ = batch()
    expected = made.forward(tokens)
    for decoder in (OpsDecoder(made), PanelDecoder.pack(made)):
        cache = KVCache(made.config, batch=2)
        found = [decoder.extend(tokens[:, :3], cache, every=True)]
        found += [decoder.extend(tokens[:, i : i + 1], cache, every=True) for i in range(3, 9)]
        np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "form, format",
    [(form, "float32") for form in FORMS] + [(f, n) for f in ("gpt2", "llama") for n in ("bfloat16", "int8")],
)
def test_packed_weights_of_every_form(form, format):
    made = model(kernels, np.float32, **FORMS[form])
    packed = PanelDecoder.pack(made, format)
    unpacked = packed.weights.unpacked()
    assert set(unpacked) == set(made.params)
    with_their_values = copy.deepcopy(made)
    for name, view in with_their_values.params.items():
        view[...] = unpacked[name]
    tokens, _ = batch()
    expected = with_their_values.forward(tokens)[:, -1]
    found = packed.extend(tokens, KVCache(made.config, batch=2))
    np.testing.assert_allclose(found, expected, atol=(2e-5 if format != "int8" else 2e-3) * np.abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
def test_copies_and_pickles(form):
    made = model(layers, **FORMS[form])
    loss = made.loss(*batch())
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert twin.loss(*batch()) == loss and twin.parts.mlp is not made.parts.mlp


def test_the_table_follows_the_parts():
    shapes = table(GPTConfig(**SIZES, mlp="swiglu", n_inner=20, tied=False))
    assert shapes["h.0.mlp.c_fc.weight"] == (12, 40) and shapes["h.0.mlp.c_proj.weight"] == (20, 12)
    assert list(shapes)[-1] == "lm_head.weight" and shapes["lm_head.weight"] == (31, 12)


@pytest.mark.parametrize(
    "fields",
    [dict(norm="batchnorm"), dict(positions="none"), dict(n_kv_head=2), dict(n_kv_head=0), dict(bias="some")]
    + [dict(rope_theta=0.5), dict(rope_scaling=("yarn", 2.0)), dict(rope_scaling=("llama3", 2.0, 4.0, 1.0, 16))]
    + [
        dict(sliding_window=0),
        dict(window_from=-1),
        dict(rope_pairing="thirds"),
        dict(mlp="gelu_new"),
        dict(mlp=3),
        dict(n_inner=0),
        dict(n_inner=True),
        dict(norm_epsilon=-1e-5),
    ]
    + [dict(norm_epsilon=1e308), dict(tied=1), dict(scale_attn_weights="yes")],
    ids=str,
)
def test_values_that_no_model_has(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        GPTConfig(**SIZES, **fields)


def test_every_activation_trains_a_model():
    for name in (*PLAIN_ACTIVATIONS, *GATED_ACTIVATIONS):
        made = model(layers, mlp=name)
        tokens, targets = batch()
        before = made.loss_and_gradients(tokens, targets)
        made.params.flat -= 0.05 * made.grads.flat
        assert made.loss(tokens, targets) < before, name


def test_a_window_hides_what_lies_before_it():
    made = model(layers, **FORMS["mistral"])
    tokens, _ = batch()
    logits = made.forward(tokens)
    changed = tokens.copy()
    changed[:, 0] = (changed[:, 0] + 1) % 31
    # Two blocks with a window of 3: position t sees back to t − 4.
    difference = np.abs(made.forward(changed) - logits).max(axis=(0, 2))
    assert (difference[:5] > 0).all() and (difference[5:] == 0).all()


def test_presets_of_llama():
    config = GPTConfig.preset("llama-135m")
    assert (config.n_layer, config.n_embd, config.n_head, config.key_heads, config.mlp_width) == (30, 576, 9, 3, 1536)
    assert sum(int(np.prod(shape)) for shape in table(config).values()) == 134_515_008  # SmolLM2-135M's
    assert list(table(GPTConfig.preset("llama-tiny")))[1] == "h.0.ln_1.weight"
