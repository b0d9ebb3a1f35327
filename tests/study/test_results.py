"""Results of a study: the peak of each pair, the table, files and figures."""

import csv
import dataclasses
import math
import pickle
import random

import numpy as np
import pytest

from keras_lrsched.study.journal import Journal
from keras_lrsched.study.profiles import score
from keras_lrsched.study.results import Results
from keras_lrsched.study.trial import Outcome, Trial

BUDGET = 100
COSINE, CONSTANT = ("adamw", "cosine"), ("adamw", "constant")


def outcome(pair, rate, seed, value, budget=BUDGET, status="finished", seconds=2.0, initial=3.0):
    """A run whose metric falls in a straight line from 1 above its final value, evaluated ten times."""
    steps = np.arange(1, 11) * budget // 10
    curve = value + 1 - np.arange(1, 11) / 10
    length = budget if status == "finished" else 5
    evaluations = {"val_loss": curve, "val_accuracy": 1 - curve / 10} if status == "finished" else {}
    return Outcome(
        Trial(*pair, rate, budget, seed),
        status,
        np.linspace(initial, value, length),
        np.full(length, rate),
        steps if status == "finished" else np.array([]),
        evaluations,
        seconds,
        "ValueError: no" if status == "failed" else "",
    )


def of_pair(pair, by_rate, seeds=3, **options):
    """Runs at each rate, whose values differ by a hundredth from seed to seed."""
    return [
        outcome(pair, rate, seed, value + 0.01 * seed, **options) for rate, value in by_rate.items() for seed in range(seeds)
    ]


def diverged(pair, rate, seed, budget=BUDGET):
    return outcome(pair, rate, seed, math.nan, budget, "diverged")


def two_pairs():
    return of_pair(COSINE, {0.1: 0.7, 0.2: 0.5, 0.4: 0.6}) + of_pair(CONSTANT, {0.1: 0.8, 0.2: 0.9, 0.4: 2.0})


def test_each_pair_is_at_its_best_peak():
    results = Results(two_pairs())
    assert [results.peak(COSINE), results.peak(CONSTANT)] == [0.2, 0.1]
    first, second = results.table().rows
    assert (first.pair, first.verdict, first.group) == (COSINE, "reference", 1)
    assert first.values == pytest.approx((0.5, 0.51, 0.52))
    assert (first.mean, first.deviation) == pytest.approx((0.51, 0.01))
    assert (second.pair, second.verdict, second.group) == (CONSTANT, "worse", 2)
    assert second.difference == pytest.approx(0.3)
    assert second.interval == pytest.approx((0.3, 0.3))
    assert math.isnan(second.seeds_needed)
    assert results.best() == first
    assert results.trials_per_pair == {COSINE: 9, CONSTANT: 9}


def test_short_runs_and_missing_seeds_choose_no_peak():
    runs = of_pair(COSINE, {0.2: 0.5}) + of_pair(COSINE, {0.4: 0.1}, budget=50) + of_pair(COSINE, {0.8: 0.1}, seeds=2)
    results = Results(runs)
    assert results.peak(COSINE) == 0.2
    assert results.trials_per_pair == {COSINE: 8}


def test_a_peak_at_which_a_seed_diverged_is_infinitely_bad():
    runs = of_pair(COSINE, {0.2: 0.5}) + of_pair(COSINE, {0.4: 0.1}, seeds=2) + [diverged(COSINE, 0.4, 2)]
    assert Results(runs).peak(COSINE) == 0.2
    assert Results(runs).table().rows[0].unfinished == 1


def test_a_pair_that_diverges_for_a_seed_is_worse():
    runs = of_pair(COSINE, {0.2: 0.5}) + of_pair(CONSTANT, {0.4: 0.1}, seeds=2) + [diverged(CONSTANT, 0.4, 2)]
    row = Results(runs).table().rows[1]
    assert (row.mean, row.verdict, row.values[2]) == (math.inf, "worse", math.inf)
    assert math.isnan(row.deviation)
    row = Results(runs, metric="val_accuracy", mode="max").table().rows[1]
    assert (row.mean, row.verdict, row.values[2]) == (-math.inf, "worse", -math.inf)
    assert Results([run for run in runs if run.trial.pair == COSINE] + [diverged(CONSTANT, 0.4, s) for s in range(3)]).best()


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_nothing_finished(status):
    results = Results([outcome(COSINE, 0.1, seed, math.nan, status=status) for seed in range(2)])
    assert math.isnan(results.target)
    with pytest.raises(ValueError, match="needs `val_loss`"):
        results.sensitivity()
    assert "steps to target" in str(results.table())
    with pytest.raises(ValueError, match=f"each of 2 seeds at 100 steps. Received: 2 {status}"):
        results.best()
    assert results.profile().scores == {COSINE: 0}
    results.plot()


def test_interrupted():
    """The settings have the budget of a full run, of which there is none yet for one pair."""
    runs = of_pair(COSINE, {0.1: 0.5}) + of_pair(CONSTANT, {0.1: 0.1}, budget=25)
    results = Results(runs, settings={"budget": BUDGET, "seeds": 3})
    assert [row.verdict for row in results.table().rows] == ["reference", "incomplete"]
    assert math.isnan(results.peak(CONSTANT))
    short = Results(of_pair(CONSTANT, {0.1: 0.1}, budget=25), settings={"budget": BUDGET, "seeds": 3})
    assert [row.verdict for row in short.table().rows] == ["incomplete"]
    with pytest.raises(ValueError, match="Received: 3 finished"):
        short.best()
    none = Results([*runs, diverged(("sgd", "cosine"), 0.1, 0, 25)], settings={"budget": BUDGET})
    assert none.table().rows[-1].verdict == "none finished"


def test_order_of_finishing_changes_nothing():
    runs = two_pairs() + of_pair(("sgd", "cosine"), {0.1: 0.5, 0.2: 0.5})
    shuffled = list(runs)
    random.Random(0).shuffle(shuffled)
    first, second = Results(runs), Results(shuffled)
    assert first.outcomes == second.outcomes
    assert str(first.table()) == str(second.table())
    assert first.peak(("sgd", "cosine")) == 0.1  # of two that are equal, the lower


def test_order_of_pairs_is_that_of_the_settings():
    settings = {"optimizers": ["sgd", "adamw"], "schedules": ["constant", "cosine"]}
    runs = two_pairs() + of_pair(("sgd", "cosine"), {0.1: 0.5})
    assert Results(runs, settings=settings).pairs == [("sgd", "cosine"), CONSTANT, COSINE]
    assert Results(runs).pairs == [CONSTANT, COSINE, ("sgd", "cosine")]


def test_a_metric_of_which_more_is_better():
    results = Results(two_pairs(), metric="val_accuracy", mode="max")
    first, second = results.table().rows
    assert (first.pair, second.pair, second.verdict) == (COSINE, CONSTANT, "worse")
    assert second.difference == pytest.approx(-0.03)
    assert first.basin == pytest.approx((0.1, 0.4))  # within a tenth of an accuracy of .95
    assert results.target == pytest.approx(0.949 * 0.98)
    assert results.sensitivity()[COSINE] == pytest.approx(0.1)  # of the loss


def test_reference():
    results = Results(two_pairs())
    table = results.table(reference=CONSTANT)
    assert [row.verdict for row in table.rows] == ["better", "reference"]
    assert "difference from adamw, constant" in table.caption
    with pytest.raises(ValueError, match="no such pair"):
        results.table(reference=("adam", "cosine"))


def test_verdicts_are_simultaneous():
    """A difference that is significant for itself is not among ten comparisons."""
    noise = np.random.default_rng(0).normal(size=(11, 5)) * 1e-3
    runs = [
        outcome(("adamw", f"s{index:02}"), 0.1, seed, 0.5 + (index == 1) * 0.002 + 0.9 * (index > 1) + noise[index, seed])
        for index in range(11)
        for seed in range(5)
    ]
    alone = Results([run for run in runs if run.trial.schedule in ("s00", "s01")]).table().rows[1]
    among = next(row for row in Results(runs).table().rows if row.schedule == "s01")
    assert (alone.verdict, among.verdict) == ("worse", "not distinguishable")
    assert among.interval[0] < 0 < alone.interval[0]
    assert among.seeds_needed > 5
    assert (alone.group, among.group) == (2, 1)


@pytest.mark.parametrize(
    ("rates", "tuned", "label"),
    [
        ({0.1: 0.5, 0.2: 0.6}, True, "tuned peaks, 6 trials for each pair"),
        ({0.1: 0.5}, False, "untuned common peak 0.1"),
        ({0.1: 0.5, 0.2: 0.6}, False, "untuned common grid of 2 peaks, 0.1 to 0.2"),
    ],
)
def test_label_is_in_table_and_plot(rates, tuned, label):
    results = Results(of_pair(COSINE, rates), tuned=tuned)
    assert results.label == label
    assert label in str(results.table())
    assert label in results.table()._repr_html_()
    assert results.plot().get_suptitle() == label


def test_peaks_of_each_optimizer_are_not_common():
    runs = of_pair(COSINE, {0.1: 0.5}) + of_pair(("sgd", "cosine"), {1.0: 0.6})
    assert Results(runs, tuned=False).label == "untuned peaks, not the same for all pairs, 0.1 to 1"


def test_unequal_numbers_of_trials_are_stated():
    assert Results(two_pairs()[:-1]).label == "tuned peaks, 8 to 9 trials for each pair"


def test_sensitivity_and_basin_are_of_the_widest_budget():
    """A search tries all rates at a quarter of the budget, and three at the full one."""
    wide = {0.05: 1.0, 0.1: 0.9, 0.2: 0.8, 0.4: 0.84}
    runs = [*of_pair(COSINE, wide, budget=25, seeds=1), diverged(COSINE, 0.8, 0, 25), *of_pair(COSINE, {0.2: 0.5})]
    results = Results(runs)
    assert (results.budget, results.widest_budget, results.budgets) == (100, 25, [25, 100])
    assert results.initial_loss == 3.0
    assert results.sensitivity()[COSINE] == pytest.approx((1.0 + 0.9 + 0.8 + 0.84 + 3.0) / 5 - 0.8)
    low, high = results.basin(COSINE)
    assert low == pytest.approx(0.2 * 2**-0.8)
    assert high == pytest.approx(0.4)
    assert results.table().rows[0].basin == (low, high)
    assert results.by_rate(COSINE, budget=100) == {0.2: pytest.approx([0.5, 0.51, 0.52])}
    assert results.by_rate(COSINE)[0.8] == [math.inf]


def test_sensitivity_counts_a_seed_that_diverged_as_untrained():
    runs = [*of_pair(COSINE, {0.1: 1.0}), *of_pair(COSINE, {0.2: 0.8}, seeds=2), diverged(COSINE, 0.2, 2)]
    high = (0.8 + 0.81 + 3.0) / 3
    assert Results(runs).sensitivity()[COSINE] == pytest.approx((1.01 + high) / 2 - 1.01)


def test_target_and_times():
    results = Results(two_pairs())
    assert results.target == pytest.approx(0.51 * 1.02)
    # Values 1 - k / 10 above 0.5, 0.51 and 0.52: only the last of ten evaluations is at the target.
    assert results.times_to_target()[COSINE].tolist() == [100, 100, 100]
    assert results.times_to_target(0.81)[COSINE].tolist() == [70, 70, 80]
    assert results.times_to_target(0.81, "seconds")[COSINE] == pytest.approx([1.4, 1.4, 1.6])
    assert results.times_to_target(0.81)[CONSTANT].tolist() == [100, 100, math.inf]
    row = results.table().rows[1]
    assert row.steps_to_target == row.seconds_to_target == math.inf
    assert Results(two_pairs(), settings={"target": 0.81}).table().rows[1].steps_to_target == 100


def test_profile():
    profile = Results(two_pairs()).profile(0.81, points=4)
    assert profile.shares[COSINE].tolist() == [1, 1, 1, 1]
    assert profile.shares[CONSTANT].tolist() == [0, 2 / 3, 2 / 3, 2 / 3]
    assert profile.scores[CONSTANT] == pytest.approx(2 * (4 - 10 / 7) / 9)
    assert profile.multiples.tolist() == [1, 2, 3, 4]


def test_score_over_studies():
    first = Results(two_pairs())
    second = Results(of_pair(COSINE, {0.1: 0.9}) + of_pair(CONSTANT, {0.1: 0.5}))
    scores = score([first, second], targets=[0.81, 1.1])
    # Medians: 70 and 100 steps; 90 and 50.
    assert scores == pytest.approx({COSINE: (1 + (4 - 90 / 50) / 3) / 2, CONSTANT: (1 + (4 - 100 / 70) / 3) / 2})
    assert list(scores) == [CONSTANT, COSINE]
    assert score([[70, 90], [100, 50]]) == pytest.approx([scores[COSINE], scores[CONSTANT]])
    assert score([first])[CONSTANT] == 0 == score(first)[CONSTANT]  # the default target
    assert score([first, second], targets=[0.81, None], unit="seconds")[COSINE] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Results([]), "Received: none"),
        (lambda: Results(two_pairs(), mode="most"), "mode='most'"),
        (lambda: Results(two_pairs(), metric="val_f1"), "val_accuracy, val_loss. Received: metric='val_f1'"),
        (lambda: Results(two_pairs() * 2), "two outcomes of one trial. Received: adamw, cosine, 0.1, 100 steps, seed 0"),
        (lambda: Results(two_pairs()).times_to_target(unit="hours"), "unit='hours'"),
        (lambda: Results(two_pairs()).of_pair(("adamw", "wsd")), "'wsd'"),
        (lambda: score([Results(two_pairs()), Results(of_pair(COSINE, {1: 1}))]), "adamw, constant.*studies 0 and 1"),
        (lambda: score([Results(two_pairs())], targets=[1, 2]), "1 studies. Received"),
        (lambda: Results(two_pairs()[:9]).table(reference=CONSTANT), "no such pair"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_labels_are_escaped():
    """A lambda has the name `<lambda>`, and a bar would part a cell."""
    table = Results(of_pair(("<lambda>", "a|b"), {0.1: 0.5})).table()
    assert "&lt;lambda&gt;" in table._repr_html_()
    assert "<lambda>" not in table._repr_html_()
    assert "a\\|b" in table.markdown()


def test_text_and_markdown_have_a_cell_for_each_column():
    table = Results(two_pairs()).table()
    assert [len(line) for line in table.cells] == [len(table.header)] * 2
    assert str(table).splitlines()[1].split()[:3] == ["1", "adamw", "cosine"]
    rows = [line for line in table.markdown().splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert "0.51 ± 0.01" in table.markdown()
    assert len(table) == 2


def test_csv(tmp_path):
    runs = [*two_pairs(), diverged(COSINE, 0.8, 0), outcome(COSINE, 0.8, 1, math.nan, status="failed")]
    files = Results(runs).to_csv(tmp_path / "new" / "folder")
    read = {path.name: list(csv.DictReader(path.open(encoding="utf-8"))) for path in files}
    assert {name: len(rows) for name, rows in read.items()} == {
        "table.csv": 2,
        "trials.csv": 20,
        "evaluations.csv": 18 * 10,
        "steps.csv": 18 * BUDGET + 2 * 5,
    }
    assert float(read["table.csv"][1]["interval_low"]) == pytest.approx(0.3)
    assert [float(value) for value in read["table.csv"][0]["values"].split()] == pytest.approx([0.5, 0.51, 0.52])
    last = {row["status"]: row for row in read["trials.csv"]}
    assert last["failed"]["error"] == "ValueError: no"
    assert last["failed"]["val_loss"] == "nan"
    assert float(last["finished"]["val_loss"]) > 0
    assert read["evaluations.csv"][9]["step"] == "100"
    assert float(read["steps.csv"][0]["loss"]) == 3.0


def test_figure():
    results = Results([*two_pairs(), diverged(COSINE, 0.8, 0), diverged(COSINE, 0.05, 0)])
    figure = results.plot()
    against_rate, curves, ends = figure.axes
    assert figure._repr_png_().startswith(b"\x89PNG")
    stars = [line.get_xdata()[0] for line in against_rate.get_lines() if line.get_marker() == "*"]
    assert stars == [0.2, 0.1]
    wide = [line for line in against_rate.get_lines() if line.get_linewidth() == 7]
    assert [(line.get_xdata()[0], line.get_xdata()[-1]) for line in wide] == [
        pytest.approx(results.basin(pair)) for pair in (COSINE, CONSTANT)
    ]
    assert all(np.all(np.isfinite(line.get_ydata())) for line in wide)
    crosses = [line.get_xdata().tolist() for line in against_rate.get_lines() if line.get_marker() == "x"]
    assert crosses == [[0.05, 0.8], []]
    assert against_rate.get_xscale() == "log"
    assert curves.get_lines()[0].get_ydata()[-1] == pytest.approx(0.51)
    assert [label.get_text().split("\n")[0] for label in ends.get_yticklabels()] == ["adamw, cosine", "adamw, constant"]


def test_figure_of_many_pairs_and_negative_losses():
    runs = [run for index in range(12) for run in of_pair(("adamw", f"schedule {index}"), {0.1: -1.0 + index / 10})]
    figure = Results(runs).plot()
    assert figure.axes[1].get_yscale() == "linear"
    assert figure._repr_png_()


def test_load(tmp_path):
    journal = Journal(tmp_path)
    settings = {"metric": "val_accuracy", "mode": "max", "tuned": False, "budget": BUDGET, "seeds": 3}
    journal.open(settings)
    with pytest.raises(ValueError, match="No trial of the study has finished"):
        Results.load(tmp_path)
    runs = [*two_pairs(), outcome(COSINE, 0.8, 1, math.nan, status="failed")]
    for run in runs:
        journal.add(run)
    loaded, made = Results.load(str(tmp_path)), Results(runs, "val_accuracy", "max", False, settings)
    assert str(loaded.table()) == str(made.table())
    assert (loaded.metric, loaded.mode, loaded.tuned, loaded.settings) == ("val_accuracy", "max", False, settings)


def test_load_from_elsewhere(tmp_path):
    with pytest.raises(FileNotFoundError, match="no study"):
        Results.load(tmp_path / "missing")
    (tmp_path / "study.json").write_text("[1")
    with pytest.raises(ValueError, match=r"study\.json|holds no"):
        Results.load(tmp_path)


def test_results_go_to_another_process():
    results = Results(two_pairs())
    assert str(results.table()) == str(pickle.loads(pickle.dumps(results)).table())
    assert dataclasses.asdict(results.best())["schedule"] == "cosine"
    assert "2 pairs, 18 trials, 3 seeds" in repr(results)
