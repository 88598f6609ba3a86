import numpy as np

from gpt_numpy import layers
from gpt_numpy.randomness import Dropout

SHAPE = (2, 5, 3)


def test_gradients(prove_gradients):
    prove_gradients("residual", {"": 2 * 2 * 5 * 12, "dropout": 2 * 2 * 5 * 12})


def test_the_stream_is_never_dropped(rng, counting_alloc):
    x, branch = rng.normal(size=(2, *SHAPE))
    dropout = Dropout(0.5, 99)
    out, cache = layers.residual_forward(x, branch, dropout, counting_alloc)
    dropped, _ = layers.dropout_forward(branch, dropout)
    np.testing.assert_array_equal(out, x + dropped)
    assert (out == x).any() and (out != x).any()
    dout = rng.normal(size=SHAPE)
    dx, dbranch = layers.residual_backward(dout, cache, counting_alloc)
    np.testing.assert_array_equal(dx, dout)
    np.testing.assert_array_equal(dbranch == 0, dropped == 0)
    assert counting_alloc.owns(out) and counting_alloc.owns(dbranch)


def test_without_dropout_both_get_the_gradient_as_it_is(rng):
    x, branch, dout = rng.normal(size=(3, *SHAPE))
    out, cache = layers.residual_forward(x, branch)
    np.testing.assert_array_equal(out, x + branch)
    for gradient in layers.residual_backward(dout, cache):
        np.testing.assert_array_equal(gradient, dout)
