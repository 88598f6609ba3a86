import pytest

from gpt_numpy import GPTConfig
from gpt_numpy.errors import ConfigError
from gpt_numpy.machine import memory
from gpt_numpy.machine.cost import needed_memory
from gpt_numpy.machine.memory import check_memory

SMALL = GPTConfig(vocab_size=11, block_size=6, n_layer=2, n_head=3, n_embd=12)


def test_memory_grows_with_all_that_is_held():
    base = needed_memory(SMALL, 4, False)
    assert needed_memory(SMALL, 8, False) > base > needed_memory(SMALL, 4, True)
    assert needed_memory(GPTConfig.preset("gpt2"), 1, True) > 3.4e9  # 28 bytes a parameter


def test_too_much_is_refused_in_bytes(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with pytest.raises(ConfigError, match="1,000 bytes free.*at least"):
        check_memory(SMALL, 4, False)
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    check_memory(SMALL, 4, False)
