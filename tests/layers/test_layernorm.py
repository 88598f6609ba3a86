import math

import numpy as np

from gpt_numpy import layers

B, T, C = 2, 5, 12


def test_gradients(prove_gradients):
    prove_gradients("layernorm", {"": B * T * C + 2 * C, "large ε": B * T * C + 2 * C})


def test_rows_by_the_definition(rng):
    x, weight, bias = 3 * rng.normal(size=(B, T, C)) + 1, rng.normal(size=C), rng.normal(size=C)
    out, _ = layers.layernorm_forward(x, weight, bias, epsilon=1e-3)
    for row, found in zip(x.reshape(-1, C).tolist(), out.reshape(-1, C)):
        mean = sum(row) / C
        variance = sum((value - mean) ** 2 for value in row) / C
        expected = [(value - mean) / math.sqrt(variance + 1e-3) for value in row]
        np.testing.assert_allclose(found, np.array(expected) * weight + bias, rtol=1e-12, atol=1e-13)


def test_gradient_has_no_part_that_the_normalisation_undoes(rng):
    x, weight, dout = rng.normal(size=(B, T, C)), rng.normal(size=C), rng.normal(size=(B, T, C))
    _, cache = layers.layernorm_forward(x, weight, np.zeros(C), epsilon=0.0)
    dx, _, _ = layers.layernorm_backward(dout, cache)
    centred = x - x.mean(axis=-1, keepdims=True)
    assert np.abs(dx.sum(axis=-1)).max() < 1e-13  # shifting a row
    assert np.abs((dx * centred).sum(axis=-1)).max() < 1e-13  # stretching it


def test_a_constant_row_is_its_bias(rng):
    bias = rng.normal(size=C)
    out, _ = layers.layernorm_forward(np.full((1, C), 7.0), rng.normal(size=C), bias)
    np.testing.assert_array_equal(out[0], bias)


def test_two_dimensional_input_and_float32(rng, counting_alloc):
    x = rng.normal(size=(7, C)).astype(np.float32)
    weight, bias = rng.normal(size=(2, C)).astype(np.float32)
    out, cache = layers.layernorm_forward(x, weight, bias, alloc=counting_alloc)
    gradients = layers.layernorm_backward(x, cache, alloc=counting_alloc)
    assert counting_alloc.owns(out) and counting_alloc.owns(gradients[0])
    assert [g.dtype for g in (out, *gradients)] == [np.float32] * 4
    exact, _ = layers.layernorm_forward(x.astype(np.float64), weight.astype(np.float64), bias.astype(np.float64))
    np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-6)
