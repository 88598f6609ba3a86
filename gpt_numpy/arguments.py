"""Checks of a layer's arguments, shared by ``layers`` and ``kernels``.

``layers`` would answer many wrong arguments with a NumPy error or, worse, by broadcasting; ``kernels`` have no bounds
checks and would read beyond an array. Both call these functions first, so that the same call gives the same answer
or the same ``KernelError``. The error is raised before any array is written to.
"""

from __future__ import annotations

import math

import numpy as np

from .architecture.rotation import PAIRINGS
from .config import GATED_ACTIVATIONS, PLAIN_ACTIVATIONS
from .errors import KernelError


def check_axes(least, **arrays):
    """Raise ``KernelError`` unless ``array`` is an array of at least ``least`` axes."""
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise KernelError("not an array", field=name, found=type(array).__name__, expected="a NumPy array")
        if array.ndim < least:
            raise KernelError("too few axes", field=name, found=array.shape, expected=f"at least {least}")


def check_shape(name, array, shape):
    """Raise ``KernelError`` unless ``array`` has the shape ``shape``."""
    if array.shape != shape:
        raise KernelError("an array does not fit the others", field=name, found=array.shape, expected=shape)


def check_into(into, dtype, **shapes):
    """Raise ``KernelError`` unless ``into`` holds one array for each of ``shapes`` that can be added to.

    A shape that is None belongs to a parameter that the layer does not have: ``into`` has None there.
    """
    if not isinstance(into, (tuple, list)) or len(into) != len(shapes):
        found = len(into) if isinstance(into, (tuple, list)) else type(into).__name__
        raise KernelError("one array for each parameter gradient", field="into", found=found, expected=len(shapes))
    for (name, shape), array in zip(shapes.items(), into):
        if shape is not None:
            check_target(name, array, shape, dtype)
        elif array is not None:
            raise KernelError("there is no such parameter", field=name, found=type(array).__name__, expected=None)


def check_target(name, array, shape, dtype):
    """Raise ``KernelError`` unless ``array`` is a writeable array of this shape and type."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise KernelError(
            "an array to write to is of the wrong kind", field=name, found=found, expected=f"{dtype} {shape}"
        )
    if not array.flags.writeable:
        raise KernelError("an array to write to must be writeable", field=name)


def own_indices(name, array, below, also=None):
    """A new int64 array of the integers in ``array``, each of 0 … below − 1 or equal to ``also``.

    The copy is made before the check: a caller that fills its array with the next batch changes neither the
    checked values nor the values that the backward reads.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "iu":
        raise KernelError("indices must be integers", field=name, found=str(array.dtype), expected="an integer type")
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise KernelError("an index is out of range", field=name, found=int(array.max()), expected=f"0 to {below - 1}")
    values = np.array(array, np.int64, order="C")
    if values.size and (values.min() < 0 or values.max() >= below):
        bad = (values < 0) | (values >= below)
        if also is not None:
            bad &= values != also
        if bad.any():
            position = tuple(int(i) for i in np.argwhere(bad)[0])
            raise KernelError(
                f"an index is out of range at {position}",
                field=name,
                found=int(values[position]),
                expected=f"0 to {below - 1}",
            )
    return values


def own_tokens(tokens, positions, wte, wpe):
    """tokens (B, T) and positions (T,) or (B, T) as new int64 arrays: rows of wte (V, C) and wpe (block_size, C).

    Where wpe is None, there are no learned positions: positions are returned as None.
    """
    check_axes(2, wte=wte)
    check_shape("wte", wte, (wte.shape[0], wte.shape[-1]))
    if wpe is None:
        if np.ndim(tokens) != 2:
            raise KernelError("not a batch of tokens", field="tokens", found=np.shape(tokens), expected="(B, T)")
        return own_indices("tokens", tokens, wte.shape[0]), None
    check_axes(2, wpe=wpe)
    check_shape("wpe", wpe, (wpe.shape[0], wte.shape[-1]))
    shapes = np.shape(tokens), np.shape(positions)
    if len(shapes[0]) != 2 or shapes[1] not in (shapes[0], shapes[0][1:]):
        raise KernelError(
            "tokens and positions do not fit", field="positions", found=shapes, expected="(B, T) and (T,) or (B, T)"
        )
    return own_indices("tokens", tokens, wte.shape[0]), own_indices("positions", positions, wpe.shape[0])


def check_layernorm(x, weight, bias):
    """Raise ``KernelError`` unless x (..., C), weight (C,) and bias (C,) or None fit, with C > 0."""
    check_rmsnorm(x, weight)
    check_bias("bias", bias, x.shape[-1])


def check_rmsnorm(x, weight):
    """Raise ``KernelError`` unless x (..., C) and weight (C,) fit, with C > 0."""
    check_axes(1, x=x, weight=weight)
    if x.shape[-1] == 0:
        raise KernelError("a row of nothing has no mean", field="x", found=x.shape, expected="at least 1 column")
    check_shape("weight", weight, x.shape[-1:])


def check_rotary(x, rotation):
    """Raise ``KernelError`` unless x (B, T, n_head, head_size) and the angles of ``rotation`` fit."""
    check_axes(4, x=x)
    check_axes(2, cos=rotation.cos, sin=rotation.sin)
    check_choice("pairing", rotation.pairing, PAIRINGS)
    B, T, _, head_size = x.shape
    pairs = head_size // 2
    if head_size % 2 or rotation.cos.shape not in ((T, pairs), (B, T, pairs)):
        expected = f"{(T, pairs)} or {(B, T, pairs)}, and an even head_size"
        raise KernelError("angles do not fit", field="cos", found=rotation.cos.shape, expected=expected)
    check_shape("sin", rotation.sin, rotation.cos.shape)
    if rotation.cos.dtype != x.dtype.type(0).real.dtype and x.dtype.kind == "f":
        raise KernelError("arrays of two types meet", field="cos", found=str(rotation.cos.dtype), expected=str(x.dtype))


def check_linear(x, weight, bias):
    """Raise ``KernelError`` unless x (..., K), weight (K, N) and bias (N,) or None fit."""
    check_axes(1, x=x, weight=weight)
    check_shape("weight", weight, (x.shape[-1], weight.shape[-1]))
    check_bias("bias", bias, weight.shape[-1])


def check_bias(name, bias, columns):
    """Raise ``KernelError`` unless ``bias`` is (columns,) or None."""
    if bias is not None:
        check_axes(1, **{name: bias})
        check_shape(name, bias, (columns,))


def check_mlp(x, fc_weight, fc_bias, proj_weight, proj_bias, activation="gelu"):
    """Raise ``KernelError`` unless x (..., C), fc_weight (C, W or 2W), fc_bias, proj_weight (W, N) and proj_bias fit."""
    check_choice("activation", activation, (*PLAIN_ACTIVATIONS, *GATED_ACTIVATIONS))
    check_axes(1, x=x, fc_weight=fc_weight, proj_weight=proj_weight)
    columns = fc_weight.shape[-1]
    wide = columns // 2 if activation in GATED_ACTIVATIONS else columns
    check_shape("fc_weight", fc_weight, (x.shape[-1], 2 * wide if activation in GATED_ACTIVATIONS else wide))
    check_bias("fc_bias", fc_bias, columns)
    check_shape("proj_weight", proj_weight, (wide, proj_weight.shape[-1]))
    check_bias("proj_bias", proj_bias, proj_weight.shape[-1])


def check_choice(name, value, choices):
    """Raise ``KernelError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise KernelError("no such choice", field=name, found=value, expected=", ".join(choices))


def halves(hidden):
    """Views of the left and of the right half of the last axis: gate and up of a gated layer."""
    check_axes(1, hidden=hidden)
    wide, odd = divmod(hidden.shape[-1], 2)
    if odd:
        raise KernelError("gate and up have the same width", field="hidden", found=hidden.shape, expected="(..., 2W)")
    return hidden[..., :wide], hidden[..., wide:]


def check_head(x, wte):
    """Raise ``KernelError`` unless x (..., C) and wte (V, C) fit."""
    check_axes(1, x=x, wte=wte)
    check_shape("wte", wte, (wte.shape[0], x.shape[-1]))


def check_heads(n_head, columns, n_kv_head=None):
    """``n_head`` as an int, or a ``KernelError`` unless it is a number of heads that ``columns`` divide into.

    Queries have n_head heads, keys and values n_kv_head each (None: n_head, and ``columns`` are 3C).
    """
    if n_kv_head is not None:
        return _check_groups(n_head, columns, n_kv_head)
    if not _is_count(n_head) or columns % (3 * n_head):
        raise KernelError(
            "the columns do not divide into heads",
            field="n_head",
            found=n_head,
            expected=f"an integer that divides {columns // 3}",
        )
    return int(n_head)


def _is_count(number):
    integer = hasattr(number, "__index__") and not isinstance(number, (bool, np.bool_)) and np.ndim(number) == 0
    return integer and number >= 1


def _check_groups(n_head, columns, n_kv_head):
    if not _is_count(n_head) or not _is_count(n_kv_head) or n_head % n_kv_head or columns % (n_head + 2 * n_kv_head):
        raise KernelError(
            "the columns do not divide into heads",
            field="n_kv_head",
            found=(n_head, n_kv_head),
            expected=f"a divisor of n_head, and {columns} columns in n_head + 2 n_kv_head heads",
        )
    return int(n_head)


def check_attention(q, k, v):
    """Raise ``KernelError`` unless q (B, Tq, n_head, head_size) and k, v (B, Tk, n_kv_head, head_size) fit.

    Tk >= Tq, and n_kv_head divides n_head.
    """
    check_axes(0, q=q, k=k, v=v)
    for name, array in (("q", q), ("k", k), ("v", v)):
        if array.ndim != 4:
            raise KernelError(
                "attention works on four axes", field=name, found=array.shape, expected="(B, T, n_head, head_size)"
            )
    B, Tq, n_head, head_size = q.shape
    n_kv_head = k.shape[2]
    if n_kv_head == 0 or n_head % n_kv_head:
        raise KernelError(
            "the query heads do not share the key heads evenly",
            field="k",
            found=k.shape,
            expected=f"a number of heads that divides {n_head}",
        )
    check_shape("k", k, (B, k.shape[1], n_kv_head, head_size))
    check_shape("v", v, k.shape)
    if k.shape[1] < Tq or head_size == 0:
        raise KernelError(
            "every query needs a key at its own position",
            field="k",
            found=k.shape,
            expected=f"at least {Tq} keys of at least one element",
        )


def own_first_key(first_key, B, Tq, Tk):
    """``first_key`` as a new int64 array (B, Tq), or None; a ``KernelError`` where a query would see no key."""
    if first_key is None:
        return None
    check_shape("first_key", np.asarray(first_key), (B, Tq))
    values = own_indices("first_key", first_key, Tk)
    beyond = values > np.arange(Tk - Tq, Tk)
    if beyond.any():
        b, i = (int(index) for index in np.argwhere(beyond)[0])
        raise KernelError(
            f"a query would see no key at ({b}, {i})",
            field="first_key",
            found=int(values[b, i]),
            expected=f"at most {Tk - Tq + i}, its own position",
        )
    return values


def own_targets(targets, logits_shape, ignore_index):
    """``targets`` as a new int64 array of the logits' leading shape, each an index of their last axis or ignored."""
    if not hasattr(ignore_index, "__index__") or isinstance(ignore_index, (bool, np.bool_)):
        raise KernelError("not an id", field="ignore_index", found=ignore_index, expected="an integer")
    check_shape("targets", np.asarray(targets), tuple(logits_shape[:-1]))
    return own_indices("targets", targets, logits_shape[-1], also=int(ignore_index))


def check_step(params, grads, first_moments, second_moments, boundaries, decays):
    """``(boundaries, decays)`` as int64 and float64 arrays; a ``KernelError`` unless all arguments of a step fit."""
    check_axes(1, params=params)
    arrays = {"params": params, "first_moments": first_moments, "second_moments": second_moments}
    for name, array in arrays.items():
        check_target(name, array, (params.size,), params.dtype)
    check_axes(1, grads=grads)
    check_shape("grads", grads, params.shape)
    boundaries, decays = np.array(boundaries, np.int64), np.array(decays, np.float64)
    tiles = boundaries.shape == (decays.size + 1,) and boundaries[0] == 0 and boundaries[-1] == params.size
    if not tiles or (boundaries[1:] < boundaries[:-1]).any():
        raise KernelError(
            "the segments do not tile the parameters",
            field="boundaries",
            found=boundaries.tolist(),
            expected=f"{decays.size + 1} ascending numbers from 0 to {params.size}",
        )
    return boundaries, decays


def rows_of(array):
    """All rows of an array of any number of axes, (rows, last axis): a view where NumPy can make one."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
