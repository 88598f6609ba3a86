"""Compile every kernel of a training step beforehand, with a progress line: cold it takes tens of seconds.

A kernel is compiled when first called with arguments of a type. Here each op is called once on tiny arrays, in every
form that a model uses; what is compiled lands in numba's cache on disk, and the next process only loads it.
"""

import time

import numpy as np

from ... import kernels
from ...host import terminal
from ...randomness import Dropout
from .. import rounded

_DROPOUT = Dropout(0.5, 1)


def _arrays(dtype, *shapes):
    return [np.ones(shape, dtype) for shape in shapes]


def _embedding(dtype):
    wte, wpe = _arrays(dtype, (3, 4), (2, 4))
    out, cache = kernels.embedding_forward(np.zeros((1, 2), np.int64), np.arange(2), wte, wpe)
    kernels.embedding_backward(out, cache)


def _layernorm(dtype):
    out, cache = kernels.layernorm_forward(*_arrays(dtype, (2, 4), 4, 4))
    kernels.layernorm_backward(out, cache)


def _gelu(dtype):
    out, cache = kernels.gelu_forward(*_arrays(dtype, (2, 4)))
    kernels.gelu_backward(out, cache)


def _linear(dtype):
    out, cache = kernels.linear_forward(*_arrays(dtype, (2, 4), (4, 4), 4))
    kernels.linear_backward(out, cache)


def _attention(dtype):
    qkv = _arrays(dtype, (1, 8, 1, 4)) * 3  # more queries than ``attention_decode`` takes
    for first_key, dropout in ((None, None), (np.zeros((1, 8), np.int64), _DROPOUT)):
        out, cache = kernels.attention_forward(*qkv, first_key, dropout)
        kernels.attention_backward(out, cache)
    kernels.attention_forward(*_arrays(dtype, (1, 1, 1, 4)) * 3)  # `attention_decode`
    out, cache = kernels.multi_head_attention_forward(*_arrays(dtype, (1, 8, 4), (4, 12), 12, (4, 4), 4), n_head=1)
    kernels.multi_head_attention_backward(out, cache)


def _mlp(dtype):
    out, cache = kernels.mlp_forward(*_arrays(dtype, (2, 4), (4, 16), 16, (16, 4), 4))
    kernels.mlp_backward(out, cache)


def _dropout(dtype):
    out, cache = kernels.dropout_forward(*_arrays(dtype, (1, 2, 4)), _DROPOUT)
    kernels.dropout_backward(out, cache)


def _residual(dtype):
    for dropout in (None, _DROPOUT):
        out, cache = kernels.residual_forward(*_arrays(dtype, (1, 2, 4), (1, 2, 4)), dropout)
        kernels.residual_backward(out, cache)


def _head(dtype):
    x, wte = _arrays(dtype, (1, 2, 4), (3, 4))
    logits, cache = kernels.lm_head_forward(x, wte)
    kernels.lm_head_backward(logits, cache)
    kernels.lm_head_cross_entropy_gradients(x, wte, np.zeros((1, 2), np.int64), 1.0)


def _rounded_linear(dtype):
    out, cache = rounded.linear_forward(*_arrays(dtype, (2, 4), (4, 4), 4))
    rounded.linear_backward(out, cache)


def _optimizer(dtype):
    kernels.adamw_update(*_arrays(dtype, 4, 4, 4, 4), np.array([0, 4]), np.zeros(1), 0.1, 0.9, 0.99, 1e-8, 1)
    kernels.gradient_norm(*_arrays(dtype, 4))
    kernels.clear_gradients(*_arrays(dtype, 4))


_OPS = (_linear, _attention, _mlp, _head, _layernorm, _embedding, _residual, _dropout, _gelu, _optimizer)


def compile_kernels(dtype=np.float32, show_progress=True, products="float32"):
    """Compile, or load from the cache, all that training and evaluating a model in ``dtype`` calls; returns seconds."""
    ops = (*_OPS, _rounded_linear) if products == "bfloat16" else _OPS
    started = time.perf_counter()
    options = {} if show_progress else {"disable": True}
    bar = terminal.bar(iterable=ops, desc="compiling kernels", unit="op", leave=False, **options)
    for op in bar:
        bar.set_postfix_str(op.__name__.strip("_"))
        op(np.dtype(dtype))
    return time.perf_counter() - started
