"""Compile the kernels of a training step beforehand, with a progress line: cold it takes some ten seconds.

A kernel is compiled when first called with arguments of a type. This module calls each op once on tiny arrays, in every
form that a model uses. A training step needs only some of the ops (``training_ops``); the others are compiled when they
are first called. The compiled code is kept on disk (``code_files``), and the next process only loads it. numba
compiles one kernel at a time in a process, so other processes help with ops whose compilation has not begun.
"""

import functools
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ... import kernels
from ...architecture.rotation import Rotation
from ...config import GATED_ACTIVATIONS, PLAIN_ACTIVATIONS, GPTConfig
from ...host import compiling, terminal
from ...randomness import Dropout
from .. import attention, gemm, rounded
from ..rotary import turn
from . import code_files, threads
from .numba_inside import is_kept

_MOST_HELPERS = 2  # more would only wait for the two largest kernels

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


def _rmsnorm(dtype):
    out, cache = kernels.rmsnorm_forward(*_arrays(dtype, (2, 4), 4))
    kernels.rmsnorm_backward(out, cache)


def _activation(dtype, name):
    out, cache = kernels.activation_forward(*_arrays(dtype, (2, 4)), name)
    kernels.activation_backward(out, cache)


def _gate(dtype, name):
    out, cache = kernels.swiglu_forward(*_arrays(dtype, (2, 8)), name)
    kernels.swiglu_backward(out, cache)


def _gelu(dtype):
    out, cache = kernels.gelu_forward(*_arrays(dtype, (2, 4)))
    kernels.gelu_backward(out, cache)


def _linear(dtype):
    out, cache = kernels.linear_forward(*_arrays(dtype, (2, 4), (4, 4), 4))
    kernels.linear_backward(out, cache)


def _attention(dtype):
    qkv = _arrays(dtype, (1, 8, 1, 4)) * 3  # more queries than ``few_queries`` takes
    out, cache = kernels.attention_forward(*qkv)
    kernels.attention_backward(out, cache)
    out, cache = kernels.multi_head_attention_forward(*_arrays(dtype, (1, 8, 4), (4, 12), 12, (4, 4), 4), n_head=1)
    kernels.multi_head_attention_backward(out, cache)


def _normed_attention(dtype):
    """Queries and keys that have a norm are contiguous arrays, unlike views of their projection."""
    weight, heads = np.ones(4, dtype), _arrays(dtype, (1, 8, 4), (4, 12), 12, (4, 4), 4)
    out, cache = kernels.multi_head_attention_forward(*heads, n_head=1, q_norm=weight, k_norm=weight)
    kernels.multi_head_attention_backward(out, cache)


def _rotary(dtype):
    rotation = Rotation(*_arrays(dtype, (8, 2), (8, 2)))
    heads = np.ones((1, 8, 3, 4), dtype)
    for x in (heads, heads[:, :, :2]):  # as after a norm, and as a view of the projection
        turn(x, x, rotation)


def _few_queries(dtype):
    kernels.attention_forward(*_arrays(dtype, (1, 1, 1, 4)) * 3)


def _mlp(dtype):
    out, cache = kernels.mlp_forward(*_arrays(dtype, (2, 4), (4, 16), 16, (16, 4), 4))
    kernels.mlp_backward(out, cache)


def _dropout(dtype):
    out, cache = kernels.dropout_forward(*_arrays(dtype, (1, 2, 4)), _DROPOUT)
    kernels.dropout_backward(out, cache)
    out, cache = kernels.residual_forward(*_arrays(dtype, (1, 2, 4), (1, 2, 4)), _DROPOUT)
    kernels.residual_backward(out, cache)


def _residual(dtype):
    out, cache = kernels.residual_forward(*_arrays(dtype, (1, 2, 4), (1, 2, 4)))
    kernels.residual_backward(out, cache)


def _head(dtype):
    x, wte = _arrays(dtype, (1, 2, 4), (3, 4))
    logits, cache = kernels.lm_head_forward(x, wte)
    kernels.lm_head_backward(logits, cache)
    kernels.lm_head_cross_entropy_gradients(x, wte, np.zeros((1, 2), np.int64), 1.0)


def _rounded(dtype):
    out, cache = rounded.multi_head_attention_forward(*_arrays(dtype, (1, 8, 4), (4, 12), 12, (4, 4), 4), n_head=1)
    rounded.multi_head_attention_backward(out, cache)
    out, cache = rounded.mlp_forward(*_arrays(dtype, (2, 4), (4, 16), 16, (16, 4), 4))
    rounded.mlp_backward(out, cache)
    rounded.attention_forward(*_arrays(dtype, (1, 8, 1, 4)) * 3)  # as in samples: of arrays in float32


def _optimizer(dtype):
    kernels.adamw_update(*_arrays(dtype, 4, 4, 4, 4), np.array([0, 4]), np.zeros(1), 0.1, 0.9, 0.99, 1e-8, 1)
    kernels.gradient_norm(*_arrays(dtype, 4))
    kernels.clear_gradients(*_arrays(dtype, 4))


_STEP = (_attention, _linear, _mlp, _head, _layernorm, _embedding, _residual, _optimizer)
_OTHERS = (_normed_attention, _rotary, _rmsnorm, _dropout, _gelu, _few_queries)
_OPS: dict[str, Callable] = {op.__name__.strip("_"): op for op in (*_STEP, *_OTHERS)}
for _name in PLAIN_ACTIVATIONS:  # each is compiled alone
    _OPS[f"activation {_name}"] = functools.partial(_activation, name=_name)
    _OPS[f"gate {_name}"] = functools.partial(_gate, name=_name)
# What ``compile_kernels`` compiles unless told: of the activations, those of GPT-2 and Llama.
_USUAL = (*(op.__name__.strip("_") for op in (*_STEP, *_OTHERS)), "gate silu")


def training_ops(dropout: bool, config: GPTConfig | None = None) -> tuple[str, ...]:
    """Names of the ops that training and evaluating call, the longest to compile first; writing samples calls
    ``few_queries`` as well.

    config: the model's (default: GPT-2's parts)
    """
    names = [op.__name__.strip("_") for op in _STEP]
    if config is not None:
        other = {"attention": "normed_attention"} if config.qk_norm else {}
        other |= {"layernorm": "rmsnorm"} if config.norm == "rmsnorm" else {}
        names = [other.get(name, name) for name in names]
        if config.is_gated:
            names.append(f"gate {GATED_ACTIVATIONS[config.mlp]}")
        elif config.mlp != "gelu" or not config.has_bias("mlp"):
            names.append(f"activation {config.mlp}")
        if config.positions == "rotary":
            names.append("rotary")
    return (*names, *(("dropout",) if dropout else ()))


def compile_kernels(
    dtype=np.float32,
    show_progress: bool = True,
    products: str = "float32",
    helpers: "Helpers | None" = None,
    names: tuple[str, ...] | None = None,
) -> float:
    """Compile ops for arrays of ``dtype``, or load them from the cache; returns seconds.

    names: the ops (default: all, but of the activations those of GPT-2 and Llama only)
    helpers: ``Helpers`` that have begun with the same ops for the same type; what they compile is only loaded here.
    """
    started = time.perf_counter()
    options = {} if show_progress else {"disable": True}
    dtype, names = np.dtype(dtype), names or _USUAL
    if helpers is not None and (helpers.dtype, helpers.names) != (dtype, names):
        helpers = None
    waiting = deque(names) if helpers is None else helpers.waiting
    mine = []
    with (
        compiling.hidden(),
        terminal.bar(total=len(names), desc="compiling kernels", unit="op", leave=False, **options) as bar,
    ):
        while True:
            bar.update(len(names) - len(waiting) - bar.n)
            try:
                name = waiting.pop()  # helpers take from the other end
            except IndexError:
                if helpers is None or helpers.finished():
                    break
                continue
            bar.set_postfix_str(name)
            _OPS[name](dtype)
            mine.append(name)
        for name in names:
            if name not in mine:
                _OPS[name](dtype)
        if products == "bfloat16":
            bar.set_postfix_str("products in bfloat16")
            _rounded(dtype)
    return time.perf_counter() - started


class Helpers:
    """Processes that compile kernels while this one does something else, such as training a tokenizer.

    ``waiting`` holds the names of the ops whose compilation has not begun. Each helper takes the next op when it has
    finished one, and ends when no op is left or this process ends. The op of a helper that fails goes back to ``waiting``.
    """

    def __init__(self, dtype, count: int, names: tuple[str, ...] | None = None):
        self.dtype, self.names = np.dtype(dtype), names or _USUAL
        self.waiting = deque(self.names)
        self._threads = [threading.Thread(target=self._feed, name="compiling", daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def finished(self) -> bool:
        """Wait until the helpers have ended; whether nothing is left to do."""
        for thread in self._threads:
            thread.join()
        return not self.waiting

    def _feed(self):
        package = str(Path(kernels.__file__).parents[2])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-c", f"from {__name__} import serve; serve({self.dtype.name!r})"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        with process:
            while True:
                try:
                    name = self.waiting.popleft()
                except IndexError:
                    break
                try:
                    process.stdin.write(f"{name}\n")
                    process.stdin.flush()
                    done = process.stdout.readline().strip() == name
                except OSError:
                    done = False
                if not done:
                    self.waiting.appendleft(name)
                    break


def start_helpers(dtype=np.float32, names: tuple[str, ...] | None = None) -> Helpers | None:
    """``Helpers`` where the kernels are not compiled yet and there are processors for more than this process, else None.

    names: the ops to compile, the longest first (default: all)

    Tests that compile in this process may set ``GPT_NUMPY_HELPERS=0`` to have none.
    """
    count = min(_MOST_HELPERS, threads.available() - 1)
    if count < 1 or os.environ.get("GPT_NUMPY_HELPERS") == "0" or code_files.writable_folder() is None:
        return None
    if all(map(is_kept, (attention.forward.forward, attention.backward.backward, gemm.blocked.multiply))):
        return None
    return Helpers(dtype, count, names)


def serve(dtype: str) -> None:
    """A helper's life: compile the ops that standard input names, and say so when each is done."""
    for line in sys.stdin:
        _OPS[line.strip()](np.dtype(dtype))
        print(line.strip(), flush=True)
