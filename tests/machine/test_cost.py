"""The formulas of ``machine.cost`` against what a step really does and takes."""

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels, parameters
from gpt_numpy.machine import cost
from gpt_numpy.products import PRODUCTS
from gpt_numpy.workspace import Workspace

CONFIG = GPTConfig(vocab_size=101, block_size=16, n_layer=3, n_head=4, n_embd=64)


OTHERS = {
    "shared key heads": dict(n_kv_head=2),
    "wide heads": dict(head_dim=32),
    "norms of queries and keys": dict(qk_norm=True, n_kv_head=2, positions="rotary"),
    "llama": dict(norm="rmsnorm", positions="rotary", mlp="swiglu", n_inner=90, n_kv_head=1, bias=False, tied=False),
}


@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("parts", [{}, *OTHERS.values()], ids=["gpt2", *OTHERS])
def test_the_bytes_of_a_step_are_those_that_its_workspace_takes(parts, recompute, products):
    workspace = Workspace()
    config = CONFIG.replace(**parts)
    model = GPT(config, ops=kernels, workspace=workspace, recompute=recompute, products=products)
    tokens = np.zeros((2, 16), np.int64)
    for _ in range(2):
        model.loss_and_gradients(tokens, tokens)
    expected = cost.training_memory(config, 2, 16, recompute, products)
    predicted = sum(expected[f"{kept}"] for kept in expected if kept.startswith(("kept", "made")))
    # What is not in the workspace: a mean, a deviation and a logarithm a row, some two percent of it.
    assert 0.94 * predicted <= workspace.nbytes <= predicted
    assert expected["parameters"] == model.params.flat.nbytes
    assert expected["gradients"] == model.grads.flat.nbytes


def test_a_step_after_the_second_takes_no_new_memory():
    workspace = Workspace()
    model = GPT(CONFIG, ops=kernels, workspace=workspace)
    tokens = np.zeros((2, 16), np.int64)
    places = []
    for _ in range(4):
        model.loss_and_gradients(tokens, tokens)
        places.append({name: region._block.ctypes.data for name, region in workspace._regions.items()})
    assert places[1] == places[2] == places[3]


def test_parts_add_up():
    for name in ("gpt2", "tiny"):
        config = GPTConfig.preset(name)
        assert sum(cost.parameters_by_part(config).values()) == parameters.count(config)


def test_operations_of_a_step():
    flops = cost.step_flops(CONFIG, 2, 16)
    assert flops["mlp"] == 3 * 3 * 2 * (2 * 16) * (64 * 256 + 256 * 64)
    assert flops["head"] == 3 * 2 * (2 * 16) * 64 * 101
    assert flops["attention projections"] == 3 * 3 * 2 * (2 * 16) * (64 * 192 + 64 * 64)
    # A query sees (T + 1) / 2 keys on average; two products of head_size for each, over all heads.
    assert flops["attention"] == 3 * 3 * 2 * 2 * 64 * 2 * 16 * 17 / 2
    assert cost.training_flops_per_token(CONFIG) == sum(flops.values()) / 32


@pytest.mark.parametrize("parts", OTHERS.values(), ids=OTHERS)
def test_operations_count_every_weight_once_whatever_the_parts(parts):
    config = CONFIG.replace(n_layer=1, **parts)
    flops = cost.step_flops(config, 1, 16)
    used = {
        n: v for n, v in parameters.table(config).items() if len(v) == 2 and n not in ("wpe.weight", "lm_head.weight")
    }
    weights = sum(int(np.prod(shape)) for shape in used.values())  # the head is one product, tied or not
    products = sum(number for name, number in flops.items() if name != "attention")
    assert products == 6 * 16 * weights
    assert flops["attention"] == 3 * 2 * 2 * config.heads_width * 16 * 17 / 2
    attention = 4 * config.heads_width * 10
    assert cost.generation_flops_per_token(config, 10) == 2 * weights + attention
    assert cost.generation_bytes_per_token(config, 0, 10) == 2 * 10 * config.key_heads * config.head_size * 4


def test_a_window_bounds_the_keys_that_are_counted():
    windowed = CONFIG.replace(sliding_window=4, window_from=1)  # blocks 1 and 2 of three
    visible = 16 * 17 // 2 + 2 * sum(min(t + 1, 4) for t in range(16))
    assert cost.step_flops(windowed, 1, 16)["attention"] == 3 * 2 * 2 * 64 * visible
    per_key = 2 * 64 * 4
    assert cost.generation_bytes_per_token(windowed, 0, 10) == (10 + 4 + 4) * per_key


def test_a_faster_machine_is_expected_to_take_less_time():
    slow = cost.expected_seconds(CONFIG, 2, 16, 1e11, 1e10)
    assert cost.expected_seconds(CONFIG, 2, 16, 2e11, 1e10) < slow
    assert cost.expected_seconds(CONFIG, 2, 16, 1e11, 2e10) < slow
    assert cost.expected_seconds(CONFIG, 2, 16, 1e11, 1e10, recompute=True) != slow


def test_gpt2s_operations_are_six_a_weight_and_attention():
    flops = cost.training_flops_per_token(GPTConfig.preset("gpt2"))
    assert flops == pytest.approx(6 * 123.53e6 + 6 * 12 * 768 * 1025, rel=1e-3)
