"""When the second blend of data begins."""

import math

import pytest

from keras_lrsched.schedules import ContinuedPretraining


def test_switch_step():
    schedule = ContinuedPretraining(4.5e-5, 1_000_000)
    x = math.acos(2 * (0.2 - 0.01) / 0.99 - 1) / math.pi
    assert round(x, 6) == 0.711313  # spec 5
    assert schedule.switch_step() == math.ceil(1e6 * x)
    for fraction in (1.0, 0.9, 0.5, 0.2, 0.011, 0.01):
        step = schedule.switch_step(fraction)
        before, there = schedule.values([step - 1, step]) / 4.5e-5
        assert there <= fraction
        assert before > fraction or not step
    assert schedule.switch_step(1.0) == 0
    assert schedule.switch_step(0.01) <= 1_000_000


@pytest.mark.parametrize("fraction", [0, 0.009, 1.01, None, "fifth"])
def test_switch_step_refuses(fraction):
    with pytest.raises(ValueError, match=f"Received: fraction={fraction!r}"):
        ContinuedPretraining(1.0, 100).switch_step(fraction)
