"""Certified training: the bend between curve and line."""

import numpy as np
import pytest

from keras_lrsched.schedules import CertifiedEpsilon


def test_slope_has_no_step_at_the_middle():
    slopes = np.diff(CertifiedEpsilon(1.0, 100, 8000).values(8100))
    np.testing.assert_allclose(slopes[2095:2105], slopes[2105], rtol=0.01)
    assert np.argmax(np.diff(slopes)) == 2098  # steepest just before, then straight


def test_first_value():
    """Spec 18: epoch 2, batch 2 of 100; six digits of it are in the contract."""
    assert CertifiedEpsilon.from_epochs(1.0, 2, 80, 100).values(102)[101] == pytest.approx(4.81e-15, rel=1e-3)
