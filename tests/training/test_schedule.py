import numpy as np
import pytest

from gpt_numpy.training import Settings
from gpt_numpy.training.schedule import SCHEDULES, learning_rate


def rates(**changes):
    s = Settings(**{"max_steps": 101, "warmup_steps": 20, "learning_rate": 3.0, "final_fraction": 0.2, **changes})
    return np.array([learning_rate(step, s) for step in range(s.max_steps)])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rises_linearly_then_starts_from_the_highest(schedule):
    rate = rates(schedule=schedule)
    np.testing.assert_allclose(rate[:20], 3.0 * np.arange(1, 21) / 21)
    assert rate[20] == pytest.approx(3.0)
    assert (np.diff(rate[20:]) <= 1e-12).all()


def test_shapes():
    np.testing.assert_allclose(rates(schedule="constant")[20:], 3.0)
    np.testing.assert_allclose(rates(schedule="linear")[20:], np.linspace(3.0, 0.6, 81))
    cosine = rates(schedule="cosine")
    assert cosine[60] == pytest.approx((3.0 + 0.6) / 2)
    assert cosine[100] == pytest.approx(0.6)
    wsd = rates(schedule="wsd", decay_steps=40)
    np.testing.assert_allclose(wsd[20:61], 3.0)
    np.testing.assert_allclose(wsd[60:], np.linspace(3.0, 0.6, 41))


def test_wsd_decays_over_a_fifth_by_default():
    wsd = rates(schedule="wsd")
    np.testing.assert_allclose(wsd[20:81], 3.0)
    assert wsd[81] < 3.0


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup_steps", [0, 5, 50])
def test_is_defined_however_short_the_run(schedule, warmup_steps):
    rate = rates(schedule=schedule, max_steps=3, warmup_steps=warmup_steps)
    assert np.isfinite(rate).all() and (rate > 0).all() and (rate <= 3.0).all()
