"""Effects of a choice, averaged over all others, on losses whose effects are set."""

import numpy as np
import pytest

from keras_lrsched.study import Multiverse, Study
from keras_lrsched.study.multiverse import multiverse
from keras_lrsched.study.trial import Outcome
from tests.study.test_study import Counted, study

pytest.importorskip("sklearn")
STARTS = {"sgd": 0.01, "adamw": 0.001}
SCHEDULES = {"constant": 0.3, "cosine": 0.0, "linear": 0.02}
"""The log loss that each adds at every learning rate and with both optimizers."""


def log_loss(trial, noise=0.03):
    octave = np.log2(trial.learning_rate / STARTS[trial.optimizer])
    random = np.random.default_rng([trial.seed, int(1e6 * trial.learning_rate), len(trial.schedule), len(trial.optimizer)])
    optimizer = 0.2 if trial.optimizer == "sgd" else 0.0
    return SCHEDULES[trial.schedule] + optimizer + 0.05 * (octave - 1) ** 2 + noise * random.normal()


class Synthetic:
    """A stand-in for a study."""

    optimizers, schedules, budget, metric, mode = STARTS, SCHEDULES, 100, "val_loss", "min"

    def __init__(self, sign=1.0, status="finished"):
        self.made, self._sign, self._status = [], sign, status

    def starts(self):
        return STARTS

    def run_trials(self, trials):
        self.made += trials
        return [self._outcome(trial) for trial in trials]

    def _outcome(self, trial):
        value = np.array([np.exp(log_loss(trial)) if self._sign > 0 else -log_loss(trial)])
        diverges = trial.learning_rate > 8 * STARTS[trial.optimizer]
        return Outcome(
            trial, "diverged" if diverges else self._status, value, value, np.array([100]), {"val_loss": value}, 1.0
        )


@pytest.fixture(scope="module")
def found():
    return multiverse(Synthetic(), trials=60)


def test_effects_are_found_whatever_the_other_choices(found):
    effect = found.effect("schedule")
    assert effect.is_log
    assert effect.options == ["constant", "cosine", "linear"]
    low, high = effect.interval("constant", "cosine")
    assert low < np.expm1(0.3 * 8 / 9) < high  # all diverge at one of nine learning rates
    assert low > 0.15
    assert high < 0.55
    low, high = effect.interval("linear", "cosine")
    assert low < np.expm1(0.02 * 8 / 9) < high
    low, high = found.effect("optimizer").interval("sgd", "adamw")
    assert low < np.expm1(0.2 * 8 / 9) < high
    assert low > 0


def test_the_best_learning_rate_is_between_those_that_diverge_and_the_low_ones(found):
    effect = found.effect("learning_rate")
    assert effect.best in (1.0, 2.0, 4.0)


def test_what_is_chosen_lowers_the_variance_more_than_the_sequence_goes_on():
    def variance(choose):
        made = Synthetic()
        found = Multiverse(list(STARTS), list(SCHEDULES), STARTS, 4, 100)
        start = found.first(30)
        found.add(made.run_trials(start[:12]))
        trials = found.next(18) if choose else start[12:]
        before, places = found._posterior()[1], len(found.outcomes)
        found.outcomes += made.run_trials(trials)
        new = [int(np.flatnonzero((found._grid == place).all(axis=1))[0]) for place in found._places()[places:]]
        cross = before[:, new]  # by the same process
        gain = cross @ np.linalg.solve(cross[new] + found._noise * np.eye(len(new)), cross.T)
        return np.trace(before - gain)

    assert variance(choose=True) < variance(choose=False)


def test_a_metric_that_is_to_be_large():
    class Larger(Synthetic):
        mode = "max"

    effect = multiverse(Larger(sign=-1.0), trials=60).effect("schedule")
    assert not effect.is_log
    assert effect.best in ("cosine", "linear")
    assert "\n  constant: " in str(effect)
    assert f"difference from {effect.best}\n" in str(effect)
    low, high = effect.interval("constant", "cosine")
    assert low < -0.3 * 8 / 9 < high < 0


def test_the_grid_is_gone_through_with_two_seeds_at_first():
    trials = Multiverse(list(STARTS), list(SCHEDULES), STARTS, 1, 100).first(100)
    assert len(trials) == len(set(trials)) == 2 * 2 * 3 * 3
    assert len({trial.setting for trial in trials[:10]}) == 5


def test_runs_of_a_study_are_kept(tmp_path):
    made = study(optimizers=["sgd", "adamw"], schedules=["constant", "linear"], learning_rates="tuned", directory=tmp_path)
    made._runner = Counted()
    first = made.multiverse(trials=24, verbose=0)
    count = len(made._runner.trials)
    again = made.multiverse(trials=24, verbose=0)
    assert count == len(made._runner.trials) == 24
    assert str(again.effect("schedule")) == str(first.effect("schedule"))
    assert isinstance(made, Study)


def test_bad_arguments(found):
    with pytest.raises(ValueError, match="`trials` must be a positive integer"):
        multiverse(Synthetic(), trials=0)
    with pytest.raises(ValueError, match="None of 4 runs of the multiverse finished"):
        multiverse(Synthetic(status="failed"), trials=9)
    with pytest.raises(ValueError, match="`choice` must be one of"):
        found.effect("batch")
    with pytest.raises(ValueError, match="`option` must be one of"):
        found.effect("schedule").interval("constant", "rex")
