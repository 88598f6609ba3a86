"""The problems of the exercises on what today's models do to heads: heads of keys that are shared, norms and rotations."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ...architecture.rotation import frequencies, rotation_of
from .problems import Problem, check_unchanged, copies

_B, _T, _HEAD_SIZE = 2, 5, 4


def shared_heads(seed: int = 0) -> list[Problem]:
    """Heads of keys that one, two or three query heads use, with the gradients that come back from the query heads."""
    return [
        Problem(
            f"{n_head} query heads, {n_kv_head} of keys",
            functools.partial(_run_shared, n_head, n_kv_head, seed),
            {"query heads of a head of keys": n_head // n_kv_head, "n_kv_head": n_kv_head},
            functools.partial(_terms_of_shared, n_head, n_kv_head, seed),
        )
        for n_head, n_kv_head in ((6, 3), (6, 2), (4, 1), (3, 3))
    ]


def _arrays_of_shared(n_head, n_kv_head, seed):
    rng = np.random.default_rng([seed, n_head, n_kv_head])
    x, q = (rng.standard_normal((_B, _T, heads, _HEAD_SIZE)) for heads in (n_kv_head, n_head))
    return x, q, rng.standard_normal((_B, n_head, _T, _HEAD_SIZE))


def _run_shared(n_head, n_kv_head, seed, functions):
    x, q, gradient = _arrays_of_shared(n_head, n_kv_head, seed)
    held = {"x": x, "q": q, "gradient": gradient}
    before = copies(held)
    found = {"out": np.array(functions.shared_heads(x, q)), "x": np.array(functions.sum_shared(gradient, x))}
    check_unchanged(before, held)
    return found


def _terms_of_shared(n_head, n_kv_head, seed, name):
    if name != "x":
        return {}
    gradient = _arrays_of_shared(n_head, n_kv_head, seed)[2]
    groups = n_head // n_kv_head
    return {f"the gradient of query head {i + 1} of {groups}": gradient[:, i::groups] for i in range(groups)}


def prepared_heads(seed: int = 0) -> list[Problem]:
    """Heads with a norm, with a rotation of either pairing, and with both."""
    cases = {
        "norm": (True, None, False),
        "halves": (False, "halves", False),
        "neighbours": (False, "neighbours", False),
        "norm, halves": (True, "halves", False),
        "norm, neighbours, own positions": (True, "neighbours", True),
    }
    return [
        Problem(name, functools.partial(_run_prepared, *case, seed), {"B": _B, "T": _T, "head_size": _HEAD_SIZE})
        for name, case in cases.items()
    ]


def _run_prepared(normed, pairing, own_positions, seed, functions):
    rng = np.random.default_rng([seed, 3])
    x, dout = rng.standard_normal((2, _B, _T, 3, _HEAD_SIZE))
    weight = 1 + 0.3 * rng.standard_normal(_HEAD_SIZE) if normed else None
    rotation = None
    if pairing is not None:
        positions = rng.integers(0, 50, (_B, _T)) if own_positions else np.arange(2, 2 + _T)
        rotation = rotation_of(positions, frequencies(_HEAD_SIZE, 50.0), np.float64, pairing)
    held = {"x": x, "dout": dout}
    before = copies(held)
    out, cache = functions.prepare_heads(x, weight, 1e-3, rotation)
    dx, dweight = functions.prepare_heads_backward(dout, cache)
    check_unchanged(before, held)
    found: dict[str, Any] = {"out": np.array(out), "x": np.array(dx)}
    return {**found, "weight": np.array(dweight)} if normed else found
