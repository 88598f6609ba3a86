"""What products in bfloat16 keep for the backward in bfloat16: the same bits as if it were kept in float32."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels
from gpt_numpy.architecture.rotation import frequencies, rotation_of
from gpt_numpy.kernels import rounded
from gpt_numpy.kernels.attention import merge_heads, split_heads
from gpt_numpy.kernels.gemm import BIAS_GELU_KEEP, GELU_BACKWARD, gemm_numpy, gemm_vectors
from gpt_numpy.kernels.gemm.narrow import NARROW, narrow, widen
from gpt_numpy.model import DropoutAt
from gpt_numpy.products import round_to_bfloat16
from gpt_numpy.randomness import Dropout
from gpt_numpy.study.trace import trace
from gpt_numpy.workspace import Workspace

PARTS = {
    "gpt2": {},
    "another activation": dict(mlp="relu2"),
    "norms of queries and keys": dict(qk_norm=True, n_kv_head=1, positions="rotary"),
    "llama": dict(norm="rmsnorm", positions="rotary", mlp="swiglu", n_inner=90, n_kv_head=1, bias=False, tied=False),
}


def narrowed(x):
    return narrow(x, np.empty(x.shape, NARROW))


def widened(x):
    return widen(x, np.empty(x.shape, np.float32))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 40, (1 << 14) + 3])
def test_narrow_rounds_as_products_do(rng, size):
    x = rng.standard_normal(size).astype(np.float32) * np.float32(10.0) ** rng.integers(-30, 30, size).astype(
        np.float32
    )
    x[: size // 2 : 5] = 1 + 2.0**-8  # a tie
    np.testing.assert_array_equal(widened(narrowed(x)), round_to_bfloat16(x))
    np.testing.assert_array_equal(narrowed(widened(narrowed(x))), narrowed(x))


def test_narrow_keeps_what_is_not_finite():
    x = np.array([np.inf, -np.inf, np.nan, 3.4e38, -0.0], np.float32)
    np.testing.assert_array_equal(widened(narrowed(x)), [np.inf, -np.inf, np.nan, np.inf, -0.0])


@pytest.mark.parametrize("size", [(1, 1, 1), (7, 17, 9), (37, 1, 5), (101, 83, 67), (40, 90, 1601)], ids=str)
@pytest.mark.parametrize("a_transposed", [False, True])
def test_a_product_of_a_narrow_operand_has_the_bits_of_the_float32_one(rng, size, a_transposed):
    M, N, K = size
    a = rng.standard_normal((K, M) if a_transposed else (M, K)).astype(np.float32)
    b, bias = rng.standard_normal((K, N)).astype(np.float32), rng.standard_normal(N).astype(np.float32)
    before, dout = rng.standard_normal((2, M, N)).astype(np.float32)
    for gemm in (gemm_vectors, gemm_numpy):
        options = dict(a_transposed=a_transposed, products="bfloat16")
        plain, out, again = np.empty((3, M, N), np.float32)
        gemm(a, b, plain, **options)
        gemm(narrowed(a), b, out, **options)
        np.testing.assert_array_equal(out, plain)
        kept, narrow_kept = np.empty((M, N), np.float32), np.empty((M, N), NARROW)
        gemm(a, b, out, epilogue=BIAS_GELU_KEEP, bias=bias, extra=kept, **options)
        gemm(narrowed(a), b, again, epilogue=BIAS_GELU_KEEP, bias=bias, extra=narrow_kept, **options)
        np.testing.assert_array_equal(again, out)
        np.testing.assert_array_equal(narrow_kept, narrowed(kept))
        activated, activated_again = np.empty((2, M, N), np.float32)
        gemm(a, b, out, epilogue=GELU_BACKWARD, extra=round_to_bfloat16(before), activation=activated, **options)
        gemm(a, b, again, epilogue=GELU_BACKWARD, extra=narrowed(before), activation=activated_again, **options)
        np.testing.assert_array_equal(again, out)
        np.testing.assert_array_equal(activated_again, activated)


@pytest.mark.parametrize("n_kv_head, turned", [(None, False), (1, True), (3, True)])
@pytest.mark.parametrize("T", [1, 5, 70, 300])
def test_attention_with_its_projections_has_the_bits_of_its_parts(rng, T, n_kv_head, turned):
    """The parts keep everything in float32: two linear layers, rotation and attention, one after the other."""
    B, n_head, head_size = 5, 3, 10
    C, columns = n_head * head_size, head_size * (n_head + 2 * (n_kv_head or n_head))
    x, dout = rng.standard_normal((2, B, T, C)).astype(np.float32)
    weights = [rng.standard_normal(s).astype(np.float32) for s in ((C, columns), (columns,), (C, C), (C,))]
    options = dict(first_key=rng.integers(0, np.arange(T) + 1, (B, T)), dropout=Dropout(0.2, 77))
    rotation = rotation_of(rng.integers(0, 50, (B, T)), frequencies(head_size, 1e4), np.float32) if turned else None

    qkv, attn_cache = rounded.linear_forward(x, *weights[:2])
    q, k, v = split_heads(qkv, n_head, n_kv_head)
    if turned:
        (q, q_cache), (k, k_cache) = (rounded.rotary_forward(part, rotation) for part in (q, k))
    heads, attention_cache = rounded.attention_forward(q, k, v, **options)
    out, proj_cache = rounded.linear_forward(merge_heads(heads), *weights[2:])
    dheads, *dproj = rounded.linear_backward(dout, proj_cache)
    dq, dk, dv = rounded.attention_backward(dheads.reshape(heads.shape), attention_cache)
    if turned:
        dq, dk = rounded.rotary_backward(dq, q_cache), rounded.rotary_backward(dk, k_cache)
    dqkv = np.concatenate([part.reshape(B, T, -1) for part in (dq, dk, dv)], axis=-1)
    dx, *dattn = rounded.linear_backward(dqkv, attn_cache)

    found, cache = rounded.multi_head_attention_forward(
        x, *weights, n_head, n_kv_head=n_kv_head, rotation=rotation, **options
    )
    x[...] = np.nan  # the cache has a copy
    np.testing.assert_array_equal(found, out)
    for array, right in zip(rounded.multi_head_attention_backward(dout, cache), (dx, *dattn, *dproj), strict=True):
        np.testing.assert_array_equal(array, right)
    assert cache.attn.x.dtype == cache.attention.q.dtype == cache.attention.v.dtype == NARROW


@pytest.mark.parametrize("activation", ["gelu", "relu2", "geglu"])
@pytest.mark.parametrize("biased", [True, False])
def test_the_feed_forward_layer_has_the_bits_of_its_parts(rng, activation, biased):
    """The parts keep everything in float32, but the activation's input is rounded before they go back."""
    C, W, gated = 20, 37, activation == "geglu"
    shapes = (C, W * (1 + gated)), (W * (1 + gated),), (W, C), (C,)
    weights = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    weights = [w if biased or w.ndim > 1 else None for w in weights]
    x, dout = rng.standard_normal((2, 3, 50, C)).astype(np.float32)

    def activate(hidden):
        if gated:
            return rounded.swiglu_forward(hidden, "gelu")
        return rounded.activation_forward(hidden, activation)

    hidden, fc_cache = rounded.linear_forward(x, *weights[:2])
    out, proj_cache = rounded.linear_forward(activate(hidden)[0], *weights[2:])
    activated, cache = activate(round_to_bfloat16(hidden))
    dactivated, *dproj = rounded.linear_backward(dout, proj_cache._replace(x=activated))
    backward = rounded.swiglu_backward if gated else rounded.activation_backward
    dx, *dfc = rounded.linear_backward(backward(dactivated, cache), fc_cache)

    found, cache = rounded.mlp_forward(x, *weights, activation=activation)
    x[...] = np.nan  # the cache has a copy
    np.testing.assert_array_equal(found, out)
    for array, right in zip(rounded.mlp_backward(dout, cache), (dx, *dfc, *dproj), strict=True):
        np.testing.assert_array_equal(array, right)
    assert cache.x.dtype == cache.hidden.dtype == NARROW


def model(parts, workspace=None, **options):
    config = GPTConfig(vocab_size=31, block_size=9, n_layer=2, n_head=3, n_embd=12, dropout=0.1, **parts)
    return GPT(config, seed=3, ops=kernels, products="bfloat16", workspace=workspace, **options)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_memory_that_is_used_again_changes_no_gradient(rng, parts):
    tokens, targets = rng.integers(0, 31, (2, 3, 9))
    results = []
    for workspace, recompute in ((None, False), (Workspace(), False), (Workspace(), True)):
        gpt = model(parts, workspace, recompute=recompute)
        for _ in range(2):
            gpt.replace_gradients()
            loss = gpt.loss_and_gradients(tokens, targets, dropout_at=DropoutAt(1, 2))
        results.append((loss, gpt.grads.flat.copy()))
    for loss, gradients in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(gradients, results[0][1])


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_a_trace_has_the_numbers_in_float32(rng, parts):
    tokens, targets = rng.integers(0, 31, (2, 3, 9))
    plain, gpt = model(parts, Workspace()), model(parts, Workspace())
    expected = plain.loss_and_gradients(tokens, targets)
    with trace(gpt) as t:
        assert gpt.loss_and_gradients(tokens, targets) == expected
    np.testing.assert_array_equal(gpt.grads.flat, plain.grads.flat)
    assert not t.faults() and {one.value.dtype.kind for one in t.values()} <= set("fi")
    norm = rounded.rmsnorm_forward if "norm" in parts else rounded.layernorm_forward
    names = ("weight",) if "norm" in parts else ("weight", "bias")
    normed, _ = norm(t["h.0.residual_1"].value, *(gpt.params[f"h.0.ln_2.{name}"] for name in names))
    np.testing.assert_array_equal(t["h.0.ln_2"].value, normed)


@pytest.mark.parametrize(
    "settings",
    [
        ("32", "1", "widened"),
        *(pytest.param(s, marks=pytest.mark.campaign) for s in (("16", "0", "widened"), ("64", "1", "instruction"))),
    ],
    ids=" ".join,
)
def test_at_other_widths_and_with_every_access_checked(settings):
    """In a process of its own: the width, and how words are multiplied, are fixed when the kernels are imported."""
    width, checked, products = settings
    environment = dict(os.environ, GPT_NUMPY_VECTOR_BYTES=width, GPT_NUMPY_CHECK_BOUNDS=checked)
    environment["GPT_NUMPY_BFLOAT16"] = products
    chosen = [test_narrow_rounds_as_products_do, test_narrow_keeps_what_is_not_finite]
    chosen += [test_a_product_of_a_narrow_operand_has_the_bits_of_the_float32_one]
    chosen += [test_attention_with_its_projections_has_the_bits_of_its_parts]
    names = [f"{__file__}::{test.__name__}" for test in chosen]
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *names]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and "30 passed" in run.stdout, run.stdout[-4000:] + run.stderr[-2000:]
