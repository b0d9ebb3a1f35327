"""The scaling law: published numbers, the fit of the replication on its points, and what follows in closed form."""

import itertools
import time
import warnings

import numpy as np
import pytest

from keras_lrsched.laws import ExtrapolationWarning, FitWarning, IdentifiabilityWarning, RunTable, ScalingLaw
from tests.nightly import nightly

BESIROGLU = ScalingLaw.published()
with warnings.catch_warnings():
    warnings.simplefilter("ignore", FitWarning)
    HOFFMANN = ScalingLaw.published("hoffmann")


@pytest.fixture(scope="module")
def figure(data_dir):
    return RunTable.read(data_dir / "chinchilla_figure4_245_points.csv")


@pytest.fixture(scope="module")
def chinchilla(figure):
    """Without the five highest losses, as the replication fits it."""
    return ScalingLaw.fit(figure, exclude=np.argsort(figure.loss)[-5:])


@pytest.mark.parametrize(
    ("law", "size", "tokens", "expected"),
    [
        (HOFFMANN, 70e9, 1.4e12, 1.93664547),
        (BESIROGLU, 70e9, 1.4e12, 1.97388186),
        (HOFFMANN, 1e9, 2e10, 2.58004787),
        (BESIROGLU, 1e9, 2e10, 2.53005032),
    ],
)
def test_published_losses(law, size, tokens, expected):
    assert law.loss(size, tokens) == pytest.approx(expected, rel=3e-9)


@pytest.mark.parametrize(
    ("law", "size", "tokens", "loss"),
    [
        (HOFFMANN, 1.824217698e9, 9.136336466e10, 2.32888294),
        (BESIROGLU, 2.778459463e9, 5.998527921e10, 2.30552857),
    ],
)
def test_published_optimum(law, size, tokens, loss):
    best = law.optimal(1e21)
    assert best == pytest.approx((size, tokens, loss), rel=2e-9)
    assert 6 * best.parameters * best.tokens == pytest.approx(1e21)
    for factor in (0.99, 1.01):
        assert law.loss(factor * best.parameters, best.tokens / factor) > best.loss


def test_rounded_constants_contradict_chinchilla():
    ratios = [law.optimal(5.88e23).tokens / law.optimal(5.88e23).parameters for law in (HOFFMANN, BESIROGLU)]
    assert ratios == pytest.approx([92.83, 18.38], abs=5e-3)
    with pytest.warns(FitWarning, match=r"rounded constants .* which contradict .*published\('besiroglu'\)"):
        ScalingLaw(E=1.69, A=406.4, alpha=0.34, B=410.7, beta=0.28)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ScalingLaw(E=1.69, A=406.4, alpha=0.34, B=410.7, beta=0.281)


def test_tokens_for_a_smaller_model():
    best = HOFFMANN.optimal(1e21)
    half, quarter = (HOFFMANN.tokens_for(best.loss, best.parameters / factor) for factor in (2, 4))
    assert half == pytest.approx(2.20739474e11, rel=1e-8)
    assert quarter == pytest.approx(1.05475185e12, rel=1e-8)
    assert [half / best.tokens / 2, quarter / best.tokens / 4] == pytest.approx([1.20803, 2.88615], rel=1e-5)
    assert HOFFMANN.tokens_for(best.loss, best.parameters / 10) == pytest.approx(7.8e16, rel=0.01)
    assert HOFFMANN.tokens_for(best.loss, best.parameters / 100) == np.inf
    assert HOFFMANN.tokens_for(best.loss, best.parameters) == pytest.approx(best.tokens)


def test_other_operations_for_each_token():
    assert BESIROGLU.optimal(1e21, flops_per_token_parameter=6.0) == BESIROGLU.optimal(1e21)
    assert BESIROGLU.optimal(2e21, flops_per_token_parameter=12.0) == pytest.approx(BESIROGLU.optimal(1e21))


def test_fit_recovers_a_formula():
    grid = np.array(list(itertools.product(np.geomspace(1e7, 1e10, 5), np.geomspace(1e9, 1e12, 4)))).T
    found = ScalingLaw.fit(RunTable(parameters=grid[0], tokens=grid[1], loss=HOFFMANN.value_at(*grid)))
    assert (found.alpha, found.beta) == pytest.approx((0.34, 0.28), abs=1e-4)
    assert pytest.approx((1.69, 406.4, 410.7), rel=2e-3) == (found.E, found.A, found.B)


def test_units_of_the_user():
    """Millions of parameters and billions of tokens give the same law."""
    grid = np.array(list(itertools.product(np.geomspace(1e7, 1e10, 5), np.geomspace(1e9, 1e12, 4)))).T
    scaled = grid / np.array([[1e6], [1e9]])
    loss = BESIROGLU.value_at(*grid)
    plain = ScalingLaw.fit(RunTable(parameters=grid[0], tokens=grid[1], loss=loss))
    other = ScalingLaw.fit(RunTable(parameters=scaled[0], tokens=scaled[1], loss=loss, check_units=False))
    assert (other.alpha, other.beta, other.E) == pytest.approx((plain.alpha, plain.beta, plain.E), rel=1e-6)


def test_the_fit_of_the_replication(chinchilla):
    assert pytest.approx((477.826, 2143.42), rel=1e-4) == (chinchilla.A, chinchilla.B)
    assert (chinchilla.E, chinchilla.alpha, chinchilla.beta) == pytest.approx((1.817218, 0.347310, 0.367172), abs=5e-6)
    assert chinchilla.beta / (chinchilla.alpha + chinchilla.beta) == pytest.approx(0.51390, abs=1e-5)


def test_five_outliers_move_an_exponent(figure):
    with pytest.warns(FitWarning, match="3 of 245 runs by more than 10%"):
        found = ScalingLaw.fit(figure)
    assert (found.E, found.alpha, found.beta) == pytest.approx((1.89134, 0.349313, 0.453049), abs=1e-5)
    assert pytest.approx((495.73, 12845.6), rel=1e-4) == (found.A, found.B)


@nightly
def test_intervals_of_the_replication(chinchilla):
    """Of 1000 resamples, beside its own 4000; and in a tenth of the minute that they may take."""
    begin = time.process_time()
    intervals = chinchilla.coefficient_intervals(level=0.95, samples=1000)
    assert time.process_time() - begin < 60
    expected = {"A": (285, 744), "B": (1042, 5810), "E": (1.769, 1.871), "alpha": (0.317, 0.373), "beta": (0.331, 0.415)}
    for name, (low, high) in expected.items():
        assert intervals[name].low == pytest.approx(low, rel=0.05)
        assert intervals[name].high == pytest.approx(high, rel=0.05)


def test_large_runs_from_small_ones(figure):
    """Runs below 1e20 FLOP predict those above 1e21; the interval of the law with other forms holds their mean."""
    plausible = figure.loss < np.sort(figure.loss)[-5]
    found = ScalingLaw.fit(figure.take(plausible & (figure.compute < 1e20)))
    large = figure.take(figure.compute > 1e21)
    with pytest.warns(ExtrapolationWarning):
        predicted = found.loss(large.parameters, large.tokens)
    assert np.abs(predicted / large.loss - 1).mean() < 0.03
    with pytest.warns(ExtrapolationWarning):
        interval = found.interval(large.parameters, large.tokens, samples=50)
    assert interval.low.mean() < large.loss.mean() < interval.high.mean()


def test_mean_parameters_are_those_of_the_runs():
    grid = np.array(list(itertools.product(np.geomspace(1e8, 1e9, 4), np.geomspace(2e9, 2e10, 3), [0.0, 0.5]))).T
    runs = RunTable(parameters=grid[0], tokens=grid[1], sparsity=grid[2], loss=np.ones(grid.shape[1]))
    means = runs.with_mean_parameters()
    loss = BESIROGLU.value_at(means.parameters, means.tokens)
    sparse = RunTable(parameters=grid[0], tokens=grid[1], sparsity=grid[2], loss=loss)
    found = ScalingLaw.fit(sparse, count="mean")
    assert found.count == "mean"
    assert found.alpha == pytest.approx(BESIROGLU.alpha, rel=1e-3)
    assert np.abs(found._predicted(means) / loss - 1).max() < 1e-4


def test_a_number_at_its_edge():
    """Losses that fall below what any floor allows."""
    grid = np.array(list(itertools.product(np.geomspace(1e7, 1e10, 4), np.geomspace(1e9, 1e12, 4)))).T
    loss = ScalingLaw(E=0.0, A=100.0, alpha=0.15, B=100.0, beta=0.15).value_at(*grid) - 1.0
    with pytest.warns(IdentifiabilityWarning, match="at the edge of what is searched .* do not determine it"):
        ScalingLaw.fit(RunTable(parameters=grid[0], tokens=grid[1], loss=loss))


@pytest.mark.parametrize("bad", [{"count": "layers"}, {"E": -0.1}, {"beta": 0.0}])
def test_bad_numbers(bad):
    with pytest.raises(ValueError, match="Received: "):
        ScalingLaw(**({"E": 1.8, "A": 480.0, "alpha": 0.35, "B": 2100.0, "beta": 0.37} | bad))


@pytest.mark.parametrize(("method", "bad"), [("optimal", 0.0), ("optimal", np.nan), ("published", "kaplan")])
def test_bad_arguments(method, bad):
    with pytest.raises(ValueError, match="Received: "):
        getattr(BESIROGLU, method)(bad)


@pytest.mark.parametrize("bad", [{"loss": 0.0}, {"parameters": -1.0}])
def test_bad_goals(bad):
    with pytest.raises(ValueError, match="Received: "):
        BESIROGLU.tokens_for(**({"loss": 2.5, "parameters": 1e9} | bad))
