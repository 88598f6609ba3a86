import numpy as np
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


@pytest.mark.parametrize("limit", ["memory_left", "_process_left"])
def test_a_narrow_limit_counts_what_the_program_itself_takes(monkeypatch, limit):
    """Killed after the check had passed: the kernels, and the picture of the losses, took what was left."""
    owner = memory.control_groups if limit == "memory_left" else memory
    needed = needed_memory(SMALL, 4, False)
    for free, right in ((needed + (1 << 20), False), (needed + (400 << 20), True), (8 << 30, True)):
        monkeypatch.setattr(owner, limit, lambda free=free: free)
        monkeypatch.setattr(memory, "_machine_left", lambda: 64 << 30)
        if right:
            check_memory(SMALL, 4, False)
        else:
            with pytest.raises(ConfigError, match=f"{free:,} bytes free (of this container|under ulimit -v).*at least"):
                check_memory(SMALL, 4, False)


def test_a_run_does_not_begin_where_it_would_be_killed_before_the_check(monkeypatch, tmp_path):
    from gpt_numpy.training import Settings, start

    monkeypatch.setattr(memory.control_groups, "memory_left", lambda: 100 << 20)
    with pytest.raises(
        ConfigError, match=f"{100 << 20:,} bytes free of this container.*at least [0-9,]+ bytes to begin"
    ):
        start(Settings(data=(str(tmp_path / "missing"),), ops="layers"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_measuring_takes_little_of_scarce_memory(monkeypatch):
    from gpt_numpy.machine import limits

    sizes = []
    monkeypatch.setattr(limits, "available_memory", lambda: 80 << 20)
    monkeypatch.setattr(limits.np, "ones", lambda count, dtype: sizes.append(4 * count) or np.zeros(count, dtype))
    assert limits.read_bandwidth(0.001) > 0 and sizes == [10 << 20]
