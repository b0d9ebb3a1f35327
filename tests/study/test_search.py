"""The search for the peaks: on losses with a known optimum, whatever the order in which trials finish."""

import math
from collections import Counter

import numpy as np
import pytest

from keras_lrsched.study.search import HIGHEST, LOWEST, Round, least_trials, tune
from keras_lrsched.study.trial import Outcome

ADAM, SGD = ("adam", "cosine"), ("sgd", "linear")


def outcome(trial, value, status="finished"):
    curve = np.full(trial.budget, value)
    evaluations = {"val_loss": curve[-1:], "val_accuracy": -curve[-1:]}
    return Outcome(trial, status, curve, curve, np.array([trial.budget]), evaluations, 0.0)


def runner(value, recorded=None, order=None):
    """Makes trials whose final loss is `value(trial)`: infinity diverges, NaN fails."""

    def run(trials):
        recorded is None or recorded.extend(trials)
        made = []
        for trial in trials:
            loss = value(trial)
            status = "failed" if math.isnan(loss) else "finished" if math.isfinite(loss) else "diverged"
            made.append(outcome(trial, loss, status))
        return made if order is None else [made[i] for i in order.permutation(len(made))]

    return run


def bowl(best):
    """A loss with its least at a rate, or at one for each pair, that diverges eight times above it."""

    def value(trial):
        at = best[trial.pair] if isinstance(best, dict) else best
        distance = math.log2(trial.learning_rate / at)
        return 1 + distance**2 + 10 / trial.budget if distance < 3 else math.inf

    return value


def search(value, pairs=(ADAM,), **options):
    given = {"budget": 100, "seeds": 3, "starts": 0.001, **options}
    return tune(list(pairs), runner(value), **given)


def test_an_optimum_at_the_start_takes_the_planned_trials():
    tuning = search(bowl(0.001))
    assert tuning.peaks[ADAM].learning_rate == 0.001
    assert tuning.peaks[ADAM].status == "inside"
    assert tuning.peaks[ADAM].value == 1.1
    assert tuning.trials_per_pair == least_trials(3) == 5 + 3 * 2 + 3 * 3
    assert tuning.steps_per_pair == 5 * 25 + 6 * 50 + 9 * 100
    trials = [each.trial for each in tuning.outcomes]
    assert Counter((t.budget, t.seed) for t in trials) == {
        (25, 0): 5, (50, 0): 3, (50, 1): 3, (100, 0): 3, (100, 1): 3, (100, 2): 3
    }  # fmt: skip
    assert sorted({t.learning_rate for t in trials if t.budget == 25}) == [0.00025, 0.0005, 0.001, 0.002, 0.004]
    assert sorted({t.learning_rate for t in trials if t.budget == 100}) == [0.0005, 0.001, 0.002]


@pytest.mark.parametrize("steps", [-4, -3, 2, 3, 11])
def test_a_grid_grows_until_the_best_is_inside(steps):
    tuning = search(bowl(0.001 * 2.0**steps))
    assert tuning.peaks[ADAM].learning_rate == 0.001 * 2.0**steps
    assert tuning.peaks[ADAM].status == "inside"
    rates = sorted({o.trial.learning_rate for o in tuning.outcomes if o.trial.budget == 25})
    assert rates == [0.001 * 2.0**k for k in range(min(-2, steps - 1), max(2, steps + 1) + 1)]


def test_an_optimum_that_moves_with_the_budget_is_followed():
    tuning = search(lambda trial: bowl(0.001 * 100 / trial.budget)(trial))
    assert tuning.peaks[ADAM].learning_rate == 0.001
    assert sorted({o.trial.learning_rate for o in tuning.outcomes if o.trial.budget == 25})[-1] == 0.008
    last = sorted({o.trial.learning_rate for o in tuning.outcomes if o.trial.budget == 100})
    assert last == [0.0005, 0.001, 0.002, 0.004]  # from the second round came 0.001, 0.002, 0.004


def test_equal_trials_for_each_pair_and_fair_ones():
    best = {ADAM: 0.001, SGD: 0.064}
    tuning = search(bowl(best), [ADAM, SGD])
    assert {pair: peak.learning_rate for pair, peak in tuning.peaks.items()} == best
    trials = [each.trial for each in tuning.outcomes]
    counts = [Counter((t.budget, t.seed) for t in trials if t.pair == pair) for pair in best]
    assert counts[0] == counts[1]
    assert counts[0].total() == tuning.trials_per_pair
    # SGD wanted 0.008 to 0.128: five more. ADAM took those on its better side, and only one that diverges.
    assert len({t.learning_rate for t in trials if t.pair == ADAM and t.budget == 25}) == 10
    assert max(t.learning_rate for t in trials if t.pair == ADAM) == 0.008
    assert len(trials) == len(set(trials))


def test_starts_by_optimizer():
    best = {ADAM: 0.001, SGD: 0.064}
    tuning = search(bowl(best), [ADAM, SGD], starts={"adam": 0.001, "sgd": 0.064})
    assert tuning.trials_per_pair == least_trials(3)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_in_which_trials_finish_does_not_matter(seed):
    def noisy(trial):
        noise = np.random.default_rng([trial.seed, trial.budget, int(trial.learning_rate * 1e9)]).normal()
        return bowl({ADAM: 0.01, SGD: 0.1})(trial) + 0.5 * noise

    in_order, shuffled = [], []
    options = {"budget": 100, "seeds": 3, "starts": 0.003}
    first = tune([ADAM, SGD], runner(noisy, in_order), **options)
    again = tune([ADAM, SGD], runner(noisy, shuffled, np.random.default_rng(seed)), **options)
    assert in_order == shuffled
    assert first.peaks == again.peaks
    assert [each.trial for each in first.outcomes] == [each.trial for each in again.outcomes] == in_order


def test_under_noise_the_peak_is_near():
    def noisy(trial):
        noise = np.random.default_rng([trial.seed, trial.budget, int(trial.learning_rate * 1e9)]).normal()
        return bowl(0.001 * 2.0**5)(trial) + 0.3 * noise

    found = [search(lambda t, n=n: noisy(t) + 1e-9 * n, starts=0.001 * 2.0**n).peaks[ADAM] for n in range(10)]
    assert all(0.016 <= peak.learning_rate <= 0.064 and peak.status == "inside" for peak in found)


def test_what_was_interrupted_goes_on():
    """With the recorded outcomes, the second call makes exactly the trials that the first would have made still."""
    made, whole, journal = [], [], {}
    tune([ADAM, SGD], runner(bowl(0.02), whole), budget=100, seeds=3, starts=0.001)

    def recording(limit):
        def run(trials):
            for trial in trials:
                if trial not in journal:
                    if len(made) == limit:
                        raise KeyboardInterrupt
                    made.append(trial)
                    journal[trial] = outcome(trial, bowl(0.02)(trial), "finished")
                yield journal[trial]

        return run

    for limit in (1, 13, 40):
        with pytest.raises(KeyboardInterrupt):
            tune([ADAM, SGD], recording(limit), budget=100, seeds=3, starts=0.001)
    tune([ADAM, SGD], recording(None), budget=100, seeds=3, starts=0.001)
    assert made == whole


def test_a_larger_metric_can_be_better():
    tuning = search(bowl(0.008), metric="val_accuracy", mode="max")
    assert tuning.peaks[ADAM].learning_rate == 0.008
    assert tuning.peaks[ADAM].value == -1.1


def test_one_diverged_seed_rules_a_rate_out():
    def value(trial):
        return math.inf if trial.learning_rate == 0.001 and trial.seed == 2 else bowl(0.001)(trial)

    tuning = search(value)
    assert tuning.peaks[ADAM].learning_rate == 0.0005
    assert tuning.peaks[ADAM].value == pytest.approx(2.1)
    assert min(o.trial.learning_rate for o in tuning.outcomes if o.trial.budget == 100) == 0.00025


def test_a_grid_ends_at_the_limits():
    up = search(lambda trial: 1 / trial.learning_rate, starts=0.9)
    assert up.peaks[ADAM].status == "limit"
    assert HIGHEST / 2 < up.peaks[ADAM].learning_rate == 0.9 * 2**6
    down = search(lambda trial: trial.learning_rate)
    assert down.peaks[ADAM].status == "limit"
    assert down.peaks[ADAM].learning_rate == 0.001 * 2.0**-13 >= LOWEST > 0.001 * 2.0**-14
    edge = search(bowl(1e-7), starts=1e-7)
    assert (edge.peaks[ADAM].learning_rate, edge.peaks[ADAM].status) == (1e-7, "limit")


def test_rates_that_diverge_are_left_in_growing_steps():
    tuning = search(bowl(1e-6), starts=1.0)
    peak = tuning.peaks[ADAM]
    assert peak.status == "inside"
    assert 0.7e-6 < peak.learning_rate < 1.5e-6
    first = {o.trial.learning_rate for o in tuning.outcomes if o.trial.budget == 25}
    assert len(first) <= 5 + 4 + 6  # one after another, it would take 5 + 18


def test_a_pair_of_which_all_diverges():
    def value(trial):
        return math.inf if trial.pair == ADAM else bowl(0.001)(trial)

    tuning = search(value, [ADAM, SGD])
    assert tuning.peaks[ADAM].status == "unfinished"
    assert math.isnan(tuning.peaks[ADAM].learning_rate)
    assert math.isnan(tuning.peaks[ADAM].value)
    assert tuning.peaks[SGD].learning_rate == 0.001
    counts = Counter(each.trial.pair for each in tuning.outcomes)
    assert counts[ADAM] == counts[SGD] == tuning.trials_per_pair
    # Down to the limit once, in the first round; at the limit it wants no more.
    assert Counter(o.trial.budget for o in tuning.outcomes if o.trial.pair == ADAM) == {25: 9, 50: 6, 100: 9}


def test_a_pair_that_fails_costs_no_further_trials():
    tuning = search(lambda trial: math.nan if trial.pair == ADAM else bowl(0.001)(trial), [ADAM, SGD])
    assert tuning.peaks[ADAM].status == "unfinished"
    assert tuning.trials_per_pair == least_trials(3)


def test_a_grid_that_is_exhausted_ends_the_round_for_all():
    """Both would like to grow; the upper one has fewer rates left."""
    rounds = [Round(1.0, 1, 3)]
    starts = {"adam": 50.0, "sgd": 1e-3}
    tuning = search(lambda trial: -abs(math.log(trial.learning_rate)), [ADAM, SGD], rounds=rounds, starts=starts)
    counts = Counter(each.trial.pair for each in tuning.outcomes)
    assert counts[ADAM] == counts[SGD] <= 30
    assert {peak.status for peak in tuning.peaks.values()} == {"limit"}


def test_other_rounds():
    tuning = search(bowl(0.001), rounds=[Round(0.1, 1, 7), Round(1.0, 2, 1)])
    assert tuning.peaks[ADAM].learning_rate == 0.001
    assert tuning.trials_per_pair == 7 + 2 * 3  # the one rate of the last round needs its neighbors


def test_budgets_of_a_step_are_trained():
    assert {o.trial.budget for o in search(bowl(0.001), budget=1).outcomes} == {1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, r"`budget` must be a positive integer\. Received: budget=0"),
        ({"seeds": 1.5}, r"`seeds` must be a positive integer\. Received: seeds=1\.5"),
        ({"starts": {"sgd": 0.1}}, "`starts` must have a learning rate for 'adam'. It has: sgd"),
        ({"starts": 1e3}, r"`starts` must lie between 1e-07 and 100\.0\. Received: 1000\.0 for 'adam'"),
        ({"mode": "best"}, "`mode` must be one of 'min', 'max'. Received: mode='best'"),
        ({"rounds": []}, "`rounds` must have one round or more"),
        ({"pairs": []}, "`pairs` must be one or more different pairs"),
        ({"pairs": [ADAM, ADAM]}, "`pairs` must be one or more different pairs"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        search(bowl(0.001), **options)


def test_a_round_is_checked():
    with pytest.raises(ValueError, match=r"`part` must be a number above 0 and at most 1\. Received: part=2"):
        Round(2, 1, 5)


def test_an_outcome_that_is_missing_or_returned_twice():
    whole = runner(bowl(0.001))
    with pytest.raises(ValueError, match=r"4 outcomes for 5 trials, none for adam, cosine, 0\.004, 25 steps, seed 0"):
        tune([ADAM], lambda trials: whole(trials)[:-1], budget=100, seeds=1, starts=0.001)
    with pytest.raises(ValueError, match="6 outcomes for 5 trials"):
        tune([ADAM], lambda trials: whole([*trials, trials[0]]), budget=100, seeds=1, starts=0.001)
