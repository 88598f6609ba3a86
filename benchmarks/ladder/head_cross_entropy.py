"""The tied head with the loss, value and gradients: the largest products of a small GPT."""

import numpy as np

from gpt_numpy import kernels, layers

from . import Case, Rung


def make(rng, rows, columns, vocab_size):
    return {
        "x": rng.standard_normal((1, rows, columns), np.float32),
        "wte": (0.1 * rng.standard_normal((vocab_size, columns))).astype(np.float32),
        "targets": rng.integers(0, vocab_size, (1, rows)),
    }


def _through(ops, x, wte, targets):
    return ops.lm_head_cross_entropy_gradients(x, wte, targets, 1.0)


def oracle(inputs):
    return _through(layers, inputs["x"].astype(np.float64), inputs["wte"].astype(np.float64), inputs["targets"])


def python_loops(inputs):
    import math

    x, wte, targets = inputs["x"][0].tolist(), inputs["wte"].tolist(), inputs["targets"][0].tolist()
    N, C = len(x), len(wte[0])
    loss, dx, dwte = 0.0, [], [[0.0] * C for _ in wte]
    for row, target in zip(x, targets):
        logits = [sum(a * b for a, b in zip(row, column)) for column in wte]
        highest = max(logits)
        total = sum(math.exp(value - highest) for value in logits)
        loss += (highest + math.log(total) - logits[target]) / N
        dlogits = [(math.exp(value - highest) / total - (i == target)) / N for i, value in enumerate(logits)]
        dx.append([sum(d * column[c] for d, column in zip(dlogits, wte)) for c in range(C)])
        for d, drow in zip(dlogits, dwte):
            for c in range(C):
                drow[c] += d * row[c]
    return loss, np.array([dx]), np.array(dwte)


def chunked_numpy(inputs, chunk=64):
    """The specification's arithmetic, a chunk of rows at a time: the logits never exist whole."""
    x, wte, targets = inputs["x"][0], inputs["wte"], inputs["targets"][0]
    loss, dx, dwte = 0.0, np.empty_like(x), np.zeros_like(wte)
    for start in range(0, len(x), chunk):
        rows = slice(start, start + chunk)
        share = len(x[rows]) / len(x)
        logits = x[rows] @ wte.T
        part, cache = layers.cross_entropy_forward(logits, targets[rows])
        dlogits = layers.cross_entropy_backward(share, cache)
        loss += part * share
        dx[rows] = dlogits @ wte
        dwte += dlogits.T @ x[rows]
    return loss, dx[None], dwte


CASE = Case(
    name="head_cross_entropy",
    summary="tied head + cross-entropy, loss and both gradients",
    size=dict(rows=1024, columns=768, vocab_size=50257),
    small_size=dict(rows=8, columns=16, vocab_size=101),
    make=make,
    oracle=oracle,
    rungs=[
        Rung("python loops", python_loops, small=True),
        Rung("numpy (layers)", lambda inputs: _through(layers, **inputs)),
        Rung("numpy, row chunks", chunked_numpy),
        Rung("kernels (fused)", lambda inputs: _through(kernels, **inputs)),
    ],
    flops=lambda rows, columns, vocab_size: 6 * rows * columns * vocab_size,
    bytes=lambda rows, columns, vocab_size: 4 * columns * (2 * rows + 2 * vocab_size),
    tolerance=2e-5,
)
