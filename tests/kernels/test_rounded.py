"""Products in bfloat16: kernels.rounded is layers.rounded, which is layers on rounded operands, within the stated bound."""

import copy
import inspect

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.errors import ConfigError, KernelError
from gpt_numpy.kernels import rounded as fast
from gpt_numpy.kernels.runtime import threads
from gpt_numpy.layers import rounded as oracle
from gpt_numpy.model import DropoutAt
from gpt_numpy.products import round_to_bfloat16


def make(rng, rows=(2, 5), K=12, N=20):
    return [rng.standard_normal(shape).astype(np.float32) for shape in ((*rows, K), (K, N), (N,), (*rows, N))]


def test_both_export_what_kernels_and_layers_export():
    assert sorted(fast.__all__) == sorted(oracle.__all__) == sorted(layers.__all__)
    for name in layers.__all__:
        found = inspect.signature(getattr(fast, name)).parameters
        for twin in (oracle, kernels):
            expected = inspect.signature(getattr(twin, name)).parameters
            assert [(p.name, p.kind, p.default) for p in found.values()] == [
                (p.name, p.kind, p.default) for p in expected.values()
            ]


@pytest.mark.parametrize("K", [1, 2, 7, 12, 33])
def test_linear_on_rounded_operands(rng, K):
    x, weight, bias, dout = make(rng, K=K)
    bias += 1e-3
    for ops, bound in ((oracle, 0), (fast, 1e-6)):
        out, cache = ops.linear_forward(x, weight, bias)
        dx, dweight, dbias = ops.linear_backward(dout, cache)
        r = round_to_bfloat16
        expected = (
            r(x).astype(np.float64) @ r(weight) + bias,
            r(dout).astype(np.float64) @ r(weight).T,
            r(x).reshape(-1, K).T.astype(np.float64) @ r(dout).reshape(-1, 20),
            dout.reshape(-1, 20).sum(axis=0, dtype=np.float64),
        )
        for found, right in zip((out, dx, dweight, dbias), expected):
            assert np.abs(found - right).max() <= max(bound, 1e-6) * max(1, np.abs(right).max())


def test_the_bound_on_paper_holds_and_is_not_idle(rng):
    x, weight, bias, _ = make(rng, (40,), 300, 50)
    out, _ = fast.linear_forward(x, weight, bias)
    exact = x.astype(np.float64) @ weight + bias
    u = 2.0**-8
    bound = (300 * 2.0**-24 + 2 * u + u * u) * (np.abs(x).astype(np.float64) @ np.abs(weight)) + 1e-6
    error = np.abs(out - exact)
    assert (error <= bound).all() and error.max() > 1e-3


def model(ops, dtype=np.float32, **options):
    config = GPTConfig(vocab_size=31, block_size=9, n_layer=2, n_head=3, n_embd=12, dropout=0.1)
    return GPT(config, seed=3, dtype=dtype, ops=ops, products="bfloat16", **options)


def test_the_whole_model_against_the_oracle(rng):
    tokens, targets = rng.integers(0, 31, (2, 3, 9))
    results = []
    for ops in (layers, kernels):
        gpt = model(ops)
        results.append((gpt.loss_and_gradients(tokens, targets, dropout_at=DropoutAt(1, 2)), gpt.grads.flat.copy()))
    plain = GPT(gpt.config, seed=3, ops=kernels)
    plain.loss_and_gradients(tokens, targets, dropout_at=DropoutAt(1, 2))
    (loss, grads), (found_loss, found) = results
    # A sum in another order can move an activation past a tie, where its rounding jumps by 2⁻⁸ of it.
    assert found_loss == pytest.approx(loss, rel=1e-4)
    distance = np.linalg.norm(found - grads) / np.linalg.norm(grads)
    assert distance < 2e-3 and distance < np.linalg.norm(found - plain.grads.flat) / np.linalg.norm(grads)


def train(ops, steps, products, n_threads=2):
    gpt = GPT(model(ops).config, seed=3, ops=ops, products=products, recompute=n_threads == 2)
    before, rng = threads.set_count(n_threads), np.random.default_rng(1)
    moments, losses = np.zeros((2, gpt.params.flat.size), np.float32), []
    boundaries, decays = np.array([0, 400, gpt.params.flat.size]), np.array([0.1, 0.0])
    for step in range(steps):
        tokens = rng.integers(0, 31, (4, 10))
        gpt.zero_gradients()
        losses.append(gpt.loss_and_gradients(tokens[:, :-1], tokens[:, 1:]))
        ops.adamw_update(gpt.params.flat, gpt.grads.flat, *moments, boundaries, decays, 1e-2, 0.9, 0.95, 1e-8, step + 1)
    threads.set_count(before)
    return np.array(losses), gpt.params.flat.copy()


def test_twenty_steps_follow_the_oracle():
    expected, _ = train(layers, 20, "bfloat16")
    found, _ = train(kernels, 20, "bfloat16")
    assert np.abs(found - expected).max() <= 5e-3


def test_the_same_bits_with_one_thread_and_with_two_and_when_it_recomputes():
    one, two = train(kernels, 3, "bfloat16", 1)[1], train(kernels, 3, "bfloat16", 2)[1]
    np.testing.assert_array_equal(one, two)
    assert (one != train(kernels, 3, "float32")[1]).any()


def test_a_copy_rounds_too_and_other_ops_are_refused():
    assert copy.deepcopy(model(kernels)).ops is fast and model(layers).ops is oracle
    with pytest.raises(ConfigError, match="layers or gpt_numpy.kernels"):
        model(object())
    with pytest.raises(ConfigError, match="products"):
        GPT(GPTConfig.preset("tiny"), products="float16")
    x = np.ones((2, 3))
    with pytest.raises(KernelError, match="float32"):
        fast.linear_forward(x, x.T, np.ones(2))
