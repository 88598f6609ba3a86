"""Every layer, ready to be checked: small inputs of pairwise different sizes for each function pair.

A case names a layer and a variant (a mask, dropout, more keys than queries) and holds the arguments of
``check_gradients``. The command ``gradcheck``, the layers' tests and the planted bugs all use this one table. ``ops``
is ``layers``, ``kernels``, or one of them with a planted bug.

Sizes differ pairwise so that a swapped axis cannot fit. The ``long`` variants are for the kernels. They enter every
loop (unrolled loops, blocks, remainders), for any width of the vectors (2 to 16 numbers).
Values and weights are of unit scale: with GPT-2's standard deviation of 0.02, a wrong term can hide below the tolerance.
"""

from __future__ import annotations

import math

import numpy as np

from ..randomness import Dropout
from .case import BLOCK_SIZE, HEAD_SIZE, LONG_C, LONG_ROWS, N_HEAD, OPTIMIZER, B, C, Case, Draw, T, V, visible, without
from .cases_beyond_gpt2 import MAKERS
from .dot_product import dot_product_errors
from .gradients import GradientReport, Violation, check_gradients


def layer_cases(ops, seed=0):
    """The list of every ``Case`` of the module ``ops``; the values depend on the seed alone.

    The ``long`` variants are made for ``kernels`` alone: they test the loops of kernels, which ``layers`` does not have.
    """
    cases = []
    for number, make in enumerate(_MAKERS.values()):
        cases += make(ops, Draw(seed, number))
    return _for_ops(ops, cases)


def _for_ops(ops, cases):
    vectorised = getattr(ops, "__name__", "").endswith("kernels")
    return [case for case in cases if vectorised or not case.variant.startswith("long")]


def layer_names():
    """The layers of ``layer_cases``, bottom of the model first."""
    return tuple(_MAKERS)


def optimizer_cases(ops, seed=0):
    """A step of AdamW as ``Case``s: its derivatives, and every number of it against the formula in plain Python."""
    draw = Draw(seed, 1000)
    cases = [_adamw(ops, draw, variant, n, step) for variant, n, step in (("", 7, 3), ("long", 16384 + LONG_C, 1))]
    return _for_ops(ops, cases)


def _adamw(ops, draw, variant, n, step):
    inputs = dict(params=draw.normal(n), grads=draw.normal(n), first_moments=draw.normal(n))
    inputs["second_moments"] = 0.5 + draw.normal(n) ** 2
    boundaries, decays = np.array([0, n // 3, n]), np.array([0.3, 0.0])
    rate, beta1, beta2, epsilon, scale = 0.1, 0.8, 0.9, 1e-3, 0.6
    decay = np.repeat(decays, np.diff(boundaries))
    correction1, correction2 = 1 - beta1**step, 1 - beta2**step

    def adamw_step(params, grads, first_moments, second_moments):
        moved = [np.array(params), np.array(first_moments), np.array(second_moments)]
        ops.adamw_update(
            moved[0], np.array(grads), *moved[1:], boundaries, decays, rate, beta1, beta2, epsilon, step, scale
        )
        return np.stack(moved), (grads, *moved[1:])

    def adamw_step_backward(dout, cache):
        # p' = p (1 − lr d) − lr m̂ / (√v̂ + ε), with m' = β₁ m + (1 − β₁) s g and v' = β₂ v + (1 − β₂) s² g²
        dparams, dm, dv = dout
        grads, m, v = cache
        root = np.sqrt(v / correction2)
        dm = dm - dparams * rate / correction1 / (root + epsilon)
        dv = dv + dparams * rate * (m / correction1) / (root + epsilon) ** 2 / (2 * root * correction2)
        dgrads = dm * (1 - beta1) * scale + dv * (1 - beta2) * scale**2 * 2 * grads
        return dparams * (1 - rate * decay), dgrads, dm * beta1, dv * beta2

    def value(params, grads, first_moments, second_moments):
        rows = []
        for p, g, m, v, d in zip(*(a.tolist() for a in (params, grads, first_moments, second_moments, decay))):
            m, v = beta1 * m + (1 - beta1) * scale * g, beta2 * v + (1 - beta2) * (scale * g) ** 2
            adapted = (m / correction1) / (math.sqrt(v / correction2) + epsilon)
            rows.append((p - rate * (adapted + d * p), m, v))
        return np.array(rows).T

    return Case(OPTIMIZER, variant, inputs, adamw_step, adamw_step_backward, value=value)


def is_analytic(case):
    """Whether the layer's forward computes with complex numbers as it does with real ones, as the complex step needs.

    The loss does not: it is returned as a Python float. An optimizer's step writes to real arrays.
    """
    return "cross-entropy" not in case.layer and case.layer != OPTIMIZER


def check_case(case, dot_product=False, **options):
    """``check_gradients`` of a case, then of its ``into=`` and of its mask: a ``GradientReport``.

    dot_product: also test ⟨u, Jv⟩ = ⟨Jᵀu, v⟩ for each tensor; for an analytic case of ``layers``.
    """
    report = check_gradients(case.forward, case.backward, case.inputs, **options)
    if any(v.check == "shapes" for v in report.violations):
        return report  # nothing else can be compared
    if dot_product:
        errors = dot_product_errors(case, options.get("seed", 0))
        report = report._replace(tensors=[t._replace(dot_product=errors.get(t.tensor)) for t in report.tensors])
    rng = np.random.default_rng(options.get("seed", 0))
    found = [_broken_value(case), _broken_accumulation(case, rng), _broken_visibility(case, rng)]
    return GradientReport(report.tensors, report.violations + [v for v in found if v])


def _broken_value(case):
    """Compare the output with the formula: differences miss a forward and a backward wrong by the same factor."""
    if case.value is None:
        return None
    found, expected = np.asarray(case.forward(**case.inputs)[0]), np.asarray(case.value(**case.inputs))
    error = float(np.max(np.abs(found - expected), initial=0))
    if not error <= 1e-10 * max(1.0, float(np.max(np.abs(expected), initial=0))):
        return Violation("value", f"the output is off by {error:.2g} from what the formula gives in plain Python")
    return None


def _broken_visibility(case, rng):
    """Check that the gradient of query i reaches every key that i may see, and is exactly 0 at all other keys."""
    if case.visible is None:
        return None
    out, cache = case.forward(**case.inputs)
    name = "v" if "v" in case.inputs else "x"
    index = [n for n, value in case.inputs.items() if n in ("q", "k", "v", "x")].index(name)
    for i in range(out.shape[1]):
        dout = np.zeros(out.shape)
        dout[:, i] = rng.standard_normal(dout[:, i].shape)
        gradient = case.backward(dout, cache)[index]
        reached = np.any(gradient.reshape(*gradient.shape[:2], -1) != 0, axis=-1)  # (B, Tk)
        wrong = np.argwhere(reached != case.visible[:, i])
        if len(wrong):
            b, j = (int(n) for n in wrong[0])
            what = "a gradient, yet may not be seen" if reached[b, j] else "no gradient, yet is seen"
            return Violation("visibility", f"sequence {b}: key {j} gets {what} from query {i}")
    return None


def _broken_accumulation(case, rng):
    if not case.n_parameters:
        return None
    out, cache = case.forward(**case.inputs)
    dout = rng.standard_normal(np.shape(out))
    dout = float(dout) if np.ndim(out) == 0 else dout
    gradients = case.backward(dout, cache)
    expected = gradients[len(gradients) - case.n_parameters :]
    starts = [None if g is None else rng.standard_normal(g.shape) for g in expected]
    into = tuple(None if s is None else s.copy() for s in starts)
    returned = case.backward(dout, cache, into=into)
    for i, (start, gradient, accumulated) in enumerate(zip(starts, expected, into)):
        if gradient is not None and not np.allclose(accumulated, start + gradient, rtol=1e-12, atol=1e-12):
            return Violation("accumulation", f"into[{i}] is not its former value plus the gradient")
    if any(a is not b for a, b in zip(returned[len(returned) - case.n_parameters :], into)):
        return Violation("accumulation", "the backward returned other arrays than those of into")
    return None


def _embedding(ops, draw):
    tokens = draw.rng.integers(0, V, (B, T))
    tokens[0, :3] = tokens[1, 2]  # a token that occurs often: its row collects several gradients
    tables = dict(wte=draw.normal(V, C), wpe=draw.normal(BLOCK_SIZE, C))
    shared = dict(tokens=tokens, positions=np.arange(T), **tables)
    own = dict(tokens=tokens, positions=draw.rng.integers(0, BLOCK_SIZE, (B, T)), **tables)
    wide = dict(
        tokens=draw.rng.integers(0, V, (3, T)),
        positions=draw.rng.integers(0, BLOCK_SIZE, (3, T)),
        wte=draw.normal(V, LONG_C),
        wpe=draw.normal(BLOCK_SIZE, LONG_C),
    )
    pair = ops.embedding_forward, ops.embedding_backward
    return [
        Case("embedding", "", shared, *pair, 2),
        Case("embedding", "own positions", own, *pair, 2),
        Case("embedding", "long", wide, *pair, 2),
    ]


def _layernorm(ops, draw):
    inputs = dict(x=draw.normal(B, T, C) + 0.5, weight=draw.around_one(C), bias=draw.normal(C))
    # Rows of almost one value: ε is as large as the variance, and its part in the derivative shows.
    flat = {**inputs, "x": 0.01 * inputs["x"], "epsilon": 1e-4}
    wide = dict(x=draw.normal(1, LONG_ROWS, LONG_C), weight=draw.around_one(LONG_C), bias=draw.normal(LONG_C))
    pair = ops.layernorm_forward, ops.layernorm_backward
    return [
        Case("layernorm", "", inputs, *pair, 2),
        Case("layernorm", "large ε", flat, *pair, 2),
        Case("layernorm", "long", wide, *pair, 2),
    ]


def _linear(ops, draw):
    inputs = dict(x=draw.normal(B, T, C), weight=draw.normal(C, V), bias=draw.normal(V))
    # Deeper than a block of the product, wider than several tiles.
    wide = dict(x=draw.normal(1, 13, 800), weight=draw.weight(800, LONG_C + 26), bias=draw.normal(LONG_C + 26))
    pair = ops.linear_forward, ops.linear_backward
    return [
        Case("linear", "", inputs, *pair, 2),
        Case("linear", "no bias", without(inputs, "bias"), *pair, 2),
        Case("linear", "long", wide, *pair, 2),
    ]


def _gelu(ops, draw):
    x = 2 * draw.normal(B, T, C)
    x[0, 0, :5] = 0, -0.75, 3.5, -4.5, 1e-3  # the origin, the minimum, both tails
    pair = ops.gelu_forward, ops.gelu_backward
    return [
        Case("gelu", "", dict(x=x), *pair),
        Case("gelu", "long", dict(x=2 * draw.normal(1, LONG_ROWS, LONG_C)), *pair),
    ]


def _attention(ops, draw):
    pair = ops.attention_forward, ops.attention_backward
    q, k, v = (draw.normal(B, T, N_HEAD, HEAD_SIZE) for _ in range(3))
    plain = dict(q=q, k=k, v=v)
    first_key = np.array([[0, 0, 2, 2, 2], [0, 1, 1, 3, 3]])
    dropout = Dropout(0.3, 0x5EED_0123_4567_89AB, first_sequence=3)
    longer = dict(q=q, k=draw.normal(B, T + 3, N_HEAD, HEAD_SIZE), v=draw.normal(B, T + 3, N_HEAD, HEAD_SIZE))
    everything = dict(**longer, first_key=first_key + np.array([[0], [2]]), dropout=dropout)
    masked = dict(**plain, first_key=first_key)
    few = dict(q=draw.normal(1, 2, 2, 19), k=draw.normal(1, 37, 2, 19), v=draw.normal(1, 37, 2, 19))
    many = {name: draw.normal(1, LONG_ROWS, 1, 19) for name in ("q", "k", "v")}
    many["first_key"] = np.maximum(0, np.arange(LONG_ROWS)[None] - 101)
    return [
        Case("attention", "", plain, *pair, visible=visible(T, T)),
        Case("attention", "first_key", masked, *pair, visible=visible(T, T, first_key)),
        Case("attention", "dropout", dict(**plain, dropout=dropout), *pair),
        Case("attention", "Tk > Tq", longer, *pair, visible=visible(T, T + 3)),
        Case("attention", "Tk > Tq, first_key, dropout", everything, *pair),
        Case("attention", "few queries", few, *pair),
        Case("attention", "another scale", dict(**plain, scale=0.3), *pair),
        Case("attention", "long, first_key", many, *pair),
    ]


def _multi_head(ops, draw):
    inputs = dict(
        x=draw.normal(B, T, C),
        attn_weight=draw.weight(C, 3 * C),
        attn_bias=draw.normal(3 * C),
        proj_weight=draw.weight(C, C),
        proj_bias=draw.normal(C),
        n_head=N_HEAD,
    )
    first_key = np.array([[0, 1, 1, 1, 4], [0, 0, 0, 2, 2]])
    masked = dict(**inputs, first_key=first_key, dropout=Dropout(0.25, 0x0123_4567_89AB_CDEF))
    pair = ops.multi_head_attention_forward, ops.multi_head_attention_backward
    return [
        Case("multi-head", "", inputs, *pair, 4, visible=visible(T, T)),
        Case("multi-head", "first_key, dropout", masked, *pair, 4),
        Case(
            "multi-head",
            "no bias, another scale",
            {**without(inputs, "attn_bias", "proj_bias"), "scale": 0.3},
            *pair,
            4,
        ),
    ]


def _mlp(ops, draw):
    inputs = dict(
        x=draw.normal(B, T, C),
        fc_weight=draw.weight(C, 4 * C),
        fc_bias=draw.normal(4 * C),
        proj_weight=draw.weight(4 * C, C),
        proj_bias=draw.normal(C),
    )
    long = dict(  # more rows than are taken at a time
        x=draw.normal(1, 1100, 6),
        fc_weight=draw.weight(6, 24),
        fc_bias=draw.normal(24),
        proj_weight=draw.weight(24, 6),
        proj_bias=draw.normal(6),
    )
    pair = ops.mlp_forward, ops.mlp_backward
    gated = dict(inputs, fc_weight=draw.weight(C, 34), fc_bias=draw.normal(34), proj_weight=draw.weight(17, C))
    return [
        Case("mlp", "", inputs, *pair, 4),
        Case("mlp", "relu2", dict(**inputs, activation="relu2"), *pair, 4),
        Case("mlp", "swiglu", dict(**gated, activation="swiglu"), *pair, 4),
        Case("mlp", "swiglu, no bias", {**without(gated, "fc_bias", "proj_bias"), "activation": "swiglu"}, *pair, 4),
        Case("mlp", "long", long, *pair, 4),
    ]


def _dropout(ops, draw):
    inputs = dict(x=draw.normal(B, T, C), dropout=Dropout(0.4, 0xFEDC_BA98_7654_3210, first_sequence=1))
    long = dict(x=draw.normal(2, 41, LONG_C), dropout=Dropout(0.4, 0x0F1E_2D3C_4B5A_6978))
    pair = ops.dropout_forward, ops.dropout_backward
    return [Case("dropout", "", inputs, *pair), Case("dropout", "long", long, *pair)]


def _residual(ops, draw):
    inputs = dict(x=draw.normal(B, T, C), branch=draw.normal(B, T, C))
    dropped = dict(**inputs, dropout=Dropout(0.35, 0x1357_9BDF_0246_8ACE))
    pair = ops.residual_forward, ops.residual_backward
    long = dict(x=draw.normal(1, LONG_ROWS, LONG_C), branch=draw.normal(1, LONG_ROWS, LONG_C))
    return [
        Case("residual", "", inputs, *pair),
        Case("residual", "dropout", dropped, *pair),
        Case("residual", "long", long, *pair),
        Case("residual", "long, dropout", dict(**long, dropout=Dropout(0.35, 0x8642_0ACE_1357_9BDF)), *pair),
    ]


def _cross_entropy(ops, draw):
    inputs = dict(logits=2 * draw.normal(B, T, V), targets=draw.targets())
    other = dict(inputs, targets=np.where(inputs["targets"] == -1, 7, inputs["targets"]), ignore_index=7)
    pair = ops.cross_entropy_forward, ops.cross_entropy_backward
    one = dict(inputs, targets=np.where(np.arange(B * T).reshape(B, T) == 6, 4, -1))
    # More logits than are taken at a time; the largest come last in one row and first in the other.
    long = dict(logits=draw.normal(1, 2, 4096 + LONG_C), targets=np.array([[4099, 7]]))
    long["logits"][0, 0, -5:] += 9
    long["logits"][0, 1, :5] += 9
    return [
        Case("cross-entropy", "", inputs, *pair, value=_mean_loss),
        Case("cross-entropy", "another ignore_index", other, *pair, value=_mean_loss),
        Case("cross-entropy", "one target", one, *pair, value=_mean_loss),
        Case("cross-entropy", "long", long, *pair, value=_mean_loss),
    ]


def _mean_loss(logits, targets, ignore_index=-1):
    """Cross-entropy, number by number."""
    losses = []
    for row, target in zip(logits.reshape(-1, logits.shape[-1]).tolist(), targets.reshape(-1).tolist()):
        if target != ignore_index:
            largest = max(row)
            losses.append(math.log(math.fsum(math.exp(x - largest) for x in row)) + largest - row[target])
    return math.fsum(losses) / len(losses)


def _lm_head(ops, draw):
    inputs = dict(x=draw.normal(B, T, C), wte=draw.normal(V, C))
    return [Case("lm-head", "", inputs, ops.lm_head_forward, ops.lm_head_backward, 1)]


def _lm_head_cross_entropy(ops, draw):
    inputs = dict(x=draw.normal(B, T, C), wte=draw.weight(V, C), targets=draw.targets())

    def gradients_at_once(dloss, cache, into=None):
        return ops.lm_head_cross_entropy_gradients(**inputs, dloss=dloss, into=into)[1:]

    forward = ops.lm_head_cross_entropy_forward
    one = dict(inputs, targets=np.where(np.arange(B * T).reshape(B, T) == 6, 4, -1))

    def one_at_once(dloss, cache, into=None):
        return ops.lm_head_cross_entropy_gradients(**one, dloss=dloss, into=into)[1:]

    def value(x, wte, targets):
        return _mean_loss(x @ wte.T, targets)

    return [
        Case("lm-head-cross-entropy", "", inputs, forward, ops.lm_head_cross_entropy_backward, 1),
        Case("lm-head-cross-entropy", "gradients at once", inputs, forward, gradients_at_once, 1),
        Case("lm-head-cross-entropy", "one target", one, forward, ops.lm_head_cross_entropy_backward, 1, value=value),
        Case("lm-head-cross-entropy", "one target, at once", one, forward, one_at_once, 1, value=value),
    ]


_MAKERS = {
    "embedding": _embedding,
    "layernorm": _layernorm,
    "linear": _linear,
    "gelu": _gelu,
    "attention": _attention,
    "multi-head": _multi_head,
    "mlp": _mlp,
    "dropout": _dropout,
    "residual": _residual,
    "cross-entropy": _cross_entropy,
    "lm-head": _lm_head,
    "lm-head-cross-entropy": _lm_head_cross_entropy,
    **MAKERS,
}
