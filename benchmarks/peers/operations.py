"""The problem that every contender gets for one operation: the same inputs, the same right answer in float64.

A folder is made with what ``gpt_numpy.layers`` computes in float64 from the float32 inputs; what a contender computes
the first time is compared with it. Then a step is as many calls as fit ``TURN`` seconds, and its time is their median.

``gemm-…`` is all that the linear layers of one block multiply: x·W, dout·Wᵀ and xᵀ·dout, each for four matrices.
"""

from __future__ import annotations

import os
import statistics

import numpy as np

from .. import ladder, timing

TURN = 0.3  # seconds
TOLERANCE = 2e-5  # of the largest entry of each output

_OURS, _TORCH = "operation_ours", "operation_torch"
_CONTENDERS = {"gpt_numpy": _OURS, "pytorch eager": _TORCH, "pytorch compiled": _TORCH}
_PRODUCTS = {"gpt_numpy": _OURS, "NumPy": _OURS, "pytorch eager": _TORCH}

_SUMMARIES = {
    "attention": "causal attention, forward and backward",
    "layernorm": "layernorm, forward and backward",
    "gelu": "tanh-GELU, forward and backward",
    "cross-entropy": "softmax and cross-entropy, forward and backward",
    "adamw": "AdamW",
    "gemm": "products of a block's linear layers",
}


def _problem(operation, *shape):
    summary = f"{_SUMMARIES[operation]}, {' × '.join(map(str, shape))}"
    more = (_PRODUCTS, "block") if operation == "gemm" else (_CONTENDERS, "call")
    return summary, dict(operation=operation, shape=shape), *more


# name → (summary, spec, contenders, unit of time)
PROBLEMS = {
    "attention": _problem("attention", 4, 1024, 12, 64),
    "layernorm": _problem("layernorm", 4096, 768),
    "layernorm-small": _problem("layernorm", 768, 128),
    "gelu": _problem("gelu", 4096, 3072),
    "gelu-small": _problem("gelu", 768, 512),
    "cross-entropy": _problem("cross-entropy", 1024, 50257),
    "cross-entropy-small": _problem("cross-entropy", 768, 65),
    "adamw": _problem("adamw", 1 << 25),
    "adamw-small": _problem("adamw", 811_000),
    "gemm-long": _problem("gemm", 4096, 768),
    "gemm-short": _problem("gemm", 256, 768),
    "gemm-small": _problem("gemm", 768, 128),
}

ADAMW = dict(learning_rate=1e-4, beta1=0.9, beta2=0.95, epsilon=1e-8)
DECAY = 0.1


def inputs(spec):
    """name → array of the problem, seeded, in the order in which the operation takes them."""
    rng, shape, operation = np.random.default_rng(3), tuple(spec["shape"]), spec["operation"]

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    if operation == "attention":
        return {name: normal(*shape) for name in ("q", "k", "v", "dout")}
    if operation == "layernorm":
        return {"x": normal(*shape), "weight": normal(shape[1]), "bias": normal(shape[1]), "dout": normal(*shape)}
    if operation == "gelu":
        return {"x": 2 * normal(*shape), "dout": normal(*shape)}
    if operation == "cross-entropy":
        return {"logits": normal(*shape), "targets": rng.integers(0, shape[1], shape[0])}
    if operation == "adamw":
        moments = {"first": 0.1 * normal(*shape), "second": 0.01 * normal(*shape) ** 2}
        return {"params": normal(*shape), "grads": normal(*shape), **moments}
    return {name: normal(*lengths) for name, lengths in _matrices(*shape).items()}


def _matrices(rows, C):
    shapes = {}
    for name, (K, N) in dict(attn=(C, 3 * C), proj=(C, C), fc=(C, 4 * C), out=(4 * C, C)).items():
        shapes |= {f"{name} x": (rows, K), f"{name} weight": (K, N), f"{name} dout": (rows, N)}
    return shapes


def products(arrays):
    """Each product of ``arrays`` (from ``inputs``): (title, a, b, a_transposed, b_transposed)."""
    for name in dict.fromkeys(key.split()[0] for key in arrays):
        x, weight, dout = (arrays[f"{name} {part}"] for part in ("x", "weight", "dout"))
        yield f"{name} x·W", x, weight, False, False
        yield f"{name} dout·Wᵀ", dout, weight, False, True
        yield f"{name} xᵀ·dout", x, dout, True, False


def through(ops, operation, arrays, alloc=np.empty):
    """The operation's outputs, by a namespace of ops such as ``gpt_numpy.layers``; AdamW works in place."""
    if operation == "attention":
        out, cache = ops.attention_forward(arrays["q"], arrays["k"], arrays["v"], alloc=alloc)
        return out, *ops.attention_backward(arrays["dout"], cache, alloc=alloc)
    if operation == "layernorm":
        out, cache = ops.layernorm_forward(arrays["x"], arrays["weight"], arrays["bias"], alloc=alloc)
        return out, *ops.layernorm_backward(arrays["dout"], cache, alloc=alloc)
    if operation == "gelu":
        out, cache = ops.gelu_forward(arrays["x"], alloc=alloc)
        return out, ops.gelu_backward(arrays["dout"], cache, alloc=alloc)
    if operation == "cross-entropy":
        loss, cache = ops.cross_entropy_forward(arrays["logits"], arrays["targets"])
        return np.asarray(loss), ops.cross_entropy_backward(1.0, cache, alloc=alloc)
    params, grads, first, second = arrays.values()
    ops.adamw_update(params, grads, first, second, np.array([0, params.size]), np.array([DECAY]), step=1, **ADAMW)
    return params, first, second


def make_folder(folder, spec):
    """Write the right outputs, output by output, as ``0.npy`` and so on."""
    from gpt_numpy import layers

    doubles = {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in inputs(spec).items()}
    if spec["operation"] == "gemm":
        right = ((a.T if a_t else a) @ (b.T if b_t else b) for _, a, b, a_t, b_t in products(doubles))
    else:
        right = through(layers, spec["operation"], doubles)
    for i, output in enumerate(right):
        np.save(os.path.join(folder, f"{i}.npy"), output.astype(np.float32))


def error_of(outputs, spec):
    """The largest error of any output, relative to the largest entry of that output; NaN where one is not right at all."""
    right = [np.load(os.path.join(spec["folder"], f"{i}.npy")) for i in range(len(outputs))]
    return ladder.error_against(right, outputs)


def timed(call):
    """The median seconds of the calls of a turn."""
    return statistics.median(timing.turn(call, TURN)[1:])


def step_of(call, spec, outputs):
    """A worker's step: times ``call``; ``outputs``, what its first call gave, are compared with the right ones."""
    error = error_of(outputs, spec)
    return lambda: (error, timed(call))


def products_step(spec, arrays, multiply, empty, to_numpy=np.asarray):
    """A worker's step that times each product: ``multiply`` takes a, b, out, and whether a and b are transposed."""
    calls = {}
    for title, a, b, a_t, b_t in products(arrays):
        out = empty((a.shape[1] if a_t else a.shape[0], b.shape[0] if b_t else b.shape[1]))
        calls[title] = (a, b, out, a_t, b_t)
        multiply(*calls[title])
    error, seconds = error_of([to_numpy(call[2]) for call in calls.values()], spec), {title: [] for title in calls}

    def step():
        turn = {title: timed(lambda call=call: multiply(*call)) for title, call in calls.items()}
        for title, spent in turn.items():
            seconds[title].append(spent)
        return error, sum(turn.values())

    def report():
        lines = {}
        for title, (a, _, out, a_t, _) in calls.items():
            matrix, product = title.split()
            operations = 2 * out.shape[0] * out.shape[1] * (a.shape[0] if a_t else a.shape[1])
            lines.setdefault(product, []).append(f"{matrix} {operations / statistics.median(seconds[title]) / 1e9:.0f}")
        return {product: ", ".join(rates) + " GFLOP/s" for product, rates in lines.items()}

    step.report = report
    return step
