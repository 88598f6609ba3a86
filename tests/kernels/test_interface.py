"""Kernels and layers are two forms of one thing: same names, same calls, same gradients, same model."""

import inspect

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.kernels.runtime import threads
from gpt_numpy.model import DropoutAt
from gpt_numpy.study import cases, table


def test_the_same_names_are_exported():
    kinds = ("_forward", "_backward", "_gradients", "_update", "_norm")
    for ops in (layers, kernels):
        own = {name for name, value in vars(ops).items() if name.endswith(kinds) and inspect.isfunction(value)}
        assert set(ops.__all__) == own | {"clear_gradients"}
    assert kernels.__all__ == layers.__all__


@pytest.mark.parametrize("name", layers.__all__)
def test_the_same_signature(name):
    expected = inspect.signature(getattr(layers, name)).parameters
    found = inspect.signature(getattr(kernels, name)).parameters
    assert list(found) == list(expected)
    assert {p: found[p].kind for p in found} == {p: expected[p].kind for p in expected}
    assert {p: found[p].default for p in found} == {p: expected[p].default for p in expected}


@pytest.mark.parametrize(
    "case", cases.layer_cases(kernels) + cases.optimizer_cases(kernels), ids=lambda case: case.name
)
def test_gradients_by_differences(case):
    before = threads.set_count(1)  # thousands of tiny calls, for which waking a thread is most of the work
    report = cases.check_case(case)
    threads.set_count(before)
    assert report.passed, "\n".join(table.lines(case.name, report))


def make_model(ops, dtype, dropout, recompute=False):
    config = GPTConfig(vocab_size=31, block_size=9, n_layer=2, n_head=3, n_embd=12, dropout=dropout)
    return GPT(config, seed=3, dtype=dtype, ops=ops, recompute=recompute)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(2, 9), (1, 1), (3, 5)])
def test_the_whole_model_in_float64(rng, dropout, shape):
    tokens, targets = rng.integers(0, 31, (2, *shape))
    first_key = np.minimum(np.arange(shape[1]), 2) * np.ones(shape, int)
    results = []
    for ops in (layers, kernels):
        model = make_model(ops, np.float64, dropout)
        loss = model.loss_and_gradients(
            tokens, targets, 0.7, first_key=first_key, dropout_at=DropoutAt(5, 6, 7) if dropout else None
        )
        results.append((loss, model.grads.flat.copy()))
    (loss, grads), (found_loss, found_grads) = results
    assert found_loss == pytest.approx(loss, rel=1e-12)
    assert np.abs(found_grads - grads).max() <= 1e-12 * np.abs(grads).max()


def train(ops, steps, dtype=np.float32, recompute=False):
    model, rng = make_model(ops, dtype, 0.1, recompute), np.random.default_rng(1)
    flat, losses = model.params.flat, []
    moments = np.zeros((2, flat.size), dtype)
    boundaries, decays = np.array([0, 400, flat.size]), np.array([0.1, 0.0])
    for step in range(steps):
        tokens = rng.integers(0, 31, (4, 10))
        model.zero_gradients()
        losses.append(model.loss_and_gradients(tokens[:, :-1], tokens[:, 1:], dropout_at=DropoutAt(0, step)))
        scale = min(1.0, 1 / ops.gradient_norm(model.grads.flat))
        ops.adamw_update(flat, model.grads.flat, *moments, boundaries, decays, 1e-2, 0.9, 0.95, 1e-8, step + 1, scale)
    return np.array(losses), flat.copy()


def test_twenty_steps_follow_the_reference():
    expected, _ = train(layers, 20, np.float64)
    found, _ = train(kernels, 20)
    assert np.abs(found - expected).max() <= 1e-4


def test_a_run_has_the_same_bits_with_one_thread_and_with_two_and_when_it_recomputes():
    runs = []
    for n_threads, recompute in ((1, False), (2, False), (2, True)):
        before = threads.set_count(n_threads)
        runs.append(train(kernels, 3, recompute=recompute)[1])
        threads.set_count(before)
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])
