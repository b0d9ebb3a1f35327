"""The law of over-training and its error law, on the authors' models: their predictions, and what other runs give."""

import csv
import itertools

import numpy as np
import pytest

from keras_lrsched.laws import ErrorLaw, IdentifiabilityWarning, OvertrainingLaw, RunTable

SMALL = ("d=96_l=8_h=4", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8")
LAW = OvertrainingLaw(E=1.836648, alpha=166.2110, beta=366.6872, c=0.272851)


@pytest.fixture(scope="module")
def models(data_dir):
    """From a training set and an error to all runs, the five of the fit, and those of the fit of the error."""

    def read(dataset, error="err_avg_subset"):
        path = data_dir / "overtraining_104_models.csv"
        columns = {"parameters": "N", "tokens": "D", "loss": "loss_c4_val", "error": error}
        runs = RunTable.read(path, columns, where={"dataset_name": dataset})
        with path.open() as file:
            rows = [row for row in csv.DictReader(file) if row["dataset_name"] == dataset]
        names, ratio = np.array([row["model_name"] for row in rows]), np.array([float(row["tok_mult"]) for row in rows])
        five = (np.isin(names, SMALL) & (ratio == 20)) | ((names == SMALL[0]) & (ratio == 320))
        return runs, five, five | ((names == "open_lm_1b") & (ratio == 20)), names, ratio

    return read


FITS = {
    "rpj": ((166.2110, 366.6872, 0.272851, 1.836648), 35, 0.0138),
    "c4_original": ((113.6926, 189.5155, 0.242472, 1.508261), 34, 0.0180),
    "rw_original": ((125.0957, 246.2067, 0.254395, 1.734462), 35, 0.0153),
}


@pytest.mark.parametrize("dataset", FITS)
def test_official_fits(models, dataset):
    numbers, count, mean_error = FITS[dataset]
    runs, five, *_ = models(dataset)
    assert (len(runs), five.sum()) == (count, 5)
    found = OvertrainingLaw.fit(runs.take(five))
    assert (found.alpha, found.beta, found.c, found.E) == pytest.approx(numbers, rel=1e-5)
    assert np.abs(np.expm1(-found.residuals(runs))).mean() == pytest.approx(mean_error, abs=5e-5)


@pytest.mark.parametrize(
    ("dataset", "error", "expected"),
    [
        ("rpj", "err_avg", (1.32290, 0.890708, 0.760850)),
        ("rpj", "err_avg_subset", (2.20649, 0.714591, 0.856992)),
        ("c4_original", "err_avg", (1.28852, 0.972164, 0.758949)),
        ("c4_original", "err_avg_subset", (2.07891, 0.756121, 0.849742)),
        ("rw_original", "err_avg", (1.12807, 0.821523, 0.767679)),
        ("rw_original", "err_avg_subset", (2.21481, 0.707049, 0.865280)),
    ],
)
def test_official_fits_of_the_error(models, dataset, error, expected):
    runs, _, six, *_ = models(dataset, error)
    found = ErrorLaw.fit(runs.take(six))
    assert (found.k, found.gamma, found.epsilon) == pytest.approx(expected, rel=1e-5)


def test_official_predictions(models):
    runs, five, six, names, ratio = models("rpj")
    large = runs.take(((names == "open_lm_1b") & (ratio == 640)) | (names == "open_lm_7b"))
    large = large.take(np.argsort(large.parameters))
    loss = OvertrainingLaw.fit(runs.take(five)).value_at(large.parameters, large.tokens)
    assert loss == pytest.approx([2.519827, 2.442745], abs=2e-6)
    assert loss / large.loss - 1 == pytest.approx([0.00710, 0.00732], abs=5e-6)
    error = ErrorLaw.fit(runs.take(six)).value_at(loss)
    assert error == pytest.approx([0.492496, 0.471856], abs=2e-6)
    assert error / large.error - 1 == pytest.approx([0.03637, 0.00046], abs=1e-5)


@pytest.mark.parametrize(
    ("dataset", "predicted", "measured"), [("c4_original", 2.279898, 2.382220), ("rw_original", 2.414973, 2.454722)]
)
def test_largest_model_of_other_sets(models, dataset, predicted, measured):
    runs, five, _, names, _ = models(dataset)
    largest = runs.take(names == "open_lm_7b")
    assert largest.loss == pytest.approx([measured], abs=1e-6)
    found = OvertrainingLaw.fit(runs.take(five))
    assert found.value_at(largest.parameters, largest.tokens) == pytest.approx([predicted], abs=2e-6)


def test_all_small_models_give_other_predictions(models):
    """The headline hangs on the choice of five runs; the interval of all holds the measured losses."""
    runs, _, _, names, ratio = models("rpj")
    small = runs.take(runs.compute < 1e20)
    found = OvertrainingLaw.fit(small)
    assert len(small) == 29
    assert (found.c, found.E) == pytest.approx((0.2186, 1.407), abs=5e-4)
    for chosen, predicted, error in (
        ((names == "open_lm_1b") & (ratio == 640), 2.4175, -0.034),
        (names == "open_lm_7b", 2.3860, -0.016),
    ):
        run = runs.take(chosen)
        assert found.value_at(run.parameters, run.tokens) == pytest.approx([predicted], abs=1e-4)
        assert predicted / run.loss[0] - 1 == pytest.approx(error, abs=5e-4)
        with pytest.warns(UserWarning, match="extrapolates"):
            interval = found.interval(run.parameters, run.tokens)
        assert interval.low < run.loss < interval.high


def test_the_form_of_the_paper():
    """E + (a M^eta + b M^-eta) C^-eta with eta = c / 2, a = alpha 6^eta, b = beta."""
    ratio, compute, eta = 160.0, 1e20, 0.272851 / 2
    size, tokens = (compute / (6 * ratio)) ** 0.5, (compute * ratio / 6) ** 0.5
    expected = 1.836648 + (166.2110 * 6**eta * ratio**eta + 366.6872 * ratio**-eta) * compute**-eta
    assert LAW.loss(size, tokens) == pytest.approx(expected, rel=1e-12)


def test_what_follows():
    best = LAW.optimal(1e21)
    assert LAW.optimal(4e21).tokens == pytest.approx(2 * best.tokens)  # one exponent: the ratio stays
    assert LAW.tokens_for(best.loss, best.parameters) == pytest.approx(best.tokens)
    assert LAW.tokens_for(best.loss, best.parameters / 3) > 3 * best.tokens
    for factor in (0.9, 1.1):
        assert LAW.loss(factor * best.parameters, best.tokens / factor) > best.loss


GRID = np.array(list(itertools.product(np.geomspace(1e7, 1e9, 4), np.geomspace(2e9, 2e11, 4)))).T


def test_fit_recovers_a_formula():
    found = OvertrainingLaw.fit(RunTable(parameters=GRID[0], tokens=GRID[1], loss=LAW.value_at(*GRID)))
    assert (found.E, found.alpha, found.beta, found.c) == pytest.approx((1.836648, 166.2110, 366.6872, 0.272851), rel=1e-5)


def test_a_floor_at_its_bound():
    loss = LAW.value_at(*GRID) - 2.2
    with pytest.warns(IdentifiabilityWarning, match="E is 0, at its bound"):
        OvertrainingLaw.fit(RunTable(parameters=GRID[0], tokens=GRID[1], loss=loss))


def test_losses_that_do_not_fall():
    loss = ErrorLaw(3.0, 1.0, 1e-10).value_at(GRID[0])  # rises with the parameters
    with pytest.raises(ValueError, match="must fall with parameters and tokens"):
        OvertrainingLaw.fit(RunTable(parameters=GRID[0], tokens=GRID[1], loss=loss))


def test_errors_that_do_not_rise():
    with pytest.raises(ValueError, match="must rise with the loss"):
        ErrorLaw.fit(RunTable(loss=[2.0, 2.5, 3.0, 3.5], error=[0.8, 0.7, 0.6, 0.5]))
