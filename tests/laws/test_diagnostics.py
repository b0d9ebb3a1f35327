"""Curves that no smooth law describes are named; those that one does are not."""

import warnings

import numpy as np
import pytest

from keras_lrsched.laws import (
    AnnealingLaw,
    ConvexBound,
    ExtrapolationWarning,
    LossCurve,
    MultiPowerLaw,
    RegimeWarning,
    diagnostics,
)
from tests.laws.official_runs import constant, cosine, two_stage, wsd

STEPS = 2000
LAW = AnnealingLaw(2.0, 0.6, 0.4, 0.5, decay=0.99)


def noisy(loss, rates, seed, noise=0.02, name=""):
    spread = np.exp(noise * np.random.default_rng(seed).normal(size=len(rates)))
    return LossCurve(loss * spread, rates, name=name)


def following(rates, seed, noise=0.02):
    return noisy(LAW.predict(rates), rates, seed, noise).between(50).subsample(400)


def plateau(seed, drop=0.6, name=""):
    """A plateau near 2.3 that the run leaves at three fifths."""
    rates = constant(STEPS)
    done = np.arange(STEPS) / STEPS
    loss = 2.3 + 0.3 * (1 + np.cumsum(rates)) ** -3 - drop / (1 + np.exp(-(done - 0.7) * 15))
    return noisy(loss, rates, seed, name=name)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore:.*is missed by")
def test_a_plateau_that_is_left(seed):
    curve = plateau(seed, name="small model").between(50).subsample(400)
    with pytest.warns(RegimeWarning, match="small model falls faster late .* leaves a plateau"):
        diagnostics.check(LAW, [curve])


def test_power_laws_with_noise():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(50):
            for shape in (constant, cosine, wsd, two_stage):
                diagnostics.check(LAW, [following(shape(STEPS), seed)])


def test_without_noise():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in (constant, cosine, wsd, two_stage):
            diagnostics.check(LAW, [following(shape(STEPS), 0, noise=0.0)])


def test_a_law_that_misses():
    curve = following(cosine(STEPS), 0)
    higher = AnnealingLaw(2.1, 0.6, 0.4, 0.5, decay=0.99)
    for check in (diagnostics.check, diagnostics.check_misfit):
        with pytest.warns(RegimeWarning, match=r"curve 0 is missed by 3\.\d% .* AnnealingLaw does not fit"):
            check(higher, [curve])


def test_predictions_below_0_are_a_misfit():
    curve = following(cosine(STEPS), 0)
    with pytest.warns(RegimeWarning, match="curve 0 is missed by"), pytest.warns(ExtrapolationWarning, match="below 0"):
        diagnostics.check_misfit(AnnealingLaw(0.0, 0.6, 0.4, 1e4, decay=0.99), [curve])


def test_a_spike_within_an_eighth_is_a_misfit():
    curve = following(constant(STEPS), 0)
    loss = curve.loss * np.where((curve.step > 1200) & (curve.step < 1600), 1.1, 1.0)
    with pytest.warns(RegimeWarning, match="is missed by"):
        diagnostics.check_misfit(LAW, [LossCurve(loss, curve.rates, curve.step)])


def test_slopes_of_a_power_law():
    rates = np.full(STEPS, 1e-3)
    early, late = diagnostics.slopes(LossCurve(2 - 0.1 * np.log(np.cumsum(rates)), rates))
    assert early == pytest.approx(0.1)
    assert late == pytest.approx(0.1)


def test_slopes_with_noise_are_moved_towards_each_other():
    rates = np.full(STEPS, 1e-3)
    curves = [noisy(2 - 0.1 * np.log(np.cumsum(rates)), rates, seed) for seed in range(50)]
    early, late = np.transpose([diagnostics.slopes(curve) for curve in curves])
    assert np.mean(early > 0.1) > 0.9
    assert np.mean(late < 0.1) > 0.9


def test_few_points_say_nothing():
    rates = constant(60)
    assert diagnostics.slopes(LossCurve(np.linspace(3, 2, 60), rates).between(50)) == (0.0, 0.0)


@pytest.mark.parametrize("kind", [MultiPowerLaw, AnnealingLaw, ConvexBound])
def test_fits_warn(kind):
    falling = noisy(plateau(1).loss, two_stage(STEPS), 2)
    with pytest.warns(RegimeWarning) as caught:
        kind.fit([plateau(0), falling], points=100, skip=0.0)
    assert {warning.filename for warning in caught} == {__file__}
