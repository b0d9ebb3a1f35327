"""Errors of left-out curves and intervals: by hand for a law that is a mean, and for every law."""

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import stats

from keras_lrsched import laws
from keras_lrsched.laws import Law, LossCurve, _uncertainty
from keras_lrsched.laws.law import finite_numbers
from tests.laws import published_curves
from tests.laws.official_runs import constant, cosine, two_stage, wsd
from tests.laws.test_law import EVERY_LAW
from tests.nightly import nightly

RATES = np.full(100, 0.1)
STEPS = 1000


class MeanLaw(Law):
    """The loss of every run is the mean of those seen."""

    parameters = ("level",)

    def __init__(self, level):
        super().__init__()
        finite_numbers(self, level=level)

    @classmethod
    def fit(cls, curves):
        return cls(np.exp(np.mean([np.log(curve.loss).mean() for curve in curves])))._fitted_to(curves, cls.fit)

    def loss_at(self, learning_rate, at):
        return np.full(len(at), self.level)


def flat(level, name=""):
    return LossCurve(np.full(100, level), RATES, name=name)


def test_leave_one_out_by_hand():
    found = MeanLaw.fit([flat(1.0, "a"), flat(2.0), flat(4.0)]).leave_one_out()
    assert found.names == ("a", "curve 1", "curve 2")
    assert found.measured == pytest.approx([1.0, 2.0, 4.0])
    assert found.predicted == pytest.approx([8**0.5, 2.0, 2**0.5])
    assert found.errors == pytest.approx([8**0.5 - 1, 0.0, 2**0.5 / 4 - 1])
    assert (found.mean, found.largest) == pytest.approx((np.abs(found.errors).mean(), 8**0.5 - 1))


def test_the_final_loss_is_the_mean_of_the_last_points():
    curve = LossCurve([9.0, 9.0, 2.0, 4.0], RATES, step=[0, 50, 98, 99])
    assert _uncertainty.final(curve) == 3.0
    assert _uncertainty.final(curve.between(0, 60)) == 9.0  # the last there is


def test_interval_by_hand():
    law = MeanLaw.fit([flat(1.0), flat(1.1), flat(1.21)])
    low, predicted, high = law.interval(RATES, level=0.8)
    log = np.log(1.1)
    reach = stats.t.ppf(0.9, 3) * np.sqrt(((1.5 * log) ** 2 * 2) / 3)
    assert (low, predicted, high) == pytest.approx((1.1 * np.exp(-reach), 1.1, 1.1 * np.exp(reach)))


@pytest.mark.parametrize(("curves", "method"), [(4, "leave_one_out"), pytest.param(10, "bootstrap", marks=nightly)])
def test_coverage(curves, method):
    """Of a run like the others, whose loss differs by chance: 90 % of the intervals have it."""
    random, hits = np.random.default_rng(1), 0
    for _ in range(200):
        levels = np.exp(0.05 * random.normal(size=curves + 1))
        low, _, high = MeanLaw.fit([flat(level) for level in levels[1:]]).interval(RATES, method=method, samples=60)
        hits += low <= levels[0] <= high
    assert 0.84 <= hits / 200 <= 0.96


def test_resampled_curves_differ_in_blocks():
    curve = LossCurve(np.exp(0.01 * np.arange(100)), RATES)
    law = MeanLaw.fit([curve])
    residuals = np.log(_uncertainty._resampled(law, curve, np.random.default_rng(0)).loss / law.level)
    steps = np.diff(residuals)
    assert np.isclose(steps, 0.01).sum() == 90  # ten blocks of ten
    assert set(residuals.round(6)) <= set(law.residuals(curve).round(6))


def curves_of(law):
    """Short noisy runs that follow a law."""
    curves = []
    for seed, shape in enumerate((constant, cosine, two_stage, wsd)):
        for size in (2.5e7, 1e8, 4e8) if isinstance(law, laws.SizedAnnealingLaw) else (None,):
            rates = shape(STEPS)
            spread = np.exp(0.002 * np.random.default_rng(seed).normal(size=STEPS - 1))
            sized = law if size is None else law.at_size(size)
            loss = sized.loss_at(rates, np.arange(1, STEPS)) * spread
            curves.append(LossCurve(loss, rates, np.arange(1, STEPS), model_parameters=size).subsample(60))
    return curves


# The convex bound there has a list of gradient norms.
FITTED = [laws.ConvexBound(1.5, 1.0, 2.0) if isinstance(law, laws.ConvexBound) else law for law in EVERY_LAW]


@pytest.mark.parametrize("law", FITTED, ids=lambda law: type(law).__name__)
def test_every_law_has_an_interval(law, tmp_path):
    options = {"pretraining": np.full(100, 1e-3)} if isinstance(law, laws.ContinualLaw) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = type(law).fit(curves_of(law), points=60, **options)
        errors = found.leave_one_out()
        low, predicted, high = found.interval(cosine(STEPS))
    assert errors.mean < 0.02
    assert low < predicted < high
    assert predicted == pytest.approx(found.final_loss(cosine(STEPS)))
    found.save(tmp_path / "law.json")
    with pytest.raises(ValueError, match=r"not in a file: call `fit`. Received: "):
        Law.load(tmp_path / "law.json").leave_one_out()


def test_the_bootstrap_of_a_law():
    """Its interval holds the true loss, is the same for the same seed, and wider for a higher level."""
    law = laws.AnnealingLaw(2.6, 0.5, 0.45, 0.4, decay=0.99)
    curves = [*curves_of(law), *(replace(curve, loss=curve.loss * 1.002) for curve in curves_of(law))]
    found = laws.AnnealingLaw.fit(curves, decay=0.99, points=30)
    low, _, high = found.interval(cosine(STEPS), samples=40)
    assert low < law.final_loss(cosine(STEPS)) * 1.001 < high
    assert found.interval(cosine(STEPS), samples=40) == (low, found.final_loss(cosine(STEPS)), high)
    wider = found.interval(cosine(STEPS), samples=40, level=0.98)
    assert wider.low < low < high < wider.high


def test_an_interval_is_for_the_size_of_the_law():
    law = EVERY_LAW[-1]
    found = laws.SizedAnnealingLaw.fit(curves_of(law), decay=0.99, points=20)
    small, large = (found.at_size(size).interval(cosine(STEPS), samples=20) for size in (2.5e7, 4e8))
    assert small.low > large.high


def test_too_few_curves():
    with pytest.raises(ValueError, match=r"two curves or more that can be left out; .* without 0 of these"):
        MeanLawOfTwo.fit([flat(1.0), flat(2.0)]).leave_one_out()
    with pytest.raises(ValueError, match="The bootstrap needs 8 curves or more"):
        MeanLaw.fit([flat(1.0), flat(2.0)]).interval(RATES, method="bootstrap")
    with pytest.raises(ValueError, match="call `fit`"):
        MeanLaw(1.0).interval(RATES)


class MeanLawOfTwo(MeanLaw):
    @classmethod
    def fit(cls, curves):
        if len(curves) < 2:
            raise ValueError("too few")
        return super().fit(curves)._fitted_to(curves, partial(cls.fit))


@pytest.mark.parametrize("options", [{"level": 0}, {"level": 1}, {"method": "guess"}, {"samples": 0}])
def test_bad_options(options):
    with pytest.raises(ValueError, match="Received: "):
        MeanLaw.fit([flat(1.0), flat(2.0)]).interval(RATES, **options)


@nightly
@pytest.mark.parametrize("millions", [25, 100, 400])
def test_left_out_errors_of_published_curves(millions, data_dir):
    """They are several times the mean residual of the law that was fitted to all: quote them, never the residual."""
    published = published_curves.read(data_dir, millions)
    curves = [published[name] for name in published_curves.ONE_LENGTH]
    law = laws.AnnealingLaw.fit(curves, skip=0.0)
    residual = np.mean([np.abs(law.residuals(curve)).mean() for curve in curves])
    found = law.leave_one_out()
    assert residual < 0.0015
    assert 0.003 < found.mean < 0.01
    assert 3 * residual < found.largest < 0.02
    assert found.errors[1] == found.largest  # of the cosine, as the others are constant for most of the run
