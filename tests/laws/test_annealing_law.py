"""The annealing law: its two areas, against public code and the sum as it stands, and its fit."""

import warnings

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from keras_lrsched.laws import AnnealingLaw, ExtrapolationWarning, LossCurve, annealing_law
from keras_lrsched.laws._lr_integrals import lr_integrals
from tests.laws.official_runs import CONSTANT, COSINE, WSD, WSDLD, constant, cosine, two_stage, wsd

SHORT = 2000
LAW = AnnealingLaw(2.6, 0.5, 0.45, 0.4)


def measured(law, rates, noise=0.0, seed=0):
    at = np.arange(1, len(rates))  # the first rate is 0
    spread = np.exp(noise * np.random.default_rng(seed).normal(size=len(at)))
    return LossCurve(law.predict(rates, at=at) * spread, rates, at)


@pytest.mark.parametrize(
    ("rates", "spent", "fallen"),
    [
        (COSINE, 4.25174, 0.267265),
        (CONSTANT, 7.2, 0.0),
        (WSD, 6.46917, 0.236766),
        (WSDLD, 6.66013, 0.203734),
    ],
)
def test_reference_areas(rates, spent, fallen):
    """Of zhes2Hen/Fit_Scaling_Laws, with warmup as constant peak."""
    found = lr_integrals(rates)
    assert found.spent[-1] == pytest.approx(spent, abs=6e-6)
    assert found.fallen[-1] == pytest.approx(fallen, abs=6e-7)


def test_a_few_updates_by_hand():
    found = lr_integrals(np.array([1.0, 1.0, 0.5, 0.5, 0.25]), decay=0.9)
    assert found.spent == pytest.approx([1.0, 2.0, 2.5, 3.0, 3.25])
    assert found.fallen == pytest.approx([0.0, 0.0, 0.5, 0.95, 1.605])


@pytest.mark.parametrize("shape", [cosine, two_stage, wsd])
def test_closed_form(shape):
    rates, decay = shape(500, warmup=0), 0.97
    ages = np.arange(500)[:, None] - np.arange(500)
    weights = np.where(ages >= 0, (1 - decay ** (ages.clip(min=0) + 1.0)) / (1 - decay), 0.0)
    assert lr_integrals(rates, decay).fallen == pytest.approx(weights @ -np.diff(rates, prepend=rates[0]), abs=1e-13)


def test_warmup_conventions():
    peak, only_sum, full = (lr_integrals(CONSTANT, warmup=warmup) for warmup in ("peak", "sum", "full"))
    assert only_sum.spent[-1] == full.spent[-1] == pytest.approx(CONSTANT.sum())
    assert peak.spent[-1] - full.spent[-1] == pytest.approx(0.5 * 2160 * 3e-4)
    assert peak.fallen[-1] == only_sum.fallen[-1] == 0.0
    assert full.fallen[-1] == pytest.approx(-0.3)
    without = CONSTANT[2160:]
    assert len({lr_integrals(without, warmup=warmup).spent[-1] for warmup in ("peak", "sum", "full")}) == 1


def test_formula():
    expected = 2.6 + 0.5 * 4.251735**-0.45 - 0.4 * 0.2672646
    assert LAW.final_loss(COSINE) == pytest.approx(expected, abs=1e-7)
    assert LAW.predict(COSINE, at=[5000, 23999]) == pytest.approx(LAW.predict(COSINE)[[5000, 23999]])


def test_first_updates():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(LAW.predict(COSINE)).all()
        assert AnnealingLaw(2.6, 0.5, 0.45, 0.4, warmup="sum").predict(COSINE, at=0) == np.inf


def test_long_run():
    LAW.predict(np.linspace(1e-3, 0, 1_000_000))


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("warmup", ["peak", "sum", "full"])
@pytest.mark.filterwarnings("error")
def test_fit_recovers_curves(noise, warmup):
    law = AnnealingLaw(2.6, 0.5, 0.45, 0.4, warmup=warmup)
    curves = [measured(law, shape(SHORT), noise, seed) for seed, shape in enumerate((cosine, constant))]
    found = AnnealingLaw.fit(curves, decay=0.999, warmup=warmup, points=100)
    assert (found.decay, found.warmup) == (0.999, warmup)
    assert found.fitted == {"steps": SHORT, "learning_rate": 1e-3}
    for rates in (wsd(SHORT), two_stage(SHORT), cosine(SHORT)):
        assert found.final_loss(rates) == pytest.approx(law.final_loss(rates), rel=0.01 if noise else 1e-4)
    if not noise:
        assert (found.L0, found.A, found.alpha, found.C) == pytest.approx((2.6, 0.5, 0.45, 0.4), rel=2e-3)


@pytest.mark.parametrize("decay", [0.99, 0.998, 0.9999])
def test_fit_chooses_decay(decay):
    law = AnnealingLaw(2.6, 0.5, 0.45, 100 * (1 - decay), decay=decay)
    curves = [measured(law, shape(SHORT), 0.001) for shape in (cosine, two_stage)]
    assert AnnealingLaw.fit(curves, points=100).decay == decay


def test_no_use_for_falls():
    """The best C is 0; it stays a number of which a logarithm can be taken."""
    law = AnnealingLaw(2.6, 0.5, 0.45, 0.0)
    found = AnnealingLaw.fit([measured(law, cosine(SHORT)), measured(law, constant(SHORT))], decay=0.999, points=100)
    by_fall = found.C
    assert by_fall == pytest.approx(0.0, abs=1e-3)
    assert found.final_loss(wsd(SHORT)) == pytest.approx(law.final_loss(wsd(SHORT)), rel=1e-3)


def test_a_fitted_law_warns_far_from_its_runs():
    found = AnnealingLaw.fit(measured(LAW, wsd(SHORT)), points=50)
    with pytest.warns(ExtrapolationWarning, match="AnnealingLaw extrapolates: updates 6000 is 3 times"):
        found.final_loss(wsd(6000))


def test_save_and_load_keep_the_conventions(tmp_path):
    law = AnnealingLaw(2.6, 0.5, 0.45, 0.4, decay=0.99, warmup="full")
    law.save(tmp_path / "law.json")
    assert AnnealingLaw.load(tmp_path / "law.json").final_loss(COSINE) == law.final_loss(COSINE)


def test_gradient():
    data = annealing_law._points([measured(LAW, rates).subsample(50) for rates in (cosine(500), wsd(500))], 0.99, "peak")
    objective = annealing_law._objective(data)
    at = np.log([2.5, 0.6, 0.5, 0.3])
    total, gradient = objective(at)
    assert gradient == pytest.approx(approx_fprime(at, lambda x: objective(x)[0], 1e-7), rel=1e-4, abs=1e-6 * total)


@pytest.mark.parametrize("warmup", ["peak", "sum", "full"])
def test_rates_that_never_fall(warmup):
    with pytest.raises(ValueError, match="in which the learning rate falls"):
        AnnealingLaw.fit(measured(LAW, constant(SHORT)), warmup=warmup)


@pytest.mark.parametrize(
    "options",
    [{"decay": 1.0}, {"decay": 0.0}, {"decay": [0.9, np.nan]}, {"decay": []}, {"warmup": "no"}, {"points": 0}, {"skip": 2}],
)
def test_bad_options_of_fit(options):
    with pytest.raises(ValueError, match="Received: "):
        AnnealingLaw.fit(measured(LAW, wsd(SHORT)), **options)


@pytest.mark.parametrize(
    "bad",
    [
        {"L0": -1.0},
        {"A": -1.0},
        {"alpha": -1.0},
        {"C": -1.0},
        {"C": np.nan},
        {"L0": None},
        {"decay": 1.0},
        {"decay": 0.0},
        {"warmup": "linear"},
    ],
)
def test_bad_numbers(bad):
    with pytest.raises(ValueError, match="Received: "):
        AnnealingLaw(**({"L0": 2.6, "A": 0.5, "alpha": 0.45, "C": 0.4} | bad))
