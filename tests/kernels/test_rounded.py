"""Products in bfloat16: kernels.rounded is layers.rounded, which is layers on rounded operands, within the stated bound."""

import copy
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.errors import ConfigError, KernelError
from gpt_numpy.kernels import rounded as fast
from gpt_numpy.kernels.runtime import threads
from gpt_numpy.layers import rounded as oracle
from gpt_numpy.model import DropoutAt
from gpt_numpy.products import round_to_bfloat16
from gpt_numpy.randomness import Dropout


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


ATTENTION = [  # B, Tq, Tk, n_head, head_size: no length a multiple of a strip, a panel or a tile
    (2, 5, 5, 3, 4),
    (1, 1, 1, 1, 1),
    (2, 3, 203, 3, 37),
    (1, 97, 97, 2, 37),
    (2, 130, 250, 1, 80),
    (1, 257, 257, 2, 24),
]


@pytest.mark.parametrize("shape", ATTENTION)
@pytest.mark.parametrize("masked", ["", "first_key", "dropout", "first_key dropout"])
def test_attention_on_rounded_operands(rng, shape, masked):
    """All seven products; and the same bits from one thread and from two."""
    B, Tq, Tk, n_head, head_size = shape
    masks = {}
    if "first_key" in masked:
        masks["first_key"] = rng.integers(0, np.arange(Tk - Tq, Tk) + 1, (B, Tq))
    if "dropout" in masked:
        masks["dropout"] = Dropout(0.3, 0x0123456789ABCDEF, 5)
    q, dout = rng.standard_normal((2, B, Tq, n_head, head_size), np.float32)
    k, v = rng.standard_normal((2, B, Tk, n_head, head_size), np.float32)

    def both_ways(ops, dtype, n_threads=2):
        before = threads.set_count(n_threads)
        try:
            out, cache = ops.attention_forward(*(x.astype(dtype) for x in (q, k, v)), **masks)
            return out, *ops.attention_backward(dout.astype(dtype), cache)
        finally:
            threads.set_count(before)

    expected, found = both_ways(oracle, np.float64), both_ways(fast, np.float32)
    plain = both_ways(layers, np.float64)
    for right, unrounded, array, again in zip(expected, plain, found, both_ways(fast, np.float32, 1)):
        np.testing.assert_array_equal(array, again)
        scale, error = np.abs(right).max() + 1e-30, np.abs(array - right)
        # A weight that the kernel computes may fall to the other side of a tie; nearly all are on the same side.
        assert error.max() <= 2e-3 * scale and np.median(error) <= 1e-6 * scale
        if Tk > 1:
            assert np.abs(right - unrounded).max() > 5e-4 * np.abs(unrounded).max()  # rounding is no idle word here


@pytest.mark.parametrize(
    "settings",
    [
        ("32", "1", "widened"),
        *(pytest.param(s, marks=pytest.mark.campaign) for s in (("16", "0", "widened"), ("64", "1", ""))),
    ],
    ids=" ".join,
)
def test_attention_at_other_widths_and_with_every_access_checked(settings):
    """In a process of its own: the width, and how words are multiplied, are fixed when the kernels are imported."""
    environment = dict(os.environ, GPT_NUMPY_VECTOR_BYTES=settings[0], GPT_NUMPY_CHECK_BOUNDS=settings[1])
    if settings[2]:
        environment["GPT_NUMPY_BFLOAT16"] = settings[2]
    chosen = "test_attention_on_rounded_operands and (shape3 or shape2)"
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", __file__, "-k", chosen]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and "8 passed" in run.stdout, run.stdout[-4000:] + run.stderr[-2000:]


def test_attention_to_a_single_key_has_no_gradient_but_that_of_the_value(rng):
    """A weight of 1 whatever the score: rounding must not leave a gradient behind."""
    q, k, v, dout = rng.standard_normal((4, 1, 1, 2, 16), np.float32)
    for ops in (oracle, fast):
        out, cache = ops.attention_forward(q, k, v)
        dq, dk, dv = ops.attention_backward(dout, cache)
        bound = 2.0**-8 * np.abs(dout * v).sum()
        assert max(np.abs(dq).max(), np.abs(dk).max()) <= bound
        np.testing.assert_array_equal(dv, round_to_bfloat16(dout))


def test_documents_in_a_row_are_apart_exactly_when_rounded(rng):
    q, k, v, dout = rng.standard_normal((4, 1, 300, 2, 24), np.float32)
    starts = np.where(np.arange(300) < 110, 0, 110)[None]
    results = []
    for _ in range(2):
        out, cache = fast.attention_forward(q, k, v, first_key=starts)
        results.append((out, *fast.attention_backward(dout, cache)))
        k[:, :110], v[:, :110] = 1e3 * rng.standard_normal((2, 1, 110, 2, 24), np.float32)
    for before, after in zip(*results):
        np.testing.assert_array_equal(before[:, 110:], after[:, 110:])


def test_cutting_the_queries_does_not_change_a_rounded_row(rng):
    q, k, v = rng.standard_normal((3, 1, 260, 2, 40), np.float32)
    whole, _ = fast.attention_forward(q, k, v)
    for start, end in ((101, 200), (258, 260)):  # many queries, and few
        part, _ = fast.attention_forward(q[:, start:end], k[:, :end], v[:, :end])
        np.testing.assert_array_equal(part, whole[:, start:end])


def test_nan_and_infinity_in_rounded_attention(rng):
    q, k, v = rng.standard_normal((3, 1, 60, 1, 8), np.float32)
    k[0, 1:20], v[0, 30, 0, 3] = -np.inf, np.nan
    out, _ = fast.attention_forward(np.abs(q), k, v)
    expected, _ = oracle.attention_forward(np.abs(q).astype(np.float64), k.astype(np.float64), v.astype(np.float64))
    assert np.isnan(out[0, 30:, 0, 3]).all()
    others = [0, 1, 2, 4, 5, 6, 7]
    np.testing.assert_allclose(out[..., others], expected[..., others], atol=2e-3)


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
