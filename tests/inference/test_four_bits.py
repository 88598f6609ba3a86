"""int4: steps and zeros against plain NumPy, what importance does, and calibrating on a text."""

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.errors import CheckpointMismatch
from gpt_numpy.inference.comparing import importance_on
from gpt_numpy.inference.packed import MATRICES, NIBBLE_BLOCK, PANEL, PackedWeights, importance_of_norms
from gpt_numpy.inference.packed_file import load_packed, save_packed

NAME = "h.0.mlp.c_proj.weight"
LLAMA = dict(norm="rmsnorm", positions="rotary", mlp="swiglu", bias=False, n_kv_head=1, n_inner=70)


def model_of(**fields):
    sizes = dict(vocab_size=19, block_size=12, n_layer=2, n_head=2, n_embd=36)
    model = GPT(GPTConfig(**{**sizes, **fields}), seed=1, ops=layers)
    rng = np.random.default_rng(2)
    model.params.flat += 0.3 * rng.standard_normal(model.params.flat.size).astype(np.float32)
    return model


def rounded(matrix, importance=None):
    """``matrix`` (K, N) as it is after packing, as the c_proj of a feed-forward layer."""
    K, N = matrix.shape
    config = GPTConfig(vocab_size=2, block_size=2, n_layer=1, n_head=1, n_embd=N, n_inner=K)
    model = GPT(config, ops=layers)
    model.params[NAME][...] = matrix
    weights = None if importance is None else importance_of_norms(config, model.params) | {NAME: importance}
    return PackedWeights.pack(config, model.params, "int4", weights).unpacked()[NAME]


def by_range(block):
    """The usual rounding to 16 numbers between the least and the greatest of a block (k, N), of which 0 is one."""
    low, high = np.minimum(block.min(axis=0), 0), np.maximum(block.max(axis=0), 0)
    step = np.where(high > low, (high - low) / 15, 1)
    zero = np.rint(-low / step)
    return (np.clip(np.rint(block / step + zero), 0, 15) - zero) * step


@pytest.mark.parametrize("K, N", [(32, 16), (64, 48), (27, 3), (100, 40), (129, 17)])
@pytest.mark.parametrize("kind", ["normal", "shifted", "heavy"])
def test_blocks_are_rounded_better_than_by_their_ranges(K, N, kind):
    rng = np.random.default_rng(K)
    matrix = {
        "normal": rng.standard_normal((K, N)),
        "shifted": rng.uniform(1, 3, (K, N)),
        "heavy": rng.standard_t(2, (K, N)),
    }[kind].astype(np.float32)
    found = rounded(matrix)
    for first in range(0, K, NIBBLE_BLOCK):
        block, error = (a[first : first + NIBBLE_BLOCK] for a in (matrix, found - matrix))
        if len(block) == NIBBLE_BLOCK:
            assert (error**2).sum() <= (1.05 if kind == "shifted" else 0.99) * ((by_range(block) - block) ** 2).sum()
        assert np.all(np.abs(error).max(axis=0) <= 0.2 * np.abs(block).max(axis=0))


def test_blocks_of_zeros_of_one_sign_and_of_any_size():
    matrix = np.zeros((96, PANEL), np.float32)
    matrix[:32] = 0
    matrix[32:64] = -np.linspace(0, 3, 32)[:, None]
    matrix[64:, ::2] = 1e-30
    matrix[64:, 1::2] = -3e15
    found = rounded(matrix)
    assert np.all(found[:32] == 0)
    assert np.abs(found[32:64] - matrix[32:64]).max() <= 0.55 * 3 / 15
    assert np.abs(found[64:] / matrix[64:] - 1).max() <= 0.04


def test_numbers_that_the_format_has_stay():
    steps = np.float32(2.0) ** np.arange(-8, 8)
    numbers = np.random.default_rng(0).integers(0, 16, (32, PANEL)) - np.arange(PANEL)
    numbers[0], numbers[1] = -np.arange(PANEL), 15 - np.arange(PANEL)
    matrix = (numbers * steps).astype(np.float32)
    assert np.array_equal(rounded(matrix), matrix)


def test_errors_go_where_they_count_least():
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((64, 32)).astype(np.float32)
    importance = np.where(np.arange(64) % 8 == 0, 100.0, 0.1).astype(np.float32)
    with_it, without = ((rounded(matrix, i) - matrix) ** 2 for i in (importance, np.ones(64, np.float32)))
    assert (importance[:, None] * with_it).sum() < 0.8 * (importance[:, None] * without).sum()
    assert with_it.sum() > without.sum()


def test_importance_is_measured_behind_the_begin_of_a_text():
    model = model_of()
    size, tokens = model.config.block_size, np.random.default_rng(0).integers(2, 19, 30)
    for given in (tokens, np.concatenate([[0, 1], tokens])):
        found = importance_on(model, given, [0, 1])
        windows = [np.concatenate([[0, 1], tokens[at : at + size - 2]]) for at in range(0, 30, size - 2)]
        alone = [(len(window), importance_on(model, window)) for window in windows]
        for name in MATRICES:
            name = f"h.1.{name}"
            expected = sum(n * one[name] for n, one in alone) / sum(n for n, _ in alone)
            np.testing.assert_allclose(found[name], expected, rtol=1e-5)


@pytest.mark.parametrize("fields", [{}, LLAMA, dict(LLAMA, qk_norm=True, head_dim=10), dict(mlp="relu")], ids=str)
@pytest.mark.parametrize("ops", [layers, kernels])
def test_importance_on_a_text(fields, ops):
    model = model_of(**fields)
    model = GPT(model.config, ops=ops, params=model.params)
    tokens = np.random.default_rng(0).integers(0, 19, 30)  # two windows and a half
    found = importance_on(model, tokens)
    assert set(found) == {f"h.{i}.{name}" for i in range(2) for name in MATRICES}
    inputs = {name: [] for name in found}
    names = {view.ctypes.data: name for name, view in model.params.items()}

    class Spy:
        def __getattr__(self, name):
            return getattr(layers, name)

        def linear_forward(self, x, weight, *rest):
            inputs[names[weight.ctypes.data]].append(x.reshape(-1, x.shape[-1]))
            return layers.linear_forward(x, weight, *rest)

        def multi_head_attention_forward(self, x, weight, bias, proj, proj_bias, *rest, **options):
            inputs[names[weight.ctypes.data]].append(x[0])
            # c_proj as the identity gives the heads themselves
            width = len(proj)
            heads, _ = layers.multi_head_attention_forward(
                x, weight, bias, np.eye(width, dtype=x.dtype), None, *rest, **options
            )
            inputs[names[proj.ctypes.data]].append(heads[0])
            return layers.multi_head_attention_forward(x, weight, bias, proj, proj_bias, *rest, **options)

        def mlp_forward(self, x, fc, fc_bias, proj, proj_bias, alloc, alloc_out, activation):
            inputs[names[fc.ctypes.data]].append(x[0])
            width = len(proj)
            eye = np.eye(width, dtype=x.dtype)
            activated, _ = layers.mlp_forward(
                np.pad(x, ((0, 0), (0, 0), (0, width))),
                np.pad(fc, ((0, width), (0, 0))),
                fc_bias,
                np.pad(eye, ((0, 0), (0, x.shape[2]))),
                None,
                activation=activation,
            )
            inputs[names[proj.ctypes.data]].append(activated[0, :, :width])
            return layers.mlp_forward(x, fc, fc_bias, proj, proj_bias, alloc, alloc_out, activation)

    reference = GPT(model.config, ops=Spy(), params=model.params)
    for start in (0, 12, 24):
        reference.forward(tokens[None, start : start + 12])
    for name, parts in inputs.items():
        expected = (np.concatenate(parts).astype(np.float64) ** 2).mean(axis=0)
        np.testing.assert_allclose(found[name], expected, rtol=2e-4, atol=1e-6, err_msg=name)


def test_the_norms_say_what_is_important_without_a_text():
    model = model_of(**LLAMA)
    found = importance_of_norms(model.config, model.params)
    np.testing.assert_array_equal(found["h.1.attn.c_attn.weight"], model.params["h.1.ln_1.weight"] ** 2)
    np.testing.assert_array_equal(found["h.0.mlp.c_fc.weight"], model.params["h.0.ln_2.weight"] ** 2)
    assert np.all(found["h.0.mlp.c_proj.weight"] == 1) and len(found["h.0.mlp.c_proj.weight"]) == 70


def test_a_step_that_is_no_number_is_refused(tmp_path):
    model = model_of(**LLAMA)
    packed = PackedWeights.pack(model.config, model.params, "int4")
    save_packed(tmp_path, packed)
    assert np.array_equal(load_packed(tmp_path).data, packed.data)
    packed.data[NIBBLE_BLOCK * PANEL // 2 + 1] = 0xFF  # all bits of a step's exponent
    save_packed(tmp_path, packed)
    with pytest.raises(CheckpointMismatch, match="not a finite number"):
        load_packed(tmp_path)
