"""The fast decoder of random Llama, Mistral, Qwen 2 and Qwen 3 shapes against ``OpsDecoder``, its specification."""

import random

import numpy as np
import pytest

from gpt_numpy import GPTConfig, generate
from gpt_numpy.inference import KVCache, panel_decoder
from gpt_numpy.inference.packed_file import load_packed, save_packed
from gpt_numpy.inference.panel_decoder import PanelDecoder
from gpt_numpy.interop import llama_folders
from gpt_numpy.kernels.runtime import threads
from tests.inference.test_panel_decoder import FORMATS, TOLERANCE, exact_of, random_model
from tests.interop.test_llama_folders import KINDS, fields_of

CONTEXT = 90


def random_config(kind, seed, activation=None):
    rng = random.Random(f"decode {kind} {seed}")
    fields = fields_of(kind, rng) | dict(model_type=kind.lower(), max_position_embeddings=CONTEXT)
    if activation is not None:  # each is compiled alone
        fields["hidden_act"] = activation
    if fields.get("sliding_window"):
        fields["sliding_window"] = rng.choice([1, 3, 17, 60])
    config = llama_folders.config_of(fields)
    return config.replace(rope_pairing=rng.choice(["halves", "neighbours"]))


def pair_of(config, format, products="float32"):
    """(a fast decoder, ``OpsDecoder`` in float64 of the weights that the first computes with)"""
    fast = PanelDecoder.pack(random_model(config, scale=0.3), format, products)
    return fast, exact_of(fast)


def agree(config, format, seed):
    fast, exact = pair_of(config, format)
    rng = np.random.default_rng(seed)
    caches = KVCache(config, 3), KVCache(config, 3, dtype=np.float64)
    long = int(rng.integers(panel_decoder.PROMPT_TOKENS, 50))
    for count, sequences, every in [
        (2, None, True),
        (1, [2, 0], False),
        (long, [1], True),  # read as a prompt
        (1, None, True),
        (int(rng.integers(3, 20)), [0, 1], True),
        (1, [1], False),
        (33, [2, 0], False),
        (1, None, False),
    ]:
        tokens = rng.integers(0, config.vocab_size, (3 if sequences is None else len(sequences), count))
        found, expected = (d.extend(tokens, c, sequences, every) for d, c in zip((fast, exact), caches))
        assert np.abs(found - expected).max() <= TOLERANCE[format] * max(1.0, np.abs(expected).max())
    for own, theirs in ((caches[0].keys, caches[1].keys), (caches[0].values, caches[1].values)):
        for sequence, length in enumerate(caches[0].lengths):
            own_part, their_part = (a[:, sequence, :, :length] for a in (own, theirs))
            assert np.abs(own_part - their_part).max() <= TOLERANCE[format] * max(1.0, np.abs(their_part).max())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_random_shape(kind, format, seed):
    agree(random_config(kind, seed, "silu"), format, seed)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(5, 105))
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_more_shapes(kind, format, seed):
    agree(random_config(kind, seed), format, seed)


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_bits_however_tokens_come_and_threads_share_them(format, monkeypatch):
    config = random_config("Qwen3", 4, "silu").replace(sliding_window=5, window_from=1, n_layer=2)
    fast, _ = pair_of(config, format)
    tokens = np.random.default_rng(4).integers(0, config.vocab_size, (4, 9))

    def run(rows, cuts):
        cache = KVCache(config, len(rows))
        return np.concatenate([fast.extend(part, cache, every=True) for part in np.split(tokens[rows], cuts, 1)], 1)

    together = run([0, 1, 2, 3], [5, 6])
    for row in range(4):
        assert np.array_equal(run([row], [1, 3])[0], together[row])
    monkeypatch.setattr(panel_decoder, "PASS_ROWS", 3)
    assert np.array_equal(run([0, 1, 2, 3], [4]), together)
    before = threads.set_count(1)
    try:
        assert np.array_equal(run([0, 1, 2, 3], [5, 6]), together)
        alone = fast.extend(np.tile(tokens, (1, 5)), KVCache(config, 4), every=True)
    finally:
        threads.set_count(before)
    assert np.array_equal(fast.extend(np.tile(tokens, (1, 5)), KVCache(config, 4), every=True), alone)


def test_prompts_of_all_lengths():
    config = random_config("Mistral", 1, "silu").replace(sliding_window=7, n_kv_head=None)
    fast, exact = pair_of(config, "float32")
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (1, CONTEXT))
    expected = exact.extend(tokens, KVCache(config, dtype=np.float64), every=True)[0]
    for length in range(1, CONTEXT + 1):
        found = fast.extend(tokens[:, :length], KVCache(config))[0]
        assert np.abs(found - expected[length - 1]).max() <= 2e-5 * max(1.0, np.abs(expected).max()), length


def test_text_past_the_context_and_the_largest_in_passing():
    config = random_config("Llama", 2, "silu").replace(block_size=40)
    fast, exact = pair_of(config, "float32")
    prompts = [[3, 1, 4], [1, 2, 4, 3, 0]]
    found = generate(fast, prompts, 60, temperature=0)
    expected = generate(exact, prompts, 60, temperature=0)
    assert [f.tolist() for f in found] == [e.tolist() for e in expected]


@pytest.mark.parametrize("format", ["float32", "bfloat16"])
def test_a_prompt_with_products_in_bfloat16(format):
    config = random_config("Qwen2", 3, "silu").replace(n_embd=36, n_head=6, n_kv_head=2, head_dim=6, n_inner=50)
    fast, plain = pair_of(config, format, "bfloat16")
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (2, 70))
    found = fast.extend(tokens, KVCache(config, 2), every=True)
    expected, other = (
        d.extend(tokens, KVCache(config, 2, dtype=np.float64), every=True) for d in (exact_of(fast, "bfloat16"), plain)
    )
    assert np.median(np.abs(found - expected)) < 0.1 * np.median(np.abs(found - other))


@pytest.mark.parametrize("format", FORMATS)
def test_a_packed_folder(format, tmp_path):
    config = GPTConfig.preset("llama-tiny", qk_norm=True, tied=False, bias="qkv")
    fast, _ = pair_of(config, format)
    save_packed(tmp_path, fast.weights)
    read = load_packed(tmp_path)
    assert read.config == config and read.format == format
    for name in ("data", "vectors", "places", "head_norms", "positions", "offsets"):
        assert np.array_equal(getattr(read, name), getattr(fast.weights, name)), name
