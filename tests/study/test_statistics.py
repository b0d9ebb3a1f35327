"""Statistics of a study against reference numbers, and the coverage of what they promise by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from keras_lrsched.study import profiles, statistics
from tests.nightly import some

INF, NAN = math.inf, math.nan

NOISES = {
    "normal": lambda random, shape: random.normal(size=shape),
    "long tails": lambda random, shape: random.standard_t(3, size=shape),
    "differences of skewed losses": lambda random, shape: random.exponential(size=shape) - random.exponential(size=shape),
}


def coverage(interval, samples, truth=0.0):
    ends = [interval(sample) for sample in samples]
    return np.mean([low <= truth <= high for low, high in ends])


def test_pairing_is_by_seed_and_not_by_place():
    assert statistics.paired_differences({2: 1.0, 0: 3.0, 5: 9.0}, {0: 1.0, 2: 0.5}).tolist() == [2.0, 0.5]
    assert statistics.paired_differences([1.0, INF], [0.5, INF])[0] == 0.5
    assert np.isnan(statistics.paired_differences([INF], [INF])).all()


@pytest.mark.parametrize(
    ("values", "reference", "message"),
    [
        ({0: 1.0}, {1: 1.0}, r"seeds=\[0\], reference=\[1\]"),
        ([1.0, 2.0], [1.0], r"shapes \(2,\) and \(1,\)"),
        ([], [], "one number for each seed"),
    ],
)
def test_what_cannot_be_paired(values, reference, message):
    with pytest.raises(ValueError, match=message):
        statistics.paired_differences(values, reference)


def test_t_interval_of_scipy():
    differences = [0.3, -0.1, 0.25, 0.4]
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
    assert statistics.t_interval(differences, 0.9) == pytest.approx((expected.low, expected.high), rel=1e-12)


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("noise", some(NOISES))
def test_few_seeds_are_covered(noise, count):
    samples = NOISES[noise](np.random.default_rng(0), (2000, count))
    assert coverage(statistics.bootstrap_interval, samples) > 0.94


def test_the_percentile_bootstrap_covers_few_seeds_too_rarely():
    """The reason for Student's t; so the interval of five differences is not that of a bootstrap."""
    random = np.random.default_rng(0)
    samples = random.normal(size=(1000, 5))

    def percentile(sample):
        return np.quantile(sample[random.integers(5, size=(500, 5))].mean(axis=1), [0.025, 0.975])

    assert coverage(percentile, samples) == pytest.approx(0.84, abs=0.03)
    assert statistics.bootstrap_interval(samples[0]) == statistics.t_interval(samples[0])


@pytest.mark.parametrize("noise", some([*NOISES, "skewed"], chosen=lambda name: name == "skewed"))
def test_many_seeds_are_covered_if_they_are_skewed_too(noise):
    noises = NOISES | {"skewed": lambda random, shape: random.exponential(size=shape) - 1}
    samples = noises[noise](np.random.default_rng(0), (800, 10))
    covered = coverage(lambda sample: statistics.bootstrap_interval(sample, samples=1000), samples)
    assert covered > 0.935
    if noise == "skewed":
        assert coverage(statistics.t_interval, samples) < 0.92


def test_bootstrap_is_a_function_of_its_seed():
    differences = np.random.default_rng(0).exponential(size=12)
    first = statistics.bootstrap_interval(differences, seed=1)
    assert first == statistics.bootstrap_interval(differences, seed=1) != statistics.bootstrap_interval(differences, seed=2)


def test_a_high_level_takes_more_samples():
    """Twenty of 40 000 are beyond each end."""
    differences = np.random.default_rng(0).exponential(size=12)
    few, many = (statistics.bootstrap_interval(differences, 0.999, samples) for samples in (1, 40_000))
    assert few == many


def test_studentized_bootstrap_leans_to_the_long_tail():
    differences = np.random.default_rng(0).exponential(size=12) ** 2
    mean = np.mean(differences)
    low, high = statistics.bootstrap_interval(differences)
    inner = statistics.t_interval(differences)
    assert high - mean > 1.3 * (inner[1] - mean)
    assert low == inner[0]  # the bootstrap's is further in


@pytest.mark.parametrize(
    ("differences", "mode", "expected"),
    [
        ([-0.11, -0.09, -0.1], "min", "better"),
        ([-0.11, -0.09, -0.1], "max", "worse"),
        ([0.11, 0.09, 0.1], "min", "worse"),
        ([-0.11, 0.09, -0.1], "min", "not distinguishable"),
        ([-5.0], "min", "not distinguishable"),
        ([0.0, 0.0, 0.0], "min", "not distinguishable"),
        ([0.1, 0.1, 0.1], "min", "worse"),
        ([0.1, INF, -0.1], "min", "worse"),  # a run that diverged
        ([0.1, -INF, -0.1], "max", "worse"),
        ([0.1, -INF, 0.1], "min", "better"),  # the reference's did
        ([NAN, NAN], "min", "not distinguishable"),  # all of both did
        ([INF, -INF, 0.0], "min", "not distinguishable"),
        (np.linspace(0.1, 0.3, 20), "min", "worse"),
        (np.linspace(-0.1, 0.11, 20), "min", "not distinguishable"),
    ],
)
def test_verdict(differences, mode, expected):
    assert statistics.verdict(differences, mode) == expected


def test_verdict_is_that_of_the_paired_t_test():
    random = np.random.default_rng(0)
    verdicts = []
    for sample in random.normal(0.8, 1, size=(200, 5)):
        verdicts.append(statistics.verdict(sample, comparisons=2))
        assert (verdicts[-1] == "not distinguishable") == (stats.ttest_1samp(sample, 0).pvalue > 0.025)
    assert {"worse", "not distinguishable"} <= set(verdicts)


@pytest.mark.parametrize("count", [5, 12])
def test_equals_are_found_to_differ_as_rarely_as_stated(count):
    samples = np.random.default_rng(0).normal(size=(1000, count))
    wrong = np.mean([statistics.verdict(sample, level=0.9, samples=500) != "not distinguishable" for sample in samples])
    assert 0.06 < wrong < 0.12


@pytest.mark.parametrize(
    ("effect", "seeds"),
    [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)],  # G*Power: paired t test, two-sided, 5 %, power 80 %
)
def test_seeds_needed(effect, seeds):
    assert statistics.seeds_needed([effect - 1, effect, effect + 1]) == seeds


def test_seeds_needed_keeps_its_promise():
    differences = np.array([-0.5, 1.2, 0.4])
    needed = int(statistics.seeds_needed(differences))
    random = np.random.default_rng(0)
    mean, deviation = np.mean(differences), np.std(differences, ddof=1)

    def found(count):
        return np.mean(stats.ttest_1samp(random.normal(mean, deviation, size=(4000, count)), 0, axis=1).pvalue < 0.05)

    assert found(needed - 2) < 0.8 < found(needed) + 0.015


@pytest.mark.parametrize(
    ("differences", "options", "seeds"),
    [
        ([1.0], {}, INF),
        ([-1.0, 1.0], {}, INF),
        ([0.1, 0.1], {}, 2),
        ([0.0, 1e-3, -1e-3, 1e-6], {}, INF),  # far above the limit
        ([0.2, INF], {}, 2),
        ([NAN, NAN], {}, INF),
        ([0.0, 0.1, 0.2], {"comparisons": 10}, 18),
        ([0.0, 0.1, 0.2], {"power": 0.9}, 13),
        ([1e3, 1e3 + 1e-6], {}, 2),
    ],
)
def test_seeds_needed_at_the_limits(differences, options, seeds):
    assert statistics.seeds_needed(differences, **options) == seeds


def test_seeds_needed_are_more_where_nothing_is_distinguishable():
    for sample in np.random.default_rng(0).normal(0.5, 1, size=(100, 5)):
        if statistics.verdict(sample) == "not distinguishable":
            assert statistics.seeds_needed(sample) > 5


def test_groups():
    values = {
        "d": [0.9, 0.91, 0.92],
        "b": [0.5, 0.53, 0.5],
        "a": {0: 0.5, 1: 0.52, 2: 0.5},
        "c": [0.9, 0.92, 0.9],
        "diverged": [0.5, INF, INF],
    }
    values["a"] = list(values["a"].values())
    assert statistics.groups_of_equals(values) == [["a", "b"], ["c", "d"], ["diverged"]]
    negative = {name: [-value for value in found] for name, found in values.items()}
    assert statistics.groups_of_equals(negative, mode="max") == [["a", "b"], ["c", "d"], ["diverged"]]
    assert statistics.groups_of_equals({}) == []


def test_the_best_is_in_the_first_group():
    """Although the reference is chosen after the fact, and six settings are hardly worse than the best."""
    random, found = np.random.default_rng(0), 0
    for _ in range(150):
        values = dict(enumerate(random.normal(size=(7, 4)) + np.array([0.0] + 6 * [0.05])[:, None]))
        found += 0 in statistics.groups_of_equals(values)[0]
    assert found >= 0.95 * 150


def test_sensitivity_of_the_specification():
    losses = [3.9, 3.2, 2.9, 2.7, 2.8, 3.5, NAN, 9.0]
    rates = np.geomspace(1e-4, 3e-1, 8)
    assert statistics.learning_rate_sensitivity(rates, losses, 6.0) == pytest.approx(1.175, abs=1e-12)
    losses[6] = INF
    assert statistics.learning_rate_sensitivity(rates, losses, 6.0) == pytest.approx(1.175, abs=1e-12)


def test_sensitivity_counts_the_axis_and_not_the_rates():
    """Cells of 1, 3/4, 1/2 and 1/2 decades."""
    dense = statistics.learning_rate_sensitivity([1, 10, 10**1.5, 100], [0.0, 0.0, 1.0, 1.0], 9.0)
    assert dense == pytest.approx((0.5 + 0.5) / (1 + 0.75 + 0.5 + 0.5))


def test_sensitivity_clips_each_seed():
    table = [[1.0, 1.0], [1.0, 100.0]]
    assert statistics.learning_rate_sensitivity([0.1, 0.2], table, 3.0) == pytest.approx((1 + 2) / 2 - 1)


def test_basin_interpolates_on_the_logarithmic_axis():
    low, high = statistics.basin([1e-3, 1e-2, 1e-1, 1], [2.0, 1.0, 1.0, 1.4], tolerance=0.2)
    assert (low, high) == pytest.approx((10**-2.2, 10**-0.5))
    assert statistics.basin_width([1e-3, 1e-2, 1e-1, 1], [2.0, 1.0, 1.0, 1.4], tolerance=0.2) == pytest.approx(10**1.7)


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([1.0, 1.0, INF], {}, (0.1, 0.2)),
        ([NAN, 1.0, INF], {}, (0.2, 0.2)),
        ([NAN, NAN, NAN], {}, (NAN, NAN)),
        ([1.05, 1.0, 1.04], {}, (0.1, 0.4)),  # all of the rates
        ([1.0, 5.0, 1.0], {"tolerance": 0.0}, (0.1, 0.1)),  # not across a hill
        ([0.8, 0.9, 0.8], {"mode": "max", "tolerance": 0.2}, (0.1, 0.4)),
        ([-0.8, -1.0, INF], {"tolerance": 0.1}, (0.2 / math.sqrt(2), 0.2)),  # a loss below zero
        ([[1.0, 3.0], [1.0, 1.0], [1.0, INF]], {}, (0.2 * 2**-0.1, 0.2)),  # means over seeds
    ],
)
def test_basin_at_edges(values, options, expected):
    assert statistics.basin([0.1, 0.2, 0.4], values, **options) == pytest.approx(expected, nan_ok=True)


TIMES = [[100, 200, 300, 400], [150, 150, NAN, 300], [90, 900, 330, 1000]]


def test_score_of_the_specification():
    assert profiles.score(TIMES) == pytest.approx([0.935185185, 0.694444444, 0.547222222], abs=1e-9)
    assert profiles.score(TIMES, points=100) == pytest.approx([0.938131313, 0.695707071, 0.547979798], abs=1e-9)
    assert profiles.score(TIMES, points=10**5) == pytest.approx(profiles.score(TIMES), abs=2e-5)


def test_score_beyond_the_largest_ratio():
    assert profiles.score([[100], [401], [400], [INF]]).tolist() == [1, 0, 0, 0]
    assert profiles.score([[INF, 100], [INF, 200]]) == pytest.approx([0.5, 1 / 3])  # nobody reached the first target
    assert profiles.score([[100], [150]], r_max=2.0).tolist() == [1, 0.5]


def test_profile():
    multiples, shares = profiles.performance_profile(TIMES, points=4)
    assert multiples.tolist() == [1, 2, 3, 4]
    assert shares.tolist() == [[0.25, 1, 1, 1], [0.5, 0.75, 0.75, 0.75], [0.25, 0.5, 0.5, 0.75]]


LIMIT = 1.3e-3


@pytest.mark.parametrize(("mean", "count", "expected"), [(3.2776, 4, 0.0048), (3.2779, 5, 0.004696), (3.2790, 20, 0.004472)])
def test_records_of_the_specification(mean, count, expected):
    losses = np.full(count, mean)
    assert statistics.significance(losses, 3.28) == pytest.approx(expected, abs=5e-7)
    assert statistics.significantly_better(losses, 3.28, LIMIT)
    assert not statistics.significantly_better(np.full(count, mean + 0.0005), 3.28, LIMIT)


def test_a_record_against_another():
    """By hand: (3.2790 - 3.2776 + (3500 - 3450) 4.5e-5) / sqrt(1/20 + 1/4) = .00365 / .5477."""
    new, old = np.full(4, 3.2776), np.full(20, 3.2790)
    options = {"new_steps": 3450, "old_steps": 3500, "slope": 0.0045 / 100}
    assert statistics.significance(new, old, **options) == pytest.approx(0.00666395, abs=1e-8)
    assert statistics.significantly_better(new, old, LIMIT, **options)
    assert not statistics.significantly_better(new, old, LIMIT)
    assert not statistics.significantly_better(old, new, LIMIT, new_steps=3500, old_steps=3450, slope=0.0045 / 100)


def test_the_standard_deviation_comes_from_ten_runs_of_the_other():
    old = 3.28 + LIMIT * np.linspace(-1, 1, 10)
    bound = 3.28 - 3.09 * np.std(old, ddof=1) * math.sqrt(1 / 4 + 1 / 10)
    assert statistics.significantly_better(np.full(4, bound - 1e-6), old)
    assert not statistics.significantly_better(np.full(4, bound + 1e-6), old)
    with pytest.raises(ValueError, match="Received: 9 of them"):
        statistics.significantly_better([1.0], old[:9])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.t_interval([]), "at least one number"),
        (lambda: statistics.t_interval([1.0], 95), "level=95"),
        (lambda: statistics.bootstrap_interval([1.0], samples=0), "samples=0"),
        (lambda: statistics.verdict([1.0], mode="lowest"), "mode='lowest'"),
        (lambda: statistics.verdict([1.0], comparisons=0), "comparisons=0"),
        (lambda: statistics.seeds_needed([1.0], power=1.0), "power=1.0"),
        (lambda: statistics.groups_of_equals({"a": [1.0], "b": [1.0, 2.0]}), "shapes"),
        (lambda: statistics.learning_rate_sensitivity([0.2, 0.1], [1, 2], 3), "increasing"),
        (lambda: statistics.learning_rate_sensitivity([0.1, 0.2], [1, 2, 3], 3), r"2 rates and losses of the shape \(3,\)"),
        (lambda: statistics.learning_rate_sensitivity([0.1, 0.2], [1, 2], NAN), "initial_loss=nan"),
        (lambda: statistics.basin([0.0, 0.2], [1, 2]), "rates"),
        (lambda: profiles.score([1, 2]), "table"),
        (lambda: profiles.score([[1, 0]]), "positive"),
        (lambda: profiles.score([[1, 2]], r_max=1), "r_max=1"),
        (lambda: profiles.performance_profile([[1, 2]], points=0), "points=0"),
        (lambda: statistics.significantly_better([1.0], 2.0, 0.0), "standard_deviation=0.0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
