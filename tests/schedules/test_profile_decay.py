"""Sampling: a profile that is read at some points only and held in between."""

import numpy as np
import pytest

from keras_lrsched.schedules import ProfileDecay


@pytest.mark.parametrize(
    "points", [(0.5, 0.75), (0.1, 0.3), (0.25, 0.35, 0.6, 0.9), tuple(n / 10 for n in range(10))], ids=str
)
def test_sample_points(points):
    """The new value holds from the first step at or after its point, whatever binary fractions make of it."""
    for decay_steps in range(2, 200):
        schedule = ProfileDecay(1.0, decay_steps, sample_points=points)
        expected = [1 - max(point for point in (0.0, *points) if point <= t / decay_steps) for t in range(decay_steps)]
        assert schedule.total_steps == decay_steps
        np.testing.assert_allclose(schedule.values(decay_steps), expected, rtol=1e-12)


def test_sample_every():
    line, held = ProfileDecay(1.0, 100), ProfileDecay(1.0, 100, sample_every=8)
    steps = np.arange(120)
    np.testing.assert_array_equal(held.values(steps), line.values(steps // 8 * 8))


def test_sampling_leaves_the_warmup_alone():
    plain = ProfileDecay(0.0, 90, warmup_target=1.0, warmup_steps=10)
    for sampling in ({"sample_every": 7}, {"sample_points": [0.5]}):
        held = ProfileDecay(0.0, 90, warmup_target=1.0, warmup_steps=10, **sampling)
        np.testing.assert_array_equal(held.values(11), plain.values(11))
