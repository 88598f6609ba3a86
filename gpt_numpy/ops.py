"""The interface that ``gpt_numpy.layers`` and ``gpt_numpy.kernels`` share.

A module implements the interface: ``GPT(config, ops=layers)``. mypy checks both modules against this protocol, and a
test compares the signatures of the two modules. Arrays are float32 or float64; the docstrings of ``layers``
give each function's mathematics and shapes. A cache is private to its module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .randomness import Dropout

Array = np.ndarray
Alloc = Callable[..., np.ndarray]  # (shape, dtype) -> array: ``np.empty``, or a workspace's region
# One array for each parameter gradient, which is added to it, or where not ``add`` replaces what is there.
Into = Sequence[np.ndarray] | None


class Ops(Protocol):
    """Forward and backward of every layer, and the optimizer's update."""

    def embedding_forward(
        self, tokens: Array, positions: Array, wte: Array, wpe: Array | None, alloc: Alloc = np.empty
    ) -> tuple[Any, Any]: ...
    def embedding_backward(self, dout: Array, cache: Any, *, add: bool = True, into: Into = None) -> tuple: ...

    def layernorm_forward(
        self, x: Array, weight: Array, bias: Array | None, epsilon: float = 1e-5, alloc: Alloc = np.empty
    ) -> tuple[Any, Any]: ...
    def layernorm_backward(
        self,
        dout: Array,
        cache: Any,
        alloc: Alloc = np.empty,
        *,
        dstream: Array | None = None,
        add: bool = True,
        into: Into = None,
    ) -> tuple: ...

    def rmsnorm_forward(
        self, x: Array, weight: Array, epsilon: float = 1e-5, alloc: Alloc = np.empty
    ) -> tuple[Any, Any]: ...
    def rmsnorm_backward(
        self,
        dout: Array,
        cache: Any,
        alloc: Alloc = np.empty,
        *,
        dstream: Array | None = None,
        add: bool = True,
        into: Into = None,
    ) -> tuple: ...

    def rotary_forward(self, x: Array, rotation: Any, alloc: Alloc = np.empty) -> tuple[Any, Any]: ...
    def rotary_backward(self, dout: Array, cache: Any, alloc: Alloc = np.empty) -> Array: ...

    def linear_forward(
        self, x: Array, weight: Array, bias: Array | None, alloc: Alloc = np.empty
    ) -> tuple[Any, Any]: ...
    def linear_backward(
        self, dout: Array, cache: Any, alloc: Alloc = np.empty, *, add: bool = True, into: Into = None
    ) -> tuple: ...

    def gelu_forward(self, x: Array, alloc: Alloc = np.empty) -> tuple[Any, Any]: ...
    def gelu_backward(self, dout: Array, cache: Any, alloc: Alloc = np.empty) -> Array: ...

    def activation_forward(self, x: Array, name: str, alloc: Alloc = np.empty) -> tuple[Any, Any]: ...
    def activation_backward(self, dout: Array, cache: Any, alloc: Alloc = np.empty) -> Array: ...

    def swiglu_forward(self, hidden: Array, activation: str = "silu", alloc: Alloc = np.empty) -> tuple[Any, Any]: ...
    def swiglu_backward(self, dout: Array, cache: Any, alloc: Alloc = np.empty) -> Array: ...

    def attention_forward(
        self,
        q: Array,
        k: Array,
        v: Array,
        first_key: Array | None = None,
        dropout: Dropout | None = None,
        alloc: Alloc = np.empty,
        scale: float | None = None,
    ) -> tuple[Any, Any]: ...
    def attention_backward(self, dout: Array, cache: Any, alloc: Alloc = np.empty) -> tuple: ...

    def multi_head_attention_forward(
        self,
        x: Array,
        attn_weight: Array,
        attn_bias: Array | None,
        proj_weight: Array,
        proj_bias: Array | None,
        n_head: int,
        first_key: Array | None = None,
        dropout: Dropout | None = None,
        alloc: Alloc = np.empty,
        alloc_out: Alloc | None = None,
        *,
        scale: float | None = None,
        n_kv_head: int | None = None,
        rotation: Any = None,
        q_norm: Array | None = None,
        k_norm: Array | None = None,
        epsilon: float = 1e-5,
    ) -> tuple[Any, Any]: ...
    def multi_head_attention_backward(
        self, dout: Array, cache: Any, alloc: Alloc = np.empty, *, add: bool = True, into: Into = None
    ) -> tuple: ...

    def mlp_forward(
        self,
        x: Array,
        fc_weight: Array,
        fc_bias: Array | None,
        proj_weight: Array,
        proj_bias: Array | None,
        alloc: Alloc = np.empty,
        alloc_out: Alloc | None = None,
        activation: str = "gelu",
    ) -> tuple[Any, Any]: ...
    def mlp_backward(
        self, dout: Array, cache: Any, alloc: Alloc = np.empty, *, add: bool = True, into: Into = None
    ) -> tuple: ...

    def dropout_forward(self, x: Array, dropout: Dropout, alloc: Alloc = np.empty) -> tuple[Any, Any]: ...
    def dropout_backward(self, dout: Array, cache: Any, alloc: Alloc = np.empty) -> Array: ...

    def residual_forward(
        self, x: Array, branch: Array, dropout: Dropout | None = None, alloc: Alloc = np.empty
    ) -> tuple[Any, Any]: ...
    def residual_backward(self, dout: Array, cache: Any, alloc: Alloc = np.empty) -> tuple: ...

    def cross_entropy_forward(
        self, logits: Array, targets: Array, ignore_index: int = -1, alloc: Alloc = np.empty
    ) -> tuple[float, Any]: ...
    def cross_entropy_backward(self, dloss: float, cache: Any, alloc: Alloc = np.empty) -> Array: ...

    def lm_head_forward(self, x: Array, wte: Array, alloc: Alloc = np.empty) -> tuple[Any, Any]: ...
    def lm_head_backward(
        self, dlogits: Array, cache: Any, alloc: Alloc = np.empty, *, add: bool = True, into: Into = None
    ) -> tuple: ...
    def lm_head_cross_entropy_forward(
        self, x: Array, wte: Array, targets: Array, ignore_index: int = -1, alloc: Alloc = np.empty
    ) -> tuple[float, Any]: ...
    def lm_head_cross_entropy_backward(
        self, dloss: float, cache: Any, alloc: Alloc = np.empty, *, add: bool = True, into: Into = None
    ) -> tuple: ...
    def lm_head_cross_entropy_gradients(
        self,
        x: Array,
        wte: Array,
        targets: Array,
        dloss: float,
        ignore_index: int = -1,
        alloc: Alloc = np.empty,
        *,
        add: bool = True,
        into: Into = None,
    ) -> tuple: ...

    def adamw_update(
        self,
        params: Array,
        grads: Array,
        first_moments: Array,
        second_moments: Array,
        boundaries: Array,
        decays: Array,
        learning_rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        step: int,
        gradient_scale: float = 1.0,
    ) -> None: ...
    def gradient_norm(self, grads: Array) -> float: ...
    def clear_gradients(self, grads: Array) -> None: ...


if TYPE_CHECKING:
    from . import kernels, layers

    specification: Ops = layers
    fast: Ops = kernels
