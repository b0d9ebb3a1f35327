"""The functional law: reference numbers, the sum as it stands, the fit, and the best schedule under it."""

import warnings

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from keras_lrsched.laws import FunctionalLaw, IdentifiabilityWarning, LossCurve, _functional, scaling
from keras_lrsched.schedules import LinearDecay, PowerDecayToZero
from tests.laws import published_curves
from tests.laws.official_runs import constant, cosine, two_stage, wsd
from tests.nightly import nightly

SHORT = 1000
LAW = FunctionalLaw(2.0, 0.8, 0.6, 3.0, 0.5, 20.0, 0.7)
RATES = np.concatenate([np.full(60, 0.02), 0.02 * (1 - np.arange(1, 41) / 40)])


def measured(law, rates, noise=0.0, seed=0):
    at = np.arange(1, len(rates))  # the first rate is 0
    spread = np.exp(noise * np.random.default_rng(seed).normal(size=len(at)))
    return LossCurve(law.predict(rates, at=at) * spread, rates, at)


def test_reference_numbers():
    expected = [10.3651164207, 4.1012222435, 2.7171025046, 2.7102003863, 2.6479275686, 2.6047938451, 2.5703573839]
    assert LAW.predict(RATES, at=[0, 9, 59, 60, 70, 80, 99]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("warmup", ["peak", "sum"])
def test_equals_the_sum_as_it_stands(warmup):
    law = FunctionalLaw(2.0, 0.8, 0.6, 3.0, 0.5, 20.0, 0.7, warmup=warmup)
    rates = cosine(SHORT, warmup=50)
    seen = np.maximum(rates, rates.max() * (np.arange(SHORT) < 50))
    time = np.cumsum(seen if warmup == "peak" else rates)[1:]
    weights = (0.5 + time**-0.6) * (1 - (1 + 20.0 * (time[-1] - time)) ** -0.7)
    expected = 2.0 + 0.8 * time[-1] ** -0.6 + 3.0 * np.sum(np.diff(seen) * weights)
    assert law.final_loss(rates) == pytest.approx(expected, rel=1e-5)


def test_many_points_at_once_or_one_by_one():
    rates = cosine(5000)
    assert LAW.predict(rates, at=np.arange(1, 5000))[[0, 1200, 4998]] == pytest.approx(
        LAW.predict(rates, at=[1, 1201, 4999])
    )


def test_an_early_fall_gains_more():
    early, late = (np.repeat([0.02, 0.01, 0.01], [at, 2000, 0]) for at in (100, 1000))
    gains = [LAW.c1 * rates.sum() ** -LAW.s + LAW.L0 - LAW.final_loss(rates) for rates in (early, late)]
    assert gains[0] > 1.1 * gains[1]


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.filterwarnings("error")
def test_fit_recovers_curves(noise):
    shapes = (cosine, constant, two_stage)
    curves = [measured(LAW, shape(SHORT), noise, seed) for seed, shape in enumerate(shapes)]
    found = FunctionalLaw.fit(curves, points=100)
    assert found.fitted == {"steps": SHORT, "learning_rate": 1e-3}
    for rates in (wsd(SHORT), two_stage(SHORT), cosine(SHORT)):
        assert found.final_loss(rates) == pytest.approx(LAW.final_loss(rates), rel=0.01 if noise else 1e-3)


def test_gamma_can_be_given():
    curves = [measured(LAW, shape(SHORT)) for shape in (cosine, constant)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FunctionalLaw.fit(curves, gamma=0.55, points=50).gamma == pytest.approx(0.55)


def test_one_decay_does_not_determine_the_law():
    curves = [measured(LAW, shape(SHORT), 0.001, seed) for seed, shape in enumerate((cosine, constant, cosine))]
    with pytest.warns(IdentifiabilityWarning, match="does not determine c3, c4 and gamma: add"):
        FunctionalLaw.fit(curves, points=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FunctionalLaw.fit([*curves, measured(LAW, cosine(2 * SHORT))], points=50)


def test_gradient():
    curves = [measured(LAW, rates).subsample(30) for rates in (cosine(500), wsd(500))]
    objective = _functional._objective(_functional._points(curves, "peak"))
    at = np.log([1.9, 0.9, 0.5, 2.0, 0.6, 30.0, 0.6])
    total, gradient = objective(at)
    assert gradient == pytest.approx(approx_fprime(at, lambda x: objective(x)[0], 1e-7), rel=1e-4, abs=1e-6 * total)


@pytest.mark.parametrize("warmup", ["peak", "sum"])
def test_final_loss_and_its_gradient(warmup):
    law = FunctionalLaw(2.0, 0.8, 0.6, 3.0, 0.5, 20.0, 0.7, warmup=warmup)
    rates, ramp = np.linspace(0.02, 0.001, 30), 0.02 * np.arange(5) / 5
    loss, gradient = _functional.final_loss(law, rates, ramp)
    assert loss == pytest.approx(law.final_loss(np.concatenate([ramp, rates])), rel=1e-12)
    numeric = approx_fprime(rates, lambda x: _functional.final_loss(law, x, ramp)[0], 1e-8)
    assert gradient == pytest.approx(numeric, rel=1e-5, abs=1e-5)


def test_the_best_schedule_is_better_than_others():
    best = LAW.optimize(SHORT, 0.02, warmup_steps=50, knots=40)
    rates = best.values(SHORT)
    assert rates.max() == pytest.approx(0.02)
    assert np.diff(rates[50:]).max() < 1e-16
    others = [LinearDecay(0.0, 950, warmup_target=0.02, warmup_steps=50), PowerDecayToZero(0.02, 950, warmup_steps=50)]
    assert LAW.final_loss(rates) < min(LAW.final_loss(other, SHORT) for other in others)


@nightly
def test_published_curves(data_dir):
    """Fitted to a constant and a WSD run of 24,000 updates, it predicts the other decays to 1 %."""
    curves = published_curves.read(data_dir, 100)
    with pytest.warns(IdentifiabilityWarning):
        law = FunctionalLaw.fit([curves["constant_24000"], curves["wsd_20000_24000"]])
    for name in ("cosine_24000", "wsdld_20000_24000", "cosine_72000", "constant_72000"):
        assert published_curves.final_error(law, curves[name]) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (np.full(100, 0.1), 0.255770952515),
        (0.1 * (1 - np.arange(100) / 100), 0.241171562022),
        (0.1 * (1 - np.arange(100) / 100) ** 3, 0.343816391933),
    ],
)
def test_loss_of_the_theory(rates, expected):
    assert scaling.power_law_regression_loss(rates, source=1.0, capacity=2.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("source", "capacity", "expected"),
    [(1, 2, (3, 1 / 3)), (0.5, 2, (3, 0)), (0.5, 1.5, (2, 1 / 7)), (1, 1.5, (2, 0.4)), (0.1, 2, (3, 0))],
)
def test_power_decay_exponents(source, capacity, expected):
    assert scaling.power_decay_exponents(source, capacity) == pytest.approx(expected)


def test_power_decay_fraction():
    found = [scaling.power_decay_fraction(0.3, 2.0, steps, 0.01) for steps in (1e4, 1e5, 1e6, 1e7)]
    assert found == pytest.approx([0.19700, 0.14963, 0.11279, 0.08452], abs=5e-6)
    with pytest.raises(ValueError, match="`source` must be below"):
        scaling.power_decay_fraction(0.5, 2.0, 1000, 0.01)


def test_the_best_power_grows_with_the_run():
    """At the best peak of each: the cubic decay of capacity 2 is a limit, from which runs of these lengths are far."""

    def best(power, steps):
        left, peaks = 1 - np.arange(steps) / steps, np.geomspace(0.01, 0.1, 12)
        return min(scaling.power_law_regression_loss(peak * left**power, 1.0, 2.0) for peak in peaks)

    assert best(1.0, 2000) < best(1.5, 2000) < best(3.0, 2000)
    assert best(1.5, 20_000) < best(1.0, 20_000) < best(3.0, 20_000)


@pytest.mark.parametrize(
    "bad", [{"L0": -1.0}, {"c1": np.nan}, {"s": -1}, {"c2": None}, {"c3": -1}, {"c4": -1}, {"gamma": -1}, {"warmup": "full"}]
)
def test_bad_numbers(bad):
    numbers = {"L0": 2.0, "c1": 0.8, "s": 0.6, "c2": 3.0, "c3": 0.5, "c4": 20.0, "gamma": 0.7}
    with pytest.raises(ValueError, match="Received: "):
        FunctionalLaw(**(numbers | bad))


@pytest.mark.parametrize("options", [{"gamma": 0.0}, {"warmup": "full"}, {"points": 0}, {"skip": 2}])
def test_bad_options_of_fit(options):
    with pytest.raises(ValueError, match="Received: "):
        FunctionalLaw.fit(measured(LAW, wsd(SHORT)), **options)


def test_rates_that_never_fall():
    with pytest.raises(ValueError, match="in which the learning rate falls"):
        FunctionalLaw.fit(measured(LAW, constant(SHORT)))
