"""Recommendations from short runs: on losses of a known form, on a real model, and what they may spend."""

import math

import numpy as np
import pytest

from keras_lrsched import schedules
from keras_lrsched.laws import ConvexBound
from keras_lrsched.schedules.schedule import compute
from keras_lrsched.study import forecast, recommend
from keras_lrsched.study.question import Question, RangeTest
from keras_lrsched.study.recommend import answer
from keras_lrsched.study.trial import Outcome, Trial
from tests.nightly import nightly

BUDGET = 1024
LAW = ConvexBound(distance=1.0, gradient_norm=1.0, offset=0.3)
BEST = LAW.optimal_rate(np.asarray(schedules.get("linear", 1.0, BUDGET).values(BUDGET))).learning_rate


def rates(schedule, peak, steps):
    return np.asarray(compute(schedules.get(schedule, peak, steps), np.arange(steps), np), "float64")


class World:
    """Runs whose loss is a convex bound, for an optimizer in units of its own, and a constant factor above."""

    def __init__(self, units, factors=None, noise=0.0, limit=math.inf):
        self.units, self.factors, self.noise, self.limit = units, factors or {}, noise, limit
        self.steps, self.trials = 0, []

    def loss(self, trial, at):
        values = rates(trial.schedule, trial.learning_rate / self.units[trial.optimizer], trial.budget)
        return self.factors.get(trial.optimizer, 1.0) * LAW.loss_at(values, at)

    def run(self, trials):
        for trial in trials:
            self.steps += trial.budget
            self.trials.append(trial)
            ends = np.unique(np.linspace(0, trial.budget, 11).astype(int)[1:])
            rng = np.random.default_rng([trial.budget, int(1e6 * trial.learning_rate)])
            loss = self.loss(trial, ends - 1) * np.exp(self.noise * rng.normal(size=len(ends)))
            diverged = trial.learning_rate > self.limit
            yield Outcome(
                trial, "diverged" if diverged else "finished", loss, loss, ends, {"val_loss": loss, "val_good": -loss}, 0.5
            )

    def range_test(self, optimizer, lowest, highest, steps):
        self.steps += steps
        tested = lowest * (highest / lowest) ** (np.arange(steps) / steps)
        distance = np.log2(tested / (16 * BEST * self.units[optimizer]))
        return RangeTest(tested, 2 + np.where(distance < 0, -0.1 * distance, distance)[: steps - 1])

    def question(self, **options):
        given = {
            "pairs": [(name, schedule) for name in self.units for schedule in ("constant", "linear", "cosine")],
            "budget": BUDGET,
            "run": self.run,
            "rates": rates,
            "starts": dict.fromkeys(self.units, 0.01),
        }
        return Question(**{**given, **options})

    def best(self):
        """The least loss of a whole run over a fine grid."""
        return 2 * math.sqrt(math.prod(_parts())) + LAW.offset


def _parts():
    law = ConvexBound()
    best = law.optimal_rate(rates("linear", 1.0, BUDGET), BUDGET)
    return best.bound / 2, best.bound / 2


def true_loss(world, found):
    values = rates(found.schedule, found.learning_rate / world.units[found.optimizer], BUDGET)
    return world.factors.get(found.optimizer, 1.0) * float(LAW.loss_at(values, np.array([BUDGET - 1]))[0])


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_the_better_optimizer_and_a_good_rate_are_found(fraction):
    world = World({"sgd": 1.0, "adam": 0.1}, {"adam": 1.3})
    found = answer(world.question(), fraction)
    assert found.optimizer == "sgd"
    assert found.schedule in ("linear", "cosine")
    assert true_loss(world, found) < (1.2 if fraction < 0.5 else 1.03) * world.best()


@pytest.mark.parametrize("fraction", [0.02, 0.05, 0.3])
def test_it_spends_what_it_may_and_not_more(fraction):
    world = World({"sgd": 1.0, "adam": 0.1})
    found = answer(world.question(range_test=world.range_test), fraction)
    assert found.allowed == int(fraction * BUDGET * 6)
    assert found.spent == world.steps
    assert 0.7 * found.allowed < found.spent <= found.allowed
    assert [each.trial for each in found.outcomes] == world.trials
    assert found.seconds == 0.5 * len(world.trials)
    assert len(world.trials) == len(set(world.trials))
    assert all(trial.budget <= BUDGET for trial in world.trials)


def test_the_same_question_has_the_same_answer():
    first, again = (answer(World({"sgd": 1.0}).question(), 0.2) for _ in range(2))
    assert str(first) == str(again)
    assert [each.trial for each in first.outcomes] == [each.trial for each in again.outcomes]


def test_a_range_test_centers_the_rates():
    """The usual rate of this optimizer is 10 times too low; the first run is a third of the last good one."""
    world = World({"sgd": 1.0})
    starts = {"sgd": BEST / 10}
    found = answer(world.question(range_test=world.range_test, starts=starts), 0.3)
    first = [trial.learning_rate for trial in world.trials[:2]]
    assert first == pytest.approx([BEST * 16 / recommend.BELOW, 4 * BEST * 16 / recommend.BELOW], rel=0.2)
    assert "a range test in which the loss rose above" in found.reason
    assert true_loss(world, found) < 1.1 * world.best()


def test_a_range_test_that_shows_nothing_counts_as_spent_and_changes_nothing():
    world = World({"sgd": 1.0})

    def flat(optimizer, lowest, highest, steps):
        world.steps += steps
        return RangeTest(np.geomspace(lowest, highest, steps), np.linspace(2, 1, steps))

    found = answer(world.question(range_test=flat), 0.3)
    assert found.spent == world.steps
    assert [trial.learning_rate for trial in world.trials[:2]] == [0.01, 0.04]
    assert "range test" not in found.reason


def test_rates_that_diverge_are_not_recommended():
    world = World({"sgd": 1.0}, limit=0.02)
    found = answer(world.question(), 0.5)
    assert any(each.status == "diverged" for each in found.outcomes)
    assert found.learning_rate <= 0.02


def test_an_interval_and_its_level():
    world = World({"sgd": 1.0}, noise=0.01)
    narrow, wide = (answer(World({"sgd": 1.0}, noise=0.01).question(), 0.3, level) for level in (0.5, 0.9))
    assert wide.interval[0] < narrow.interval[0] < narrow.loss < narrow.interval[1] < wide.interval[1]
    assert wide.interval[0] < true_loss(world, wide) < wide.interval[1]
    # both are symmetric in log loss, and 1.645 / 0.674 apart
    ratio = math.log(wide.interval[1] / wide.loss) / math.log(narrow.interval[1] / narrow.loss)
    assert ratio == pytest.approx(1.6449 / 0.6745, rel=1e-3)
    assert math.log(wide.interval[1] / wide.loss) == pytest.approx(-math.log(wide.interval[0] / wide.loss))


def test_what_a_recommendation_prints():
    found = answer(World({"sgd": 1.0, "adam": 0.1}).question(), 0.1)
    text = str(found)
    assert text.startswith(f"{found.optimizer}, {found.schedule}, peak {found.learning_rate:.3g}: {found.loss:.4g} (")
    assert f"from {found.spent} of {found.allowed} steps. From {len(found.outcomes)} runs of " in text
    assert "Next best optimizer: " in text
    assert "Next best schedule: " in text


def test_a_metric_that_is_to_be_large():
    world = World({"sgd": 1.0})
    found = answer(world.question(metric="val_good", mode="max"), 0.3)
    assert found.loss < 0
    assert found.interval[0] < found.loss < found.interval[1]
    assert true_loss(world, found) < 1.3 * world.best()


def test_a_single_pair():
    found = answer(World({"sgd": 1.0}).question(pairs=[("sgd", "linear")]), 0.2)
    assert (found.optimizer, found.schedule) == ("sgd", "linear")
    assert "Next best" not in found.reason


def test_laws_of_several_optimizers_share_their_minimum():
    world = World({"sgd": 1.0, "adam": 0.1})
    trials = [
        trial
        for name, unit in world.units.items()
        for schedule in ("linear", "constant")
        for trial in [Trial(name, schedule, 0.03 * unit, 256, 0)]
    ]
    laws = forecast.fit_bounds(list(world.run(trials)), world.question())
    assert laws["sgd"].distance == pytest.approx(1.0, rel=1e-4)
    assert laws["sgd"].gradient_norm == pytest.approx(1.0, rel=1e-4)
    assert laws["adam"].distance == pytest.approx(0.1**0.5, rel=1e-4)  # D^2 / lr and lr G^2 in units of a tenth
    assert laws["adam"].gradient_norm == pytest.approx(10**0.5, rel=1e-4)
    assert laws["sgd"].offset == laws["adam"].offset == pytest.approx(0.3, rel=1e-4)


def test_no_law_from_losses_that_are_none():
    world = World({"sgd": 1.0})
    assert forecast.fit_bounds([], world.question()) == {}
    made = list(world.run([Trial("sgd", "linear", 0.03, 256, 0)]))
    assert forecast.fit_bounds(made, world.question(metric="val_good")) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), r"`budget_fraction` must be a positive number\. Received: budget_fraction=0\.0"),
        ((1e-4,), r"must leave 10 steps or more\. Received: budget_fraction=0\.0001, which leaves 0 of 1024 for each of 3"),
        ((0.1, 1.0), r"`level` must be a number between 0 and 1, both excluded\. Received: level=1\.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        answer(World({"sgd": 1.0}).question(), *arguments)


def test_runs_of_which_none_finishes():
    def run(trials):
        nothing = np.array([])
        return [Outcome(each, "failed", nothing, nothing, nothing, {}, 0.0, "ValueError: no") for each in trials]

    with pytest.raises(ValueError, match=r"None of the \d+ short runs finished.* The first error: ValueError: no"):
        answer(World({"sgd": 1.0}).question(run=run), 0.3)


@nightly
def test_a_study_recommends():
    import keras

    from keras_lrsched.study import Study

    rng = np.random.default_rng(0)
    x = rng.normal(size=(320, 4)).astype("float32")
    y = x @ np.array([[1.0], [2.0], [-1.0], [0.5]], "float32")

    def build_model():
        return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])

    study = Study(
        build_model, train=(x[:256], y[:256]), validation=(x[256:], y[256:]), loss="mse", batch_size=16,
        optimizers=["adamw", "sgd"], schedules=["constant", "linear"], budget=200, seeds=2, workers=1,
    )  # fmt: skip
    found = study.recommend(budget_fraction=0.4, verbose=0)
    assert found.spent <= found.allowed == 320
    assert found.optimizer in ("adamw", "sgd")
    chosen = study.run_trials([Trial(found.optimizer, found.schedule, found.learning_rate, 200, 0)])[0]
    assert chosen.final() < 0.05 < study.run_trials([Trial("adamw", "constant", 0.001, 200, 0)])[0].final()


def test_a_range_test_of_a_problem_is_the_finders():
    """The finder ends the training by itself, and an error in it is none of a recommendation."""
    import keras

    from keras_lrsched.study.problem import Problem

    x = np.linspace(-1, 1, 64, dtype="float32")[:, None]

    def build_model():
        return keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])

    problem = Problem(build_model, train=(x, 2 * x), validation=(x, 2 * x), loss="mse", batch_size=64)
    found = recommend.range_test(problem, keras.optimizers.SGD, 1e-3, 1e2, 60)
    assert found.shows_limit
    assert 0.3 < found.last_good < 20  # it follows the rate with a delay
    assert found.learning_rates[:2] == pytest.approx([1e-3, 1e-3 * 1e5 ** (1 / 60)])

    def broken(learning_rate):
        raise ValueError("no")

    assert recommend.range_test(problem, broken, 1e-3, 1e2, 60) is None
