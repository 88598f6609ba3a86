import numpy as np

from gpt_numpy import layers

B, T, K, N = 2, 5, 3, 4


def make(rng, dtype=np.float64):
    return [rng.normal(size=shape).astype(dtype) for shape in ((B, T, K), (K, N), (N,))]


def test_gradients(prove_gradients):
    prove_gradients("linear", {"": 2 * 5 * 12 + 12 * 11 + 11})


def test_out_entry_by_entry(rng):
    x, weight, bias = make(rng)
    out, _ = layers.linear_forward(x, weight, bias)
    for b, t, n in np.ndindex(B, T, N):
        np.testing.assert_allclose(out[b, t, n], sum(x[b, t, k] * weight[k, n] for k in range(K)) + bias[n], rtol=1e-13)


def test_the_number_of_leading_axes_does_not_matter(rng):
    x, weight, bias = make(rng)
    dout = rng.normal(size=(B, T, N))
    out, cache = layers.linear_forward(x, weight, bias)
    dx, dweight, dbias = layers.linear_backward(dout, cache)
    flat_out, flat_cache = layers.linear_forward(x.reshape(-1, K), weight, bias)
    flat_dx, flat_dweight, flat_dbias = layers.linear_backward(dout.reshape(-1, N), flat_cache)
    np.testing.assert_allclose(out.reshape(-1, N), flat_out, rtol=1e-13)
    np.testing.assert_allclose(dx.reshape(-1, K), flat_dx, rtol=1e-13)
    np.testing.assert_allclose(dweight, flat_dweight, rtol=1e-13)
    np.testing.assert_allclose(dbias, flat_dbias, rtol=1e-13)


def test_into_adds_and_returns_the_given_arrays(rng):
    x, weight, bias = make(rng)
    dout = rng.normal(size=(B, T, N))
    _, cache = layers.linear_forward(x, weight, bias)
    dx, dweight, dbias = layers.linear_backward(dout, cache)
    into = np.full((K, N), 2.0), np.full(N, 3.0)
    found = layers.linear_backward(dout, cache, into=into)
    np.testing.assert_array_equal(found[0], dx)
    assert found[1] is into[0] and found[2] is into[1]
    np.testing.assert_allclose(into[0], dweight + 2, rtol=1e-14)
    np.testing.assert_allclose(into[1], dbias + 3, rtol=1e-14)


def test_results_lie_where_alloc_says(rng, counting_alloc):
    x, weight, bias = make(rng, np.float32)
    out, cache = layers.linear_forward(x, weight, bias, counting_alloc)
    dx, dweight, dbias = layers.linear_backward(out, cache, alloc=counting_alloc)
    assert counting_alloc.owns(out) and counting_alloc.owns(dx)
    assert {a.dtype for a in (out, dx, dweight, dbias)} == {np.dtype(np.float32)}
