import numpy as np

from gpt_numpy import layers

B, T, C, V, BLOCK_SIZE = 2, 5, 3, 11, 7


def make(rng):
    tokens = rng.integers(0, V, (B, T))
    return tokens, rng.normal(size=(V, C)), rng.normal(size=(BLOCK_SIZE, C))


def test_gradients(prove_gradients):
    prove_gradients("embedding", {"": 11 * 12 + 7 * 12, "own positions": 11 * 12 + 7 * 12})


def test_out_is_the_sum_of_two_rows(rng):
    tokens, wte, wpe = make(rng)
    positions = rng.integers(0, BLOCK_SIZE, (B, T))
    shared, _ = layers.embedding_forward(tokens, np.arange(T), wte, wpe)
    own, _ = layers.embedding_forward(tokens, positions, wte, wpe)
    for b in range(B):
        for t in range(T):
            assert np.array_equal(shared[b, t], wte[tokens[b, t]] + wpe[t])
            assert np.array_equal(own[b, t], wte[tokens[b, t]] + wpe[positions[b, t]])


def test_a_repeated_token_collects_every_gradient(rng):
    tokens, wte, wpe = make(rng)
    tokens[...] = 4
    tokens[1, 2] = 9
    dout = rng.normal(size=(B, T, C))
    _, cache = layers.embedding_forward(tokens, np.arange(T), wte, wpe)
    dwte, dwpe = layers.embedding_backward(dout, cache)
    np.testing.assert_allclose(dwte[4], dout.sum(axis=(0, 1)) - dout[1, 2], rtol=1e-14)
    np.testing.assert_array_equal(dwte[9], dout[1, 2])
    np.testing.assert_allclose(dwpe[:T], dout.sum(axis=0), rtol=1e-14)


def test_rows_not_looked_up_get_exactly_nothing(rng):
    tokens, wte, wpe = make(rng)
    _, cache = layers.embedding_forward(tokens, np.arange(T), wte, wpe)
    dwte, dwpe = layers.embedding_backward(rng.normal(size=(B, T, C)), cache)
    unused = np.setdiff1d(np.arange(V), tokens)
    assert len(unused) and not dwte[unused].any()
    assert not dwpe[T:].any()


def test_out_lies_where_alloc_says(rng, counting_alloc):
    tokens, wte, wpe = make(rng)
    out, _ = layers.embedding_forward(
        tokens, np.arange(T), wte.astype(np.float32), wpe.astype(np.float32), counting_alloc
    )
    assert counting_alloc.owns(out) and out.dtype == np.float32 and np.isfinite(out).all()
