import math

import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.architecture.rotation import RopeScaling, Rotation, frequencies, rotation_of
from gpt_numpy.errors import KernelError


def rotation(positions, head_size=8, pairing="halves"):
    return rotation_of(np.asarray(positions), frequencies(head_size, 100.0), np.float64, pairing)


def test_gradients(prove_gradients):
    prove_gradients("rotary", dict.fromkeys(("", "own positions", "neighbours"), 2 * 5 * 3 * 4))


@pytest.mark.parametrize("pairing", ["halves", "neighbours"])
def test_products_depend_on_the_distance_alone(rng, pairing):
    q, k = rng.normal(size=(2, 1, 1, 1, 8))

    def product(m, n):
        turned = (layers.rotary_forward(x, rotation([p], pairing=pairing))[0] for x, p in ((q, m), (k, n)))
        return float(np.prod(list(turned), axis=0).sum())

    assert product(3, 5) == pytest.approx(product(103, 105), rel=1e-12)
    assert abs(product(3, 5) - product(3, 6)) > 1e-3


def test_lengths_stay_and_position_0_changes_nothing(rng):
    x = rng.normal(size=(2, 5, 3, 8))
    out, _ = layers.rotary_forward(x, rotation(np.arange(5)))
    np.testing.assert_allclose((out**2).sum(axis=-1), (x**2).sum(axis=-1), rtol=1e-13)
    np.testing.assert_array_equal(out[:, 0], x[:, 0])


def test_the_backward_turns_back(rng):
    x, angles = rng.normal(size=(2, 5, 3, 8)), rotation(rng.integers(0, 99, (2, 5)))
    out, cache = layers.rotary_forward(x, angles)
    np.testing.assert_allclose(layers.rotary_backward(out, cache), x, atol=1e-14)


def test_frequencies_as_the_papers_have_them():
    np.testing.assert_allclose(frequencies(4, 10_000.0), [1, 0.01])
    np.testing.assert_allclose(frequencies(4, 10_000.0, RopeScaling("linear", 4.0)), [0.25, 0.0025])


def test_llama_3_slows_down_long_waves_only():
    scaling = RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
    plain = frequencies(128, 500_000.0)
    slowed = frequencies(128, 500_000.0, scaling)
    for omega, found in zip(plain.tolist(), slowed.tolist()):  # as transformers computes it, number by number
        wavelength = 2 * math.pi / omega
        if wavelength < 8192 / 4:
            expected = omega
        elif wavelength > 8192 / 1:
            expected = omega / 8
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            expected = (1 - smooth) * omega / 8 + smooth * omega
        assert found == pytest.approx(expected, rel=1e-12)
    assert (slowed == plain).any() and (slowed == plain / 8).any()


def test_angles_that_do_not_fit_are_refused():
    x = np.ones((2, 5, 3, 8))
    for angles in (rotation(np.arange(4)), rotation(np.arange(5), head_size=6)):
        with pytest.raises(KernelError, match="cos"):
            layers.rotary_forward(x, angles)
    with pytest.raises(KernelError, match="pairing"):
        layers.rotary_forward(x, rotation(np.arange(5), pairing="thirds"))
    with pytest.raises(KernelError, match="sin"):
        layers.rotary_forward(x, Rotation(np.ones((5, 4)), np.ones((5, 3))))
