"""The annealing law with the size of the model: reference numbers, the fit, and models of other sizes."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from keras_lrsched.laws import IdentifiabilityWarning, LossCurve, SizedAnnealingLaw, sized_annealing_law
from tests.laws import published_curves
from tests.laws.official_runs import constant, cosine, wsd
from tests.nightly import nightly

SHORT = 2000
LAW = SizedAnnealingLaw(1.8, 0.4, 0.45, 0.5, 120.0, 0.3, model_parameters=1e8, decay=0.99)


def measured(rates, size, noise=0.0, seed=0):
    at = np.arange(1, len(rates))  # the first rate is 0
    spread = np.exp(noise * np.random.default_rng(seed).normal(size=len(at)))
    return LossCurve(LAW.at_size(size).predict(rates, at=at) * spread, rates, at, model_parameters=size)


def test_reference_numbers():
    rates = np.repeat([3e-4, 3e-5], [80, 20])
    assert LAW.predict(rates, at=[79, 99]) == pytest.approx([4.4204461834, 4.3943105357], abs=1e-10)
    assert LAW.at_size(1e9).predict(rates, at=[79, 99]) == pytest.approx([4.1821490566, 4.1560134088], abs=1e-10)


@pytest.mark.filterwarnings("error")
def test_fit_recovers_curves_of_three_sizes():
    curves = [measured(shape(SHORT), size) for shape in (constant, cosine) for size in (2.5e7, 1e8, 4e8)]
    found = SizedAnnealingLaw.fit(curves, decay=0.99, points=50)
    assert found.model_parameters == 4e8
    assert found.at_size(3.2e9).final_loss(wsd(SHORT)) == pytest.approx(LAW.at_size(3.2e9).final_loss(wsd(SHORT)), rel=2e-3)
    assert np.abs(found.residuals(curves[0].between(600))).max() < 1e-3  # at the size of the curve


def test_two_sizes_do_not_determine_the_law():
    curves = [measured(cosine(SHORT), size) for size in (2.5e7, 1e8)]
    with pytest.warns(IdentifiabilityWarning, match="two sizes"):
        found = SizedAnnealingLaw.fit(curves, decay=0.99, points=50)
    assert found.at_size(5e7).final_loss(wsd(SHORT)) == pytest.approx(LAW.at_size(5e7).final_loss(wsd(SHORT)), rel=0.02)


def test_gradient():
    curves = [measured(cosine(500), size).subsample(30) for size in (2.5e7, 1e8)]
    objective = sized_annealing_law._objective(sized_annealing_law._points(curves, 0.99, "peak", 5e7))
    at = np.log([1.7, 0.5, 0.5, 0.4, 0.7, 0.2])
    total, gradient = objective(at)
    assert gradient == pytest.approx(approx_fprime(at, lambda x: objective(x)[0], 1e-7), rel=1e-4, abs=1e-6 * total)


@pytest.mark.parametrize("sizes", [(None, None), (1e8, None), (1e8, 1e8)])
def test_curves_without_two_sizes(sizes):
    curves = [replace(measured(cosine(SHORT), 1e8), model_parameters=size) for size in sizes]
    with pytest.raises(ValueError, match=r"`model_parameters`, of two sizes or more. Received: "):
        SizedAnnealingLaw.fit(curves)


def test_a_curve_keeps_its_size(tmp_path):
    curve = measured(cosine(100), 1e8)
    curve.save(tmp_path / "curve.npz")
    assert LossCurve.load(tmp_path / "curve.npz").model_parameters == 1e8
    assert curve.subsample(5).between(20).model_parameters == 1e8


@pytest.mark.parametrize("size", [0, -1, np.nan, np.inf])
def test_bad_size(size):
    with pytest.raises(ValueError, match=r"`model_parameters` must be a positive number. Received: "):
        LossCurve([1.0], [1.0], model_parameters=size)


@pytest.mark.parametrize("bad", [{"B": -1}, {"beta": np.nan}, {"model_parameters": 0}, {"decay": 1}, {"warmup": "no"}])
def test_bad_numbers(bad):
    numbers = {"L0": 1.8, "A": 0.4, "alpha": 0.45, "C": 0.5, "B": 120.0, "beta": 0.3, "model_parameters": 1e8}
    with pytest.raises(ValueError, match="Received: "):
        SizedAnnealingLaw(**(numbers | bad))


@nightly
def test_published_curves(data_dir):
    """Runs of 25M and 100M parameters predict those of 400M to 1.1 %."""
    small = [
        replace(curve, model_parameters=millions * 1e6)
        for millions in (25, 100)
        for name, curve in published_curves.read(data_dir, millions).items()
        if name in published_curves.ONE_LENGTH
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        law = SizedAnnealingLaw.fit(small).at_size(400e6)
    large = published_curves.read(data_dir, 400)
    errors = [published_curves.final_error(law, large[name]) for name in published_curves.ONE_LENGTH]
    assert np.abs(errors).max() < 0.015
