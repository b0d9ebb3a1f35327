"""The multi-power law: the numbers of the official code (thu-yao-01-luo/MultiPowerLaw, which was run), fits and optima."""

import tracemalloc
import warnings

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from keras_lrsched.laws import ExtrapolationWarning, LossCurve, MultiPowerLaw, _multi_power
from keras_lrsched.laws._fitting import huber, log_huber, reduced
from keras_lrsched.schedules import LinearDecay, Tabulated
from tests.laws.official_runs import CONSTANT, COSINE, PEAK, STEPS, WARMUP, WSD, WSDLD, constant, cosine, two_stage, wsd
from tests.nightly import nightly

SHORT = 1000


def law(model="100M", warmup="sum"):
    return MultiPowerLaw(*MultiPowerLaw.published(model).numbers, warmup=warmup)


def measured(true, rates, noise=0.0, seed=0):
    at = np.arange(1, len(rates))  # the first rate is 0
    spread = np.exp(noise * np.random.default_rng(seed).normal(size=len(at)))
    return LossCurve(true.predict(rates, at=at) * spread, rates, at)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("25M", (3.31519, 3.34585, 3.26626, 3.26539)),
        ("100M", (2.99002, 3.03305, 2.9352, 2.93412)),
        ("400M", (2.75707, 2.81684, 2.69981, 2.69935)),
    ],
)
def test_official_final_losses(model, expected):
    found = [MultiPowerLaw.published(model).final_loss(rates) for rates in (COSINE, CONSTANT, WSD, WSDLD)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_official_losses_on_the_way():
    assert MultiPowerLaw.published("100M").predict(COSINE, at=[3000, 12000]) == pytest.approx([3.55009, 3.1064], abs=1e-4)


def test_official_two_stages_without_warmup():
    rates = np.repeat([3e-4, 1e-4], 1000)
    found = MultiPowerLaw.published("100M").predict(rates, at=[500, 999, 1000, 1500, 1999])
    assert found == pytest.approx([4.06981, 3.68856, 3.68405, 3.53982, 3.4802], abs=1e-5)


@pytest.mark.parametrize(("warmup", "error"), [("full", 6e-4), ("sum", 2e-5)])
def test_equals_the_sum_as_it_stands(warmup, error):
    """A warmup of 50 updates lies in two groups here, with rates from 0 to the peak: the worst case."""
    rates, true = cosine(SHORT), law(warmup=warmup)
    seen = rates if warmup == "full" else np.maximum(rates, rates.max() * (np.arange(SHORT) < 50))
    since = np.cumsum(rates[::-1])[::-1][1:]
    falls = -np.diff(seen)
    drop = np.sum(falls * (1 - (true.C * rates[1:] ** -true.gamma * since + 1) ** -true.beta))
    expected = true.L0 + true.A * rates.sum() ** -true.alpha - true.B * drop
    assert true.final_loss(rates) == pytest.approx(expected, abs=error)


def test_warmup_conventions_differ_by_the_rise():
    """B * 3e-4 = 0.131, and a little less since the gain of the rise is not yet 1."""
    assert law(warmup="full").final_loss(CONSTANT) - law().final_loss(CONSTANT) == pytest.approx(0.1305, abs=5e-4)
    without = CONSTANT[WARMUP:]
    assert law(warmup="full").final_loss(without) == law().final_loss(without)


def test_long_run():
    rates = np.interp(np.arange(100_000), np.arange(STEPS) * 100_000 / STEPS, COSINE)
    tracemalloc.start()
    loss = law().predict(rates, at=np.arange(1, 100_000, 10))
    assert tracemalloc.get_traced_memory()[1] < 500e6  # all updates before all updates would take 8e9 bytes
    tracemalloc.stop()
    assert loss[-1] < 2.9


def test_all_points_at_once_or_one_by_one():
    assert law().predict(WSD, at=[1, 5000, 23999]) == pytest.approx(law().predict(WSD)[[1, 5000, 23999]], rel=1e-14)


def test_rate_of_zero_warns():
    rates = np.concatenate([wsd(SHORT), np.zeros(10)])
    with pytest.warns(UserWarning, match="learning rate is 0 at 10 updates"):
        found = law().predict(rates, at=[SHORT, SHORT + 9])
    assert found[1] == pytest.approx(found[0], abs=1e-5)
    assert np.isfinite(found).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert law().predict(rates[:SHORT])[0] == np.inf  # the rate before the first update is 0, as in any warmup


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("warmup", ["full", "sum"])
@pytest.mark.filterwarnings("error")
def test_fit_recovers_curves(noise, warmup):
    true = law(warmup=warmup)
    curves = [measured(true, shape(SHORT), noise, seed) for seed, shape in enumerate((cosine, constant, two_stage))]
    found = MultiPowerLaw.fit(curves, warmup=warmup, points=100)
    assert found.warmup == warmup
    assert found.fitted == {"steps": SHORT, "learning_rate": 1e-3}
    for rates in (wsd(SHORT), cosine(SHORT), constant(SHORT)):
        assert found.final_loss(rates) == pytest.approx(true.final_loss(rates), rel=0.01 if noise else 0.002)


@nightly
@pytest.mark.parametrize("warmup", ["full", "sum"])
def test_fit_of_the_official_runs(warmup):
    true = law(warmup=warmup)
    two = np.concatenate([CONSTANT[:8000], np.full(STEPS - 8000, 9e-5)])
    found = MultiPowerLaw.fit([measured(true, rates, 0.02) for rates in (COSINE, CONSTANT, two)], warmup=warmup)
    for rates in (WSD, WSDLD):
        assert found.final_loss(rates) == pytest.approx(true.final_loss(rates), rel=0.002)


def test_fit_of_one_curve():
    true = law()
    found = MultiPowerLaw.fit(measured(true, wsd(SHORT)), points=100)
    assert found.final_loss(wsd(SHORT)) == pytest.approx(true.final_loss(wsd(SHORT)), rel=1e-3)


def test_a_fitted_law_warns_far_from_its_runs():
    found = MultiPowerLaw.fit(measured(law(), wsd(SHORT)), points=50)
    with pytest.warns(ExtrapolationWarning, match="updates 2500 is 2.5 times"):
        found.final_loss(wsd(2500))
    with pytest.warns(ExtrapolationWarning, match="peak learning rate 0.004 is 4 times"):
        found.final_loss(4 * wsd(SHORT))


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        (lambda: [], "at least one"),
        (lambda: [np.ones(100)], "must hold LossCurves"),
        (lambda: "run.csv", "must hold LossCurves"),
        (lambda: measured(law(), constant(SHORT)), "in which the learning rate falls"),
        (lambda: measured(law(), wsd(SHORT)).between(0, 700), "in which the learning rate falls"),
        (lambda: measured(law(), wsd(SHORT)).between(0, 310), "20 points or more .* Received: 10 points from update 300"),
        (lambda: measured(law(), wsd(SHORT)).between(0, 40), "Received: 0 points"),
        (lambda: [measured(law(), wsd(SHORT)), measured(law(), wsd(22, warmup=2))], "Received: 1. points"),
    ],
)
def test_curves_that_cannot_be_fitted(curves, message):
    with pytest.raises(ValueError, match=message):
        MultiPowerLaw.fit(curves())


@pytest.mark.parametrize("options", [{"warmup": "none"}, {"points": 0}, {"skip": 1.5}, {"skip": -0.1}])
def test_bad_options_of_fit(options):
    with pytest.raises(ValueError, match="Received: "):
        MultiPowerLaw.fit(measured(law(), wsd(SHORT)), **options)


NUMBERS = {"L0": 2.0, "A": 0.5, "alpha": 0.4, "B": 300.0, "C": 2.0, "beta": 0.6, "gamma": 0.6}


@pytest.mark.parametrize(
    "bad",
    [*({name: -0.1} for name in NUMBERS), {"L0": np.nan}, {"B": np.inf}, {"A": None}, {"gamma": 1.0}, {"warmup": "no"}],
)
def test_bad_numbers(bad):
    with pytest.raises(ValueError, match="Received: "):
        MultiPowerLaw(**(NUMBERS | bad))


def test_unknown_model():
    with pytest.raises(ValueError, match=r"'25M', '100M', '400M'\. Received: model='1B'"):
        MultiPowerLaw.published("1B")


@pytest.fixture(scope="module")
def best():
    return law().optimize(STEPS, PEAK, warmup_steps=WARMUP, knots=120)


def test_optimum_is_as_good_as_the_official_one(best):
    """Official: 2.79414; WSD with a linear decay 2.80358, with an exponential one 2.80467; cosine 2.85977."""
    assert isinstance(best, Tabulated)
    assert law().final_loss(best, STEPS) < 2.79414 + 1e-4
    assert [law().final_loss(rates) for rates in (WSDLD, WSD, COSINE)] == pytest.approx(
        [2.80358, 2.80467, 2.85977], abs=1e-4
    )


def test_optimum_has_the_official_shape(best):
    """Official: flat until 21110, then (1 - y)^1.53 to 1.1e-6 ... 1.4e-6."""
    rates = best.values(STEPS)
    assert rates[:WARMUP] == pytest.approx(PEAK * np.arange(WARMUP) / WARMUP)
    after = rates[WARMUP:]
    assert after[0] == pytest.approx(PEAK)
    assert np.diff(after).max() <= 1e-15
    first = int(np.argmax(after < 0.999 * PEAK))
    assert 20500 < first + WARMUP < 22000
    tail = after[first:] / PEAK
    left = 1 - np.arange(len(tail)) / len(tail)
    middle = (left > 0.05) & (left < 0.98)
    exponent = np.polyfit(np.log(left[middle]), np.log(tail[middle]), 1)[0]
    assert exponent == pytest.approx(1.5, abs=0.1)
    assert 0.5e-6 < after[-1] < 2e-6


@pytest.mark.parametrize(
    ("steps", "warmup_steps", "knots"), [(1, 0, 1), (2, 0, 400), (50, 10, 1), (300, 299, 10), (400, 100.0, 60)]
)
def test_small_optima(steps, warmup_steps, knots):
    true = MultiPowerLaw(2.6, 0.6, 0.45, 100.0, 2.0, 0.6, 0.6, warmup="sum")
    found = true.optimize(steps, 1e-2, warmup_steps=warmup_steps, knots=knots)
    rates = found.values(steps)
    assert len(rates) == found.total_steps == steps
    assert rates.max() <= 1e-2 * (1 + 1e-12)
    assert np.diff(rates[int(warmup_steps) :]).max(initial=0.0) <= 1e-15
    flat = np.concatenate([1e-2 * np.arange(warmup_steps) / max(1, warmup_steps), np.full(int(steps - warmup_steps), 1e-2)])
    assert true.final_loss(rates) <= true.final_loss(flat) + 1e-9


def test_floor():
    rates = law().optimize(1000, 1e-3, warmup_steps=100, knots=60, floor=1e-4).values(1000)
    assert rates[100:].min() == pytest.approx(1e-4)


def test_optimum_beyond_the_runs_warns():
    found = MultiPowerLaw.fit(measured(law(), wsd(SHORT)), points=50)
    with pytest.warns(ExtrapolationWarning, match="updates 3000 is 3 times"):
        found.optimize(3000, 1e-3, knots=20)


@pytest.mark.parametrize(
    "options",
    [
        {"total_steps": 0},
        {"peak_learning_rate": 0.0},
        {"peak_learning_rate": -1.0},
        {"warmup_steps": 100},
        {"warmup_steps": -1},
        {"floor": 0.0},
        {"floor": 1.0},
        {"knots": 0},
    ],
)
def test_bad_options_of_optimize(options):
    with pytest.raises(ValueError, match="Received: "):
        law().optimize(**({"total_steps": 100, "peak_learning_rate": 1e-3} | options))


def test_gradient_of_the_fit():
    data = _multi_power._points([measured(law(), rates).subsample(40) for rates in (wsd(SHORT), two_stage(SHORT))], "sum")
    objective = _multi_power._full(data)
    at = np.log(law().numbers) + 0.3 * np.random.default_rng(0).normal(size=7)
    total, gradient = objective(at)
    assert gradient == pytest.approx(approx_fprime(at, lambda x: objective(x)[0], 1e-7), rel=1e-4, abs=1e-6 * total)


def test_gradient_of_huber():
    residual = np.array([-0.01, -5e-4, 0.0, 3e-4, 0.2])
    assert huber(residual)[0] == pytest.approx(9.5 + 0.125 + 0.045 + 199.5)
    assert huber(residual)[1] == pytest.approx(approx_fprime(residual, lambda x: huber(x)[0], 1e-9), rel=1e-3, abs=1e-2)


def test_a_start_that_predicts_less_than_nothing():
    total, gradient = log_huber(np.array([-1.0, 2.0]), np.ones((3, 2)), np.array([2.0, 2.0]))
    assert np.isfinite(total)
    assert np.isfinite(gradient).all()


def test_reduced_law():
    spent, drop = np.linspace(0.1, 2, 50), np.linspace(0, 1, 50) ** 2
    found = np.exp(reduced(2.5 + 0.4 * spent**-0.5 - 0.3 * drop, spent, drop))
    assert found == pytest.approx([2.5, 0.4, 0.5, 0.3], rel=1e-6)
    without = np.exp(reduced(2.5 + 0.4 * spent**-0.5, spent, np.zeros(50)))
    assert without[:3] == pytest.approx([2.5, 0.4, 0.5], rel=1e-3)


def test_gradient_of_the_optimum():
    rng = np.random.default_rng(0)
    rates = 1e-3 * np.sort(rng.uniform(0.01, 1, 30))[::-1]
    gradient = _multi_power.final_loss(law(), rates, np.array([0.02]))[1]
    numeric = approx_fprime(rates, lambda x: _multi_power.final_loss(law(), x, np.array([0.02]))[0], 1e-10)
    assert gradient == pytest.approx(numeric, rel=1e-3, abs=1e-3 * np.abs(gradient).max())


def test_loss_of_the_optimum_is_that_of_the_law():
    rates = LinearDecay(1e-3, 300).values(300)[:299]
    loss, _ = _multi_power.final_loss(law(), rates, np.zeros(0))
    assert loss == pytest.approx(law().final_loss(rates), abs=1e-4)
