"""Seesaw and goodput: reference numbers, and that no example is lost."""

import numpy as np
import pytest

from keras_lrsched.laws import goodput, goodput_batch_size, seesaw
from keras_lrsched.schedules import ProfileDecay

TIMES = {"noise_scale": 640, "seconds": 0.02, "seconds_per_example": 0.001}
CUTS = np.repeat([1.0, 0.5, 0.25, 0.125], [500, 250, 125, 125])


def test_seesaw_by_hand():
    pair = seesaw(CUTS, None, batch_size=4)
    assert pair.total_steps == round(671.875)
    at = [0, 499, 500, 624, 625, 655, 656, 671]
    assert pair.learning_rate.values(at) == pytest.approx(np.repeat([1.0, 0.70711, 0.5, 0.35355], 2), rel=1e-5)
    assert pair.batch_size.values(at).tolist() == [4, 4, 8, 8, 16, 16, 32, 32]


def test_seesaw_of_sgd_keeps_the_learning_rate():
    assert set(seesaw(CUTS, None, 4, learning_rate_rule="linear").learning_rate.values(672)) == {1.0}


def test_at_the_critical_batch_the_learning_rate_falls_as_in_the_reference():
    pair = seesaw(CUTS, None, batch_size=4, max_batch_size=9)
    assert pair.batch_size.values([0, 500, 625, 749]).tolist() == [4, 8, 8, 8]
    assert pair.learning_rate.values([500, 625, 749]) == pytest.approx([2**-0.5, 2**-1.5, 2**-2.5])
    assert pair.total_steps == 500 + 250 // 2 + 125 // 2 + 125 // 2 + 1


@pytest.mark.parametrize("profile", ["linear", "cosine"])
def test_fine_cuts_of_smooth_schedules(profile):
    """Half of the updates, and all of the examples."""
    schedule = ProfileDecay(0.1, 10_000, profile=profile)
    pair = seesaw(schedule, 10_000, batch_size=10_000, cut=1.01, max_batch_size=1e6)
    assert pair.total_steps / 10_000 == pytest.approx(0.5, abs=0.01)
    assert pair.batch_size.values(pair.total_steps).sum() == pytest.approx(1e8, rel=0.005)


def test_warmup_and_constant_rates_stay():
    pair = seesaw([0.0, 0.5, 1.0, 1.0, 1.0], None, batch_size=8)
    assert pair.learning_rate.values(5).tolist() == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert set(pair.batch_size.values(5)) == {8.0}


@pytest.mark.parametrize(
    "bad", [{"batch_size": 0}, {"cut": 1.0}, {"max_batch_size": 3}, {"learning_rate_rule": "no"}, {"total_steps": 7}]
)
def test_bad_seesaw(bad):
    with pytest.raises(ValueError, match="Received: "):
        seesaw(**({"schedule": CUTS, "total_steps": None, "batch_size": 4} | bad))


@pytest.mark.parametrize(
    ("batch", "expected"), [(32, 615.385), (64, 727.273), (128, 756.757), (256, 695.652), (512, 561.404)]
)
def test_goodput(batch, expected):
    assert goodput(batch, base_batch_size=32, **TIMES) == pytest.approx(expected, abs=5e-4)


def test_goodput_with_accumulation():
    assert goodput(512, base_batch_size=32, accumulation_steps=4, **TIMES) == pytest.approx(504.505, abs=5e-4)


def test_the_best_batch():
    best = goodput_batch_size(**TIMES)
    assert best == pytest.approx(113.137, abs=5e-4)
    assert goodput(best, base_batch_size=32, **TIMES) > max(
        goodput(best * by, base_batch_size=32, **TIMES) for by in (0.9, 1.1)
    )
