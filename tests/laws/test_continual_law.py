"""The continual law: numbers computed from the published ones (Wang et al. 2025), and its fit."""

import warnings

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from keras_lrsched.laws import AnnealingLaw, ContinualLaw, ExtrapolationWarning, LossCurve, RegimeWarning, continual_law
from keras_lrsched.laws._lr_integrals import lr_integrals
from tests.laws.official_runs import constant, cosine, two_stage, wsd

SHORT = 1000
LOSSES = ("general", "target")
BEFORE = wsd(SHORT, peak=3e-3)


def noisy(loss, rates, noise, seed):
    return LossCurve(loss * np.exp(noise * np.random.default_rng(seed).normal(size=len(rates))), rates)


def true_law(loss):
    return ContinualLaw.published(loss, S1pt=1.0).after(BEFORE)


def pretraining(law, noise=0.0):
    return noisy(AnnealingLaw(law.L0, law.A, law.alpha, law.C1).predict(BEFORE), BEFORE, noise, seed=9)


def continual(law, noise=0.0):
    return [noisy(law.predict(shape(SHORT)), shape(SHORT), noise, seed) for seed, shape in enumerate((cosine, constant))]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("general", (3.30302, 3.43565, 3.45366, 3.44022)), ("target", (3.18518, 2.7155, 2.65093, 2.58986))],
)
def test_reference_numbers(loss, expected):
    """At S1 = 0, 0.5, 2 and 6 of the continual phase, after S1pt = 4, while the rate has not fallen."""
    published = ContinualLaw.published(loss, S1pt=4.0)
    law = ContinualLaw(*(getattr(published, name) for name in published.parameters), warmup="sum")
    assert law.predict([0.0, 0.5, 1.5, 4.0]) == pytest.approx(expected, abs=6e-6)
    assert [published.final_loss(0.001, steps) for steps in (500, 2000, 6000)] == pytest.approx(expected[1:], abs=6e-6)


def test_falls_count_in_both_phases():
    rates = two_stage(SHORT)
    with_falls, without = ContinualLaw.published("target", 4.0, S2pt=0.5), ContinualLaw.published("target", 4.0)
    assert without.final_loss(rates) - with_falls.final_loss(rates) == pytest.approx(0.278 * 0.5)
    spent, fallen = (area[-1] for area in lr_integrals(rates))
    flat = np.full(SHORT, spent / SHORT)
    assert without.final_loss(flat) - without.final_loss(rates) == pytest.approx(0.324 * fallen)


def test_after():
    law = ContinualLaw.published("general", 1.0)
    for before in (BEFORE, list(BEFORE), LossCurve(np.ones(SHORT), BEFORE)):
        later = law.after(before)
        assert (later.S1pt, later.S2pt) == pytest.approx([area[-1] for area in lr_integrals(BEFORE)])
        assert (later.L0, later.B) == (law.L0, law.B)
    assert law.S1pt == 1.0
    with pytest.raises(ValueError, match="Received: nan at update 1"):
        law.after([0.1, np.nan])


def test_old_data_get_worse_new_data_better():
    general, target = (true_law(loss).predict(constant(SHORT)) for loss in LOSSES)
    assert general[-1] > general[0]
    assert target[-1] < target[0]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.filterwarnings("error")
def test_fit_with_the_losses_of_pretraining(loss, noise):
    law = true_law(loss)
    found = ContinualLaw.fit(continual(law, noise), pretraining(law, noise), points=60)
    assert np.sign(found.B) == np.sign(law.B)
    assert (found.S1pt, found.S2pt) == (law.S1pt, law.S2pt)
    assert found.fitted == {"steps": SHORT, "learning_rate": 1e-3}
    for rates in (wsd(SHORT), two_stage(SHORT)):
        assert found.final_loss(rates) == pytest.approx(law.final_loss(rates), rel=0.01 if noise else 2e-4)
    other = cosine(SHORT, peak=2e-3)
    expected = law.after(other).final_loss(wsd(SHORT))
    assert found.after(other).final_loss(wsd(SHORT)) == pytest.approx(expected, rel=0.02 if noise else 2e-3)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.filterwarnings("error")
def test_fit_with_the_rates_of_pretraining(loss):
    law = true_law(loss)
    found = ContinualLaw.fit(continual(law), BEFORE, points=60)
    assert found.C1 == 0.0
    for rates in (wsd(SHORT), two_stage(SHORT)):
        assert found.final_loss(rates) == pytest.approx(law.final_loss(rates), rel=2e-3)
    with pytest.raises(ValueError, match="fits no other"):
        found.after(cosine(SHORT))


def test_save_and_load(tmp_path):
    law = true_law("target")
    law.save(tmp_path / "law.json")
    assert ContinualLaw.load(tmp_path / "law.json").final_loss(wsd(SHORT)) == law.final_loss(wsd(SHORT))


def test_residuals_and_plot():
    plt = pytest.importorskip("matplotlib.pyplot")
    law = true_law("general")
    curve = continual(law)[0]
    assert law.residuals(curve) == pytest.approx(np.zeros(SHORT), abs=1e-12)
    assert len(law.plot(wsd(SHORT), curve=curve).get_lines()) == 2
    plt.close("all")


def test_warnings_of_a_fitted_law():
    law = true_law("target")
    curves = continual(law, 0.01)
    broken = LossCurve(curves[0].loss * np.where(np.arange(SHORT) > 700, 1.2, 1.0), curves[0].rates, name="broken")
    with pytest.warns(RegimeWarning, match="broken is missed") as caught:
        found = ContinualLaw.fit([broken, curves[1]], BEFORE, points=40)
    assert {warning.filename for warning in caught} == {__file__}
    with pytest.warns(ExtrapolationWarning, match="updates 3000 is 3 times"):
        found.final_loss(wsd(3000))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("before", ["losses", "rates"])
def test_gradient(sign, before):
    law = true_law("general")
    area = lr_integrals(BEFORE)
    parts = [continual_law._continual(curve.subsample(30), area, 0.999, "peak") for curve in continual(law)]
    if before == "losses":
        parts.append(continual_law._pretraining(pretraining(law).subsample(30), area))
    data = continual_law.Points(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    objective = continual_law._objective(data, sign)
    at = np.log([0.5, 20.0, 0.2, 2.9, 0.5, 0.3, 0.4, 0.3][: 8 if before == "losses" else 7])
    total, gradient = objective(at)
    assert gradient == pytest.approx(approx_fprime(at, lambda x: objective(x)[0], 1e-7), rel=1e-4, abs=1e-6 * total)


@pytest.mark.parametrize(
    ("curves", "before", "message"),
    [
        (lambda law: [], BEFORE, "at least one"),
        (lambda law: continual(law)[1:], BEFORE, "in which the learning rate falls"),
        (lambda law: continual(law), [0.1, -0.1], "-0.1 at update 1"),
        (lambda law: continual(law), LossCurve([3.0] * 5, [0.1] * 5), "20 points or more"),
        (lambda law: [curve.between(990) for curve in continual(law)], BEFORE, "20 points or more"),
    ],
)
def test_bad_curves(curves, before, message):
    with pytest.raises(ValueError, match=message):
        ContinualLaw.fit(curves(true_law("general")), before)


@pytest.mark.parametrize("options", [{"decay": 1.0}, {"warmup": "no"}, {"points": 0}])
def test_bad_options_of_fit(options):
    with pytest.raises(ValueError, match="Received: "):
        ContinualLaw.fit(continual(true_law("general")), BEFORE, **options)


NUMBERS = dict.fromkeys(("L0", "A", "alpha", "C1", "C2", "B", "E", "beta", "S1pt", "S2pt"), 0.5)


@pytest.mark.parametrize(
    "bad",
    [
        *({name: -1.0} for name in NUMBERS if name not in ("B", "S2pt")),
        *({name: np.nan} for name in NUMBERS),
        {"S1pt": 0.0},
        {"decay": 1.0},
        {"warmup": "no"},
    ],
)
def test_bad_numbers(bad):
    with pytest.raises(ValueError, match="Received: "):
        ContinualLaw(**(NUMBERS | bad))


def test_b_and_the_falls_before_may_be_negative():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ContinualLaw(**(NUMBERS | {"B": -0.5, "S2pt": -0.5})).predict(0.1, 5)


def test_unknown_loss():
    with pytest.raises(ValueError, match=r"'general', 'target'\. Received: loss='old'"):
        ContinualLaw.published("old", 4.0)
