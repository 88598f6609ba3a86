import math

import numpy as np

from gpt_numpy import layers

B, T, C = 2, 5, 3


def make(rng):
    return [rng.normal(size=shape) for shape in ((B, T, C), (C, 4 * C), (4 * C,), (4 * C, C), (C,))]


def test_gradients(prove_gradients):
    prove_gradients("mlp", {"": 2 * 5 * 12 + 12 * 48 + 48 + 48 * 12 + 12})


def test_out_row_by_row(rng):
    x, fc_weight, fc_bias, proj_weight, proj_bias = arguments = make(rng)
    out, _ = layers.mlp_forward(*arguments)
    for row, found in zip(x.reshape(-1, C), out.reshape(-1, C)):
        hidden = row @ fc_weight + fc_bias
        u = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
        np.testing.assert_allclose(found, (hidden * (1 + np.tanh(u)) / 2) @ proj_weight + proj_bias, rtol=1e-11)


def test_rows_do_not_see_each_other(rng):
    arguments = make(rng)
    _, cache = layers.mlp_forward(*arguments)
    dout = np.zeros((B, T, C))
    dout[1, 3] = rng.normal(size=C)
    dx, *_ = layers.mlp_backward(dout, cache)
    assert dx[1, 3].all()
    dx[1, 3] = 0
    assert not dx.any()


def test_results_lie_where_alloc_says(rng, counting_alloc):
    out, cache = layers.mlp_forward(*make(rng), alloc=counting_alloc)
    dx, *_ = layers.mlp_backward(out, cache, alloc=counting_alloc)
    assert counting_alloc.owns(out) and counting_alloc.owns(dx)
