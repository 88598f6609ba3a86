import numpy as np

from gpt_numpy import GPTConfig, parameters
from gpt_numpy.inference import KVCache, figures
from gpt_numpy.inference.packed import PackedWeights
from gpt_numpy.inference.panel_decoder import PanelDecoder
from gpt_numpy.machine.cost import generation_flops_per_token


def test_operations_of_a_token_are_two_for_each_weight_of_a_matrix():
    config = GPTConfig.preset("gpt2")
    matrices = sum(np.prod(s) for n, s in parameters.table(config).items() if len(s) == 2 and n != "wpe.weight")
    assert generation_flops_per_token(config, 0) == 2 * matrices
    # One more cached token: a product with its key and one with its value in each layer.
    assert generation_flops_per_token(config, 8) - generation_flops_per_token(config, 7) == 2 * 2 * 12 * 768


def test_a_meter_counts_what_passes_through_it():
    config = GPTConfig(vocab_size=37, block_size=16, n_layer=2, n_head=3, n_embd=30)
    meter = figures.Meter(PanelDecoder(PackedWeights.pack(config, parameters.Parameters(config), "float32")))
    cache = KVCache(config, 2)
    meter.extend(np.zeros((2, 5), int), cache)
    meter.extend(np.zeros((2, 1), int), cache)
    meter.extend(np.zeros((1, 1), int), cache, np.array([1]))
    assert (meter.prefill.tokens, meter.decode.tokens) == (10, 3)
    weights = meter.inner.weights.bytes_per_token
    assert meter.decode.bytes == 2 * weights + (2 * 5 + 6) * 2 * 2 * 30 * 4
    assert meter.prefill.flops == 10 * generation_flops_per_token(config, 2.5, logits=False)
    assert meter.decode.flops == 2 * generation_flops_per_token(config, 5) + generation_flops_per_token(config, 6)


def test_a_report_names_both_phases_once():
    config = GPTConfig(vocab_size=37, block_size=16, n_layer=2, n_head=3, n_embd=30)
    meter = figures.Meter(PanelDecoder(PackedWeights.pack(config, parameters.Parameters(config), "float32")))
    cache = KVCache(config)
    meter.extend(np.zeros((1, 5), int), cache)
    meter.extend(np.zeros((1, 1), int), cache)
    prefill, decode, limits, why = meter.report()
    assert prefill.startswith("prefill 5 tokens") and decode.startswith("decode  1 tokens")
    assert "GFLOP/s" in limits and "memory limits decode" in why
    assert len(meter.report()) == 2  # forgotten
