import pytest

from gpt_numpy import GPTConfig
from gpt_numpy.errors import ConfigError
from gpt_numpy.training import throughput
from gpt_numpy.training.throughput import check_memory, flops_per_token, measure_peak, needed_memory

SMALL = GPTConfig(vocab_size=11, block_size=6, n_layer=2, n_head=3, n_embd=12)


def test_flops_are_those_of_every_product_written_out():
    C, T, V, L = 12, 6, 11, 2
    projections = 2 * (C * 3 * C + C * C + C * 4 * C + 4 * C * C)  # two operations a weight
    attention = 2 * 2 * C * T / 2  # q·k and weights·v over half of T keys
    expected = 3 * (L * (projections + attention) + 2 * C * V)
    # Biases and layernorms, which `count` includes, are the difference: small, and in no product.
    assert expected <= flops_per_token(SMALL) < 1.1 * expected


def test_gpt2s_are_six_a_parameter_and_attention():
    assert flops_per_token(GPTConfig.preset("gpt2")) == pytest.approx(6 * 123.65e6 + 6 * 12 * 768 * 1024, rel=1e-3)


def test_peak_is_a_speed():
    assert 1e7 < measure_peak(size=128, repeats=2) < 1e15


def test_memory_grows_with_all_that_is_held():
    base = needed_memory(SMALL, 4, False)
    assert needed_memory(SMALL, 8, False) > base > needed_memory(SMALL, 4, True)
    assert needed_memory(GPTConfig.preset("gpt2"), 1, True) > 3.4e9  # 28 bytes a parameter


def test_too_much_is_refused_in_bytes(monkeypatch):
    monkeypatch.setattr(throughput, "available_memory", lambda: 1000)
    with pytest.raises(ConfigError, match="1,000 bytes free.*at least"):
        check_memory(SMALL, 4, False)
    monkeypatch.setattr(throughput, "available_memory", lambda: None)
    check_memory(SMALL, 4, False)
