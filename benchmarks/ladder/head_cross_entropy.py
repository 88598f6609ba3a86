"""The tied head with the loss, value and gradients: the largest products of a small GPT."""

import numpy as np

from gpt_numpy import kernels, layers

from ..problems.operations import PROBLEMS
from . import Case, Rung, by


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


_PROBLEM = PROBLEMS["head-cross-entropy"]
CASE = Case(
    name="head_cross_entropy",
    problem=_PROBLEM,
    size=dict(rows=1024, columns=768, vocab_size=50257),
    small_size=dict(rows=8, columns=16, vocab_size=101),
    rungs=[
        Rung("python loops", python_loops, small=True),
        Rung("numpy (layers)", by(_PROBLEM, layers)),
        Rung("numpy, row chunks", chunked_numpy),
        Rung("kernels (fused)", by(_PROBLEM, kernels)),
    ],
)
