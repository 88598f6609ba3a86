import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.layers.dropout import keep_mask
from gpt_numpy.randomness import Dropout, dropout_key

KEY = dropout_key(seed=5, step=7, layer=3, site=1)


def mix(x):
    """The mixer in Python integers."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def test_gradients(prove_gradients):
    prove_gradients("dropout", {"": 2 * 5 * 12})


def test_mask_bit_by_bit():
    dropout = Dropout(0.37, KEY, first_sequence=6)
    mask = keep_mask((2, 3, 5, 4), dropout)
    for b, h, t, column in np.ndindex(mask.shape):
        row = ((6 + b) * 3 + h) * 5 + t
        row_hash = mix(mix((row + KEY) % 2**32) ^ (KEY >> 32))
        bits = mix((row_hash + column * 0x9E3779B9) % 2**32)
        assert mask[b, h, t, column] == (bits >= round(0.37 * 2**32))


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9])
def test_dropped_fraction(probability):
    n = 400 * 500
    kept = keep_mask((4, 100, 500), Dropout(probability, KEY)).mean()
    assert abs(kept - (1 - probability)) < 5 * np.sqrt(probability * (1 - probability) / n) + 1e-12


def test_neighbouring_rows_and_columns_are_dropped_independently():
    mask = keep_mask((1, 1000, 1000), Dropout(0.5, KEY))[0].astype(float) - 0.5
    for shift in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (7, 0)):
        correlation = (mask * np.roll(mask, shift, axis=(0, 1))).mean() * 4
        assert abs(correlation) < 5e-3  # five standard deviations of 10⁶ fair coins


def test_every_coordinate_changes_the_mask():
    shape = (3, 50, 40)
    places = [(5, 7, 3, 1), (6, 7, 3, 1), (5, 8, 3, 1), (5, 7, 4, 1), (5, 7, 3, 2)]
    masks = [keep_mask(shape, Dropout(0.5, dropout_key(*place))) for place in places]
    masks += [keep_mask(shape, Dropout(0.5, KEY, first_sequence=3))]
    for i in range(len(masks)):
        for j in range(i):
            assert abs((masks[i] == masks[j]).mean() - 0.5) < 0.05


def test_a_batch_in_parts_has_the_mask_of_the_whole():
    whole = keep_mask((6, 3, 5, 4), Dropout(0.4, KEY, first_sequence=10))
    parts = [keep_mask((n, 3, 5, 4), Dropout(0.4, KEY, 10 + start)) for start, n in ((0, 1), (1, 2), (3, 3))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_kept_values_are_scaled_so_that_the_mean_stays():
    x = np.ones((20, 50, 100))
    out, cache = layers.dropout_forward(x, Dropout(0.2, KEY))
    assert set(np.unique(out)) == {0.0, 1.25}
    assert abs(out.mean() - 1) < 0.01
    np.testing.assert_array_equal(layers.dropout_backward(x, cache), out)


def test_probability_zero_is_the_identity(rng):
    x = rng.normal(size=(2, 5, 3)).astype(np.float32)
    out, _ = layers.dropout_forward(x, Dropout(0.0, KEY))
    np.testing.assert_array_equal(out, x)
    assert out.dtype == np.float32
