"""Forecasts of the final loss from the first part of a run."""

import warnings

import numpy as np
import pytest

from keras_lrsched.laws import AnnealingLaw, LossCurve, _uncertainty, forecast
from tests.laws import published_curves
from tests.laws.official_runs import constant, cosine, two_stage, wsd
from tests.nightly import nightly

STEPS = 2000
LAW = AnnealingLaw(2.6, 0.5, 0.45, 0.4, decay=0.99)


def seen(part, shape=constant, noise=0.0, level=1.0):
    rates = shape(STEPS)
    spread = level * np.exp(noise * np.random.default_rng(0).normal(size=STEPS))
    at = np.arange(1, STEPS)
    return LossCurve(LAW.loss_at(rates, at) * spread[1:], rates, at).between(0, int(part * STEPS))


def test_the_forms_by_hand():
    """The first form is exact for a power law; the line through its later half is lower."""
    step = np.arange(1000)
    loss = 2.0 + 3.0 * (step + 1.0) ** -0.5
    low, predicted, high = forecast(LossCurve(loss, np.full(4000, 0.1), step))
    at, later = 3960.5, slice(550, None)
    line = np.polyval(np.polyfit(np.log(step[later] + 1.0), loss[later], 1), np.log(at))
    assert predicted == pytest.approx((2.0 + 3.0 * at**-0.5 + line) / 2, rel=1e-3)
    assert low < line < 2.0 + 3.0 * at**-0.5 < high


def test_an_interval_narrows_with_the_run_and_widens_with_the_level():
    widths = [np.log(high / low) for low, _, high in map(forecast, (seen(0.25, noise=0.01), seen(0.75, noise=0.01)))]
    assert widths[0] > 1.5 * widths[1]
    low, predicted, high = forecast(seen(0.5))
    wide = forecast(seen(0.5), level=0.99)
    assert wide.low < low < predicted < high < wide.high


def test_a_fall_ahead_widens_the_interval():
    flat, falling = forecast(seen(0.5, constant)), forecast(seen(0.5, wsd))
    assert falling.high / falling.low > 1.02 * flat.high / flat.low
    assert falling.low < LAW.loss_at(wsd(STEPS), np.array([STEPS - 1]))[0]


@pytest.mark.parametrize("shape", [constant, cosine, wsd, two_stage])
def test_a_law_at_the_level_of_the_run(shape):
    """The run is 3 % above what the law says of it, and the law knows its schedule."""
    low, predicted, high = forecast(seen(0.4, shape, level=1.03), law=LAW)
    at = np.arange(int(0.98 * STEPS), STEPS)
    assert predicted == pytest.approx(1.03 * LAW.loss_at(shape(STEPS), at).mean(), rel=1e-4)
    assert np.log(high / predicted) == pytest.approx(1.645 * 0.0075, rel=0.05)  # what is left is the error of any law
    assert low < predicted


def test_the_schedule_can_be_given():
    curve = seen(0.5)
    short = LossCurve(curve.loss, curve.rates[:1000], curve.step)
    assert forecast(short, 1e-3, total_steps=STEPS).predicted == pytest.approx(forecast(curve).predicted, rel=1e-12)


@pytest.mark.parametrize(
    ("curve", "options", "message"),
    [
        (seen(1.0), {}, "`total_steps` must be more than the curve has, 2000"),
        (seen(0.03), {}, "needs 20 points or more after warmup"),
        (seen(0.5), {"level": 1.0}, "`level` must be"),
        (seen(0.5), {"schedule": 0.1, "total_steps": 900}, "`total_steps` must be more"),
    ],
)
def test_bad_input(curve, options, message):
    with pytest.raises(ValueError, match=message + ".*Received: "):
        forecast(curve, **options)


@nightly
@pytest.mark.parametrize("part", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("with_law", [False, True])
def test_published_curves(part, with_law, data_dir):
    """18 runs of three models: constant, cosine and two WSD. The law was fitted to runs of other schedules of the model."""
    errors, covered = [], []
    for millions in (25, 100, 400):
        curves = published_curves.read(data_dir, millions)
        for name, curve in curves.items():
            law = _law_of_others(name, curves) if with_law else None
            low, predicted, high = forecast(curve.between(0, int(part * len(curve.rates))), law=law)
            final = _uncertainty.final(curve)
            errors.append(abs(predicted / final - 1))
            covered.append(low <= final <= high)
    assert len(covered) == 18
    assert np.median(errors) < (0.005 if with_law else 0.015)
    assert np.mean(covered) > 0.85


def _law_of_others(name, curves):
    others = [curves[other] for other in published_curves.ONE_LENGTH if other[:3] != name[:3]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AnnealingLaw.fit(others)
