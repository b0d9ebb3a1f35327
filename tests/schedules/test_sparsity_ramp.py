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
