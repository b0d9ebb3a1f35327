"""The behavior that all laws over runs share."""

import itertools
import json
import warnings

import numpy as np
import pytest

from keras_lrsched.laws import (
    CriticalBatchLaw,
    ErrorLaw,
    ExtrapolationWarning,
    FitWarning,
    KaplanLaw,
    OvertrainingLaw,
    PowerLaw,
    RunLaw,
    RunTable,
    ScalingLaw,
    StepsAndBatchLaw,
)
from keras_lrsched.laws.run_law import RUN_LAWS
from tests.nightly import nightly

LAW = ScalingLaw(E=1.8, A=480.0, alpha=0.35, B=2100.0, beta=0.37)
GRID = np.array(list(itertools.product([1e7, 3e7, 1e8, 3e8], [1e9, 3e9, 1e10, 3e10]))).T


def scaling_runs(law=LAW, noise=0.01, seed=0, **columns):
    spread = np.exp(noise * np.random.default_rng(seed).normal(size=GRID.shape[1]))
    return RunTable(parameters=GRID[0], tokens=GRID[1], loss=law.value_at(*GRID) * spread, **columns)


def batch_runs():
    parameters, steps, batch = np.array(list(itertools.product([1e6, 1e8], [1e3, 1e4, 1e5], [3e4, 3e5, 3e6]))).T
    loss = StepsAndBatchLaw.published().value_at(parameters, steps, batch)
    return RunTable(parameters=parameters, steps=steps, batch_tokens=batch, loss=loss, check_units=False)


EVERY_LAW = {
    LAW: scaling_runs(),
    OvertrainingLaw(E=1.8, alpha=170.0, beta=370.0, c=0.27): scaling_runs(),
    ErrorLaw(epsilon=0.86, k=2.2, gamma=0.7): RunTable(
        loss=np.linspace(2.4, 4.0, 9), error=0.86 - 2.2 * np.exp(-0.7 * np.linspace(2.4, 4.0, 9))
    ),
    KaplanLaw.published(): scaling_runs(KaplanLaw.published()),
    StepsAndBatchLaw.published("unraveling"): batch_runs(),
    CriticalBatchLaw(2e8, 0.21): RunTable(loss=np.linspace(2, 4, 9), batch_tokens=2e8 * np.linspace(2, 4, 9) ** (-1 / 0.21)),
    PowerLaw(E=1.8, A=1e4, alpha=0.5, variable="tokens"): RunTable(
        tokens=np.geomspace(1e9, 1e11, 9), loss=1.8 + 1e4 * np.geomspace(1e9, 1e11, 9) ** -0.5
    ),
}
LAWS = pytest.mark.parametrize("law", EVERY_LAW, ids=lambda law: type(law).__name__)


def fitted(law):
    if isinstance(law, CriticalBatchLaw):
        return law._fitted(EVERY_LAW[law], ())  # `fit` takes the updates behind the critical batches
    options = {"variable": law.variable} if isinstance(law, PowerLaw) else {}
    return type(law).fit(EVERY_LAW[law], **options)


def inputs(law, value):
    return [value] * len(law.columns)


def test_every_law_is_here():
    ours = {name for name, kind in RUN_LAWS.items() if kind.__module__.startswith("keras_lrsched")}
    assert ours == {type(law).__name__ for law in EVERY_LAW}


@LAWS
def test_save_and_load(law, tmp_path):
    law = fitted(law)
    law.save(tmp_path / "law.json")
    for kind in (RunLaw, type(law)):
        loaded = kind.load(tmp_path / "law.json")
        names = (*law.coefficients, *law.options)
        assert type(loaded) is type(law)
        assert [getattr(loaded, name) for name in names] == [getattr(law, name) for name in names]
        assert loaded.fitted == law.fitted
        assert loaded.columns == law.columns
        assert repr(loaded) == repr(law)
    with pytest.raises(ValueError, match="must have its runs, which are not in its file"):
        loaded.interval(*inputs(law, 2.0))
    with pytest.raises(ValueError, match="must have its runs"):
        loaded.plot()


@LAWS
def test_a_fit_knows_its_runs(law):
    found, runs = fitted(law), EVERY_LAW[law]
    for name in law.columns:
        assert found.fitted[name] == [runs.column(name).min(), runs.column(name).max()]
    assert np.abs(found.residuals(runs)).max() < 0.05
    assert law.fitted == {}


@LAWS
def test_a_fit_of_itself_is_the_same(law):
    """A second search, which begins at the first one's end, stays there."""
    found = fitted(law)
    again = found.fit_to(EVERY_LAW[law])
    assert found._predicted(EVERY_LAW[law]) == pytest.approx(again._predicted(EVERY_LAW[law]), rel=1e-6)


@LAWS
def test_leave_one_out_and_intervals(law):
    found = fitted(law)
    left_out = found.leave_one_out()
    assert left_out.errors.shape == (len(EVERY_LAW[law]),)
    assert left_out.mean == pytest.approx(np.abs(left_out.errors).mean())
    assert left_out.largest == np.abs(left_out.errors).max() < 0.1
    at = [EVERY_LAW[law].column(name)[:2] for name in law.columns]
    interval = found.interval(*at, samples=20)
    assert np.all(interval.low <= interval.predicted)
    assert np.all(interval.predicted <= interval.high)
    assert interval.predicted == pytest.approx(found.value_at(*at))


@LAWS
def test_extrapolation_says_how_far(law):
    found = fitted(law)
    name = law.columns[0]
    low, high = found.fitted[name]
    inside = [np.sqrt(np.prod(found.fitted[column])) for column in law.columns]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found._predict(*inside)
    with pytest.warns(ExtrapolationWarning, match=rf"{type(law).__name__} extrapolates: {name} \S+ is 3 times the largest"):
        found._predict(3 * high, *inside[1:])
    with pytest.warns(ExtrapolationWarning, match=rf"{name} \S+ is 1/4 of the smallest that it was fitted to"):
        found._predict(low / 4, *inside[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        law._predict(*inputs(law, 2.0))  # made from numbers: nobody knows where it holds


@LAWS
@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, [], [1.0, None]])
def test_bad_inputs(law, bad):
    with pytest.raises(ValueError, match=rf"`{law.columns[0]}` must be positive. Received: "):
        law._predict(bad, *inputs(law, 2.0)[1:])


@LAWS
def test_bad_coefficients(law):
    numbers = {name: getattr(law, name) for name in (*law.coefficients, *law.options)}
    for name in law.coefficients:
        for bad in (-1.0, np.nan, np.inf, None, "1"):
            with pytest.raises(ValueError, match="Received: "):
                type(law)(**{**numbers, name: bad})


@LAWS
def test_too_few_runs(law):
    few = EVERY_LAW[law].take(np.arange(law.least_runs - 1))
    with pytest.raises(ValueError, match=rf"needs {law.least_runs} runs or more. Received: {law.least_runs - 1} runs"):
        law._fitted(few, ())


@LAWS
def test_runs_that_do_not_differ(law):
    runs = EVERY_LAW[law]
    for name in law.columns:
        columns = {column: runs.column(column) for column in (*law.columns, law.target, "loss")}
        columns[name] = np.full(len(runs), columns[name][0])
        same = RunTable(**columns, check_units=False)
        with pytest.raises(ValueError, match=rf"needs runs that differ in `{name}`. Received: {name}=\S+ in all runs"):
            law._fitted(same, ())


def test_one_ratio_of_tokens_to_parameters():
    runs = RunTable(parameters=GRID[0], tokens=20 * GRID[0] * np.linspace(1, 1.001, 16), loss=np.linspace(4, 3, 16))
    with pytest.raises(ValueError, match=r"differ in tokens for each parameter.*variable='compute'.* Received: 20 in all"):
        ScalingLaw.fit(runs)


def test_outliers_are_named_and_excluded():
    runs = scaling_runs()
    loss = runs.loss.copy()
    loss[5] *= 1.3
    bad = RunTable(parameters=GRID[0], tokens=GRID[1], loss=loss)
    with pytest.warns(FitWarning, match=r"misses 1 of 16 runs by more than 10%, row 5 by \+\d+.*exclude=\[5\] fits without"):
        ScalingLaw.fit(bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ScalingLaw.fit(bad, exclude=[5])
    assert found.loss(1e8, 1e10) == pytest.approx(LAW.loss(1e8, 1e10), rel=0.02)


def test_rows_are_those_of_the_whole_table():
    loss = scaling_runs().loss.copy()
    loss[[2, 9]] *= 1.4
    with pytest.warns(FitWarning, match=r"row 9 by .*exclude=\[9\]"):
        ScalingLaw.fit(RunTable(parameters=GRID[0], tokens=GRID[1], loss=loss), exclude=[2])


@pytest.mark.parametrize("exclude", [[16], [-1], [0.5], 3, "0"])
def test_bad_exclude(exclude):
    with pytest.raises(ValueError, match="Received: exclude="):
        ScalingLaw.fit(scaling_runs(), exclude=exclude)


@nightly
def test_a_bootstrap_covers_the_truth():
    """Of 40 noisy tables, 90 % intervals hold the exact loss in 36 on average; fewer than 30 are a defect."""
    exact, inside = LAW.value_at(1e8, 1e10), 0
    for seed in range(40):
        interval = ScalingLaw.fit(scaling_runs(seed=seed)).interval(1e8, 1e10, samples=50, forms=False)
        inside += interval.low <= exact <= interval.high
    assert inside >= 30


def test_forms_widen_an_extrapolation():
    found = ScalingLaw.fit(scaling_runs())
    with pytest.warns(ExtrapolationWarning):
        narrow, wide = (found.interval(1e11, 1e13, samples=30, forms=forms) for forms in (False, True))
    assert wide.low < narrow.low
    others = [law.value_at(1e11, 1e13) for law in found.alternatives(scaling_runs())]
    assert wide.low <= min(others) <= max(others) <= wide.high


def test_points_of_one_run_are_resampled_together():
    """Each run four times gives the same interval as once; as runs of their own it would be half as wide."""
    runs = scaling_runs(run=np.arange(16))
    again = runs.take(np.tile(np.arange(16), 4))
    once, together = (ScalingLaw.fit(table).interval(1e8, 1e10, samples=40, forms=False) for table in (runs, again))
    assert together == pytest.approx(once, rel=1e-6)


def test_refits_give_the_spread_of_anything():
    laws = ScalingLaw.fit(scaling_runs()).refits(samples=30, seed=1)
    ratios = [law.optimal(1e20).tokens / law.optimal(1e20).parameters for law in laws]
    exact = LAW.optimal(1e20)
    assert min(ratios) < exact.tokens / exact.parameters < max(ratios)
    same = ScalingLaw.fit(scaling_runs()).refits(samples=30, seed=1)
    assert [law.alpha for law in same] == [law.alpha for law in laws]


def test_coefficient_intervals():
    intervals = ScalingLaw.fit(scaling_runs()).coefficient_intervals(samples=40)
    assert intervals.keys() == {"E", "A", "alpha", "B", "beta"}
    assert intervals["alpha"].low < 0.35 < intervals["alpha"].high
    every = ScalingLaw.fit(scaling_runs()).coefficient_intervals(method="leave_one_out")
    assert every["alpha"].low < every["alpha"].predicted < every["alpha"].high


@pytest.mark.parametrize("options", [{"level": 1.0}, {"level": 0}, {"method": "jackknife"}, {"samples": 0}])
def test_bad_intervals(options):
    with pytest.raises(ValueError, match="Received: "):
        ScalingLaw.fit(scaling_runs()).interval(1e8, 1e10, **options)


def test_no_bootstrap_of_few_runs():
    found = ScalingLaw.fit(scaling_runs().take(np.array([0, 3, 5, 10, 12, 14, 15])))
    with pytest.raises(ValueError, match=r"needs 8 runs or more. Received: method='bootstrap', with a law fitted to 7"):
        found.interval(1e8, 1e10, method="bootstrap")
    assert found.interval(1e8, 1e10) == found.interval(1e8, 1e10, method="leave_one_out")
    assert len(found.refits()) == 7


def test_as_many_numbers_as_runs_have_no_interval():
    found = OvertrainingLaw.fit(scaling_runs().take(np.array([0, 3, 5, 10, 15])))
    with pytest.raises(ValueError, match=r"needs more runs for an interval: 0 of 5 parts determine one. Received: 5 runs"):
        found.interval(1e8, 1e10, method="leave_one_out")
    with pytest.raises(ValueError, match="without any one of them"):
        found.leave_one_out()


def test_a_table_is_read_by_fit(tmp_path):
    rows = zip(*GRID, scaling_runs().loss, strict=True)
    (tmp_path / "runs.csv").write_text(
        "\n".join(["N,D,loss", *(",".join(map(repr, map(float, row))) for row in rows)]) + "\n"
    )
    assert repr(ScalingLaw.fit(tmp_path / "runs.csv")) == repr(ScalingLaw.fit(scaling_runs()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"law": "ScalingLaw"}',
        '{"law": "NoSuchLaw", "fitted": {}}',
        '{"law": "RunLaw", "fitted": {}}',
        '{"law": "TwoPowerLaw", "fitted": {}}',
        '{"law": "AnnealingLaw", "fitted": {}}',
        '{"law": "ErrorLaw", "fitted": 3, "epsilon": 1, "k": 1, "gamma": 1}',
        '{"law": "ErrorLaw", "fitted": {"loss": 3}, "epsilon": 1, "k": 1, "gamma": 1}',
        '{"law": "ErrorLaw", "fitted": {"loss": [3, 2]}, "epsilon": 1, "k": 1, "gamma": 1}',
        '{"law": "ErrorLaw", "fitted": {"loss": [1, 2, 3]}, "epsilon": 1, "k": 1, "gamma": 1}',
        '{"law": "ErrorLaw", "fitted": {}, "epsilon": 1, "k": 1, "gamma": -1}',
        '{"law": "ErrorLaw", "fitted": {}, "epsilon": 1, "k": 1, "gamma": 1, "slope": 1}',
        '{"law": "KaplanLaw", "fitted": {}, "N_c": 1e300, "alpha_N": 9, "D_c": 1, "alpha_D": 0.001}',
    ],
)
def test_files_without_a_law(text, tmp_path):
    (tmp_path / "law.json").write_text(text)
    with pytest.raises(ValueError, match=r"holds no law over runs.*law\.json"):
        RunLaw.load(tmp_path / "law.json")


def test_a_file_of_another_law(tmp_path):
    LAW.save(tmp_path / "law.json")
    with pytest.raises(ValueError, match=r"must hold a PowerLaw. Received: .*law\.json' with a ScalingLaw"):
        PowerLaw.load(tmp_path / "law.json")


def test_the_file_is_plain_json(tmp_path):
    LAW.save(tmp_path / "law.json")
    numbers = {"E": 1.8, "A": 480.0, "alpha": 0.35, "B": 2100.0, "beta": 0.37}
    expected = {"law": "ScalingLaw", "fitted": {}, **numbers, "count": "all"}
    assert json.loads((tmp_path / "law.json").read_text()) == expected


def test_plot():
    plt = pytest.importorskip("matplotlib.pyplot")
    found = ScalingLaw.fit(scaling_runs())
    axes = found.plot(runs=scaling_runs(seed=1))
    own, others, _ = axes.get_lines()
    assert own.get_xdata() == pytest.approx(scaling_runs().loss)
    assert own.get_ydata() == pytest.approx(found.value_at(*GRID))
    assert others.get_xdata() == pytest.approx(scaling_runs(seed=1).loss)
    assert LAW.plot(runs=scaling_runs(), ax=axes) is axes
    plt.close("all")
