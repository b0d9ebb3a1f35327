"""Power laws of one variable, and the extrapolation of learning curves."""

import numpy as np
import pytest

from keras_lrsched.laws import ExtrapolationWarning, LossCurve, PowerLaw, RunTable, extrapolate
from keras_lrsched.laws.power_law import two_forms
from tests.laws import published_curves

SIZES = np.geomspace(1e7, 1e10, 7)


@pytest.mark.parametrize("variable", ["parameters", "tokens", "compute", "steps", "members"])
def test_fit_recovers_a_formula(variable):
    law = PowerLaw(E=2.1, A=30.0, alpha=0.23, variable=variable)
    runs = RunTable(**{variable: SIZES, "loss": law.value_at(SIZES)})
    found = PowerLaw.fit(runs, variable=variable)
    assert (found.E, found.A, found.alpha) == pytest.approx((2.1, 30.0, 0.23), rel=1e-6)
    assert found.loss(SIZES[0]) == pytest.approx(law.loss(SIZES[0]))
    assert found.value_for(2.5) == pytest.approx((30 / 0.4) ** (1 / 0.23), rel=1e-4)
    assert found.value_for(2.0) == np.inf


def test_ensembles():
    """E_inf + c / K: the exponent is given, also in refits."""
    members = np.arange(1, 10)
    noise = 0.002 * np.random.default_rng(0).normal(size=9)
    found = PowerLaw.fit(RunTable(members=members, loss=3.1 + 0.4 / members + noise), variable="members", alpha=1.0)
    assert (found.E, found.A, found.alpha) == pytest.approx((3.1, 0.4, 1.0), abs=0.01)
    laws = found.refits(samples=20)
    assert {law.alpha for law in laws} == {1.0}
    assert len({law.E for law in laws}) > 1


def test_an_interval_holds_a_law_without_an_asymptote():
    found = PowerLaw.fit(RunTable(parameters=SIZES, loss=PowerLaw(E=2.0, A=30.0, alpha=0.2).value_at(SIZES)))
    with pytest.warns(ExtrapolationWarning):
        narrow, wide = (found.interval(1e13, forms=forms) for forms in (False, True))
    assert narrow.low == pytest.approx(found.value_at(1e13), rel=1e-6)
    assert wide.low < 2.0 < narrow.low


def test_asymptotes_of_two_recipes():
    """Of two recipes, the one that is worse at every measured size has the lower asymptote."""
    first, second = PowerLaw(E=3.0, A=30.0, alpha=0.2), PowerLaw(E=2.8, A=50.0, alpha=0.2)
    found = [PowerLaw.fit(RunTable(parameters=SIZES[:4], loss=law.value_at(SIZES[:4]))) for law in (first, second)]
    assert np.all(first.value_at(SIZES[:4]) < second.value_at(SIZES[:4]))
    assert found[1].E < found[0].E


def test_a_loss_that_rises():
    with pytest.raises(ValueError, match="must fall with `parameters`"):
        PowerLaw.fit(RunTable(parameters=SIZES, loss=np.linspace(2, 3, 7)))


@pytest.mark.parametrize("options", [{"variable": "width"}, {"alpha": 0.0}, {"alpha": -1}])
def test_bad_options(options):
    with pytest.raises(ValueError, match="Received: "):
        PowerLaw.fit(RunTable(parameters=SIZES, loss=np.linspace(3, 2, 7)), **options)


CONSTANT = {  # the errors in percent, of the power law and of the line, from 30 % and 50 % of the run
    (25, "constant_24000"): ((2.39, -4.26), (1.09, -1.33)),
    (100, "constant_24000"): ((1.81, -4.68), (0.87, -1.55)),
    (100, "constant_72000"): ((0.96, -2.37), (0.43, -0.88)),
    (400, "constant_24000"): ((1.98, -4.92), (0.76, -1.74)),
    (400, "constant_72000"): ((0.79, -2.81), (0.35, -1.01)),
}
COSINE = {
    (100, "cosine_24000"): ((3.16, -3.51), (1.34, -1.31)),
    (400, "cosine_24000"): ((3.75, -3.42), (1.62, -1.23)),
    (100, "cosine_72000"): ((3.14, -0.58), (1.96, -0.11)),
    (400, "cosine_72000"): ((4.11, -0.26), (2.47, 0.10)),
}


@pytest.mark.parametrize(("millions", "schedule"), CONSTANT | COSINE)
def test_public_curves(data_dir, millions, schedule):
    """Errors agree to a fraction of a percent with numbers that were computed apart, with slightly different cuts."""
    curve = published_curves.read(data_dir, millions)[schedule]
    steps = len(curve.rates)
    last = curve.between(int(0.98 * steps))
    for share, expected in zip((0.3, 0.5), (CONSTANT | COSINE)[millions, schedule], strict=True):
        seen = curve.between(2160, int(share * steps) + 1)
        brackets = [two_forms(seen.step + 1.0, seen.loss, step + 1.0) for step in last.step]
        low, high = (100 * (np.mean(column) / last.loss.mean() - 1) for column in list(zip(*brackets, strict=True))[::2])
        assert (high, low) == pytest.approx(expected, abs=0.15 if schedule.startswith("constant") else 0.3)


@pytest.mark.parametrize("millions", [25, 100, 400])
@pytest.mark.parametrize("schedule", ["constant_24000", "constant_72000"])
def test_the_end_lies_in_thetwo_forms(data_dir, millions, schedule):
    curve = published_curves.read(data_dir, millions)[schedule]
    steps = len(curve.rates)
    for share in (0.3, 0.5):
        found = extrapolate(curve.between(0, int(share * steps)), total_steps=steps)
        assert found.low < curve.between(int(0.98 * steps)).loss.mean() < found.high
        assert found.predicted == pytest.approx((found.low + found.high) / 2)


def curve_of(rates, first=0, last=1000):
    steps = np.arange(first, last)
    return LossCurve(2.5 + 8 * (steps + 1.0) ** -0.5, rates, steps)


def test_a_power_law_is_its_own_high_end():
    found = extrapolate(curve_of(np.full(1000, 0.1)), total_steps=10_000)
    assert found.high == pytest.approx(2.5 + 8 * 10_000**-0.5, rel=1e-6)


def test_warmup_is_left_out():
    rates = np.minimum(np.arange(1, 1001) / 100, 1.0)
    assert extrapolate(curve_of(rates), 5000) == extrapolate(curve_of(rates, first=99), 5000)
    assert extrapolate(curve_of(rates), 5000, skip=200) == extrapolate(curve_of(rates, first=200), 5000, skip=0)


@pytest.mark.parametrize(
    ("curve", "total", "options", "message"),
    [
        (curve_of(np.linspace(0.1, 0.0, 1000)), 5000, {}, "constant learning rate after warmup"),
        (curve_of(np.full(1000, 0.1)), 1000, {"skip": 985}, "20 points or more after update 985. Received: 15 points"),
        (curve_of(np.full(1000, 0.1)), 999, {}, "behind the curve's last update. Received: total_steps=999"),
        (curve_of(np.full(1000, 0.1)), 0, {}, "Received: total_steps=0"),
    ],
)
def test_bad_extrapolations(curve, total, options, message):
    with pytest.raises(ValueError, match=message):
        extrapolate(curve, total, **options)
