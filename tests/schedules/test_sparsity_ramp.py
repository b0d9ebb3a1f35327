"""Sparsity ramp: how often and how much it prunes."""

import numpy as np
import pytest

from keras_lrsched.schedules import SparsityRamp


def test_sparsity_ramp_prunes_as_often_as_asked():
    values = SparsityRamp(0.0, 0.8, 10, 50, frequency=7).values(80)
    changes = np.flatnonzero(np.diff(values)) + 1
    assert changes.tolist() == [17, 24, 31, 38, 45, 50]


def test_sparsity_of_pre_training():
    """Spec 17: from 25 % to 75 % of the run to 0.8, half of the weights are there on average."""
    assert 1 - SparsityRamp(0.0, 0.8, 25_000, 75_000).values(100_000).mean() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("sparsity", "of", "first", "last"),
    [
        (0.5, "compute", 0.161290323, 0.677419355),
        (0.8, "compute", 1 / 11, 6 / 11),
        (0.8, "steps", 0.25, 0.75),
    ],
)
def test_shares_of_a_run(sparsity, of, first, last):
    ramp = SparsityRamp.for_pretraining(sparsity, 10**9, of=of)
    assert (ramp.begin_step / 1e9, ramp.end_step / 1e9) == pytest.approx((first, last), abs=2e-9)
    assert (ramp.initial_sparsity, ramp.final_sparsity) == (0.0, sparsity)


def test_shares_of_the_compute_of_a_run():
    """An update costs what is left: a quarter of the sum comes before the ramp, a quarter after."""
    ramp = SparsityRamp.for_pretraining(0.7, 10_000)
    left = 1 - ramp.values(10_000)
    assert left[: ramp.begin_step].sum() / left.sum() == pytest.approx(0.25, abs=2e-4)
    assert left[ramp.end_step :].sum() / left.sum() == pytest.approx(0.25, abs=2e-4)


@pytest.mark.parametrize("bad", [{"begin": 0.8}, {"end": 2}, {"of": "tokens"}, {"final_sparsity": 1.0}, {"total_steps": 0}])
def test_bad_shares(bad):
    with pytest.raises(ValueError, match="Received: "):
        SparsityRamp.for_pretraining(**({"final_sparsity": 0.5, "total_steps": 100} | bad))
