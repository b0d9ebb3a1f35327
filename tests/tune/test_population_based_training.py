"""All but the processes, in this one: the rule, members that are copied, and the replay."""

import contextlib
import fcntl
import json

import keras
import numpy as np
import pytest

from keras_lrsched.data import ScheduledBatches
from keras_lrsched.schedules import Tabulated
from keras_lrsched.tune import Policy, PopulationBasedTraining, population_based_training
from keras_lrsched.tune._member import Member, Worker
from keras_lrsched.tune._progress import save_outcome
from tests.nightly import nightly

RATE, MOMENTUM = "optimizer.learning_rate", "optimizer.momentum"
SETTINGS = {RATE: (1e-3, 1.0), MOMENTUM: [0.5, 0.9, 0.95]}
BACKEND = keras.backend.backend()


def make():
    """A line, with a little dropout: copies must go on in random numbers and in data, too.

    On TensorFlow it runs eagerly: a member has four steps, and is made anew in each round.
    """
    x = np.random.default_rng(0).normal(size=(24, 2)).astype("float32")
    y = x @ np.array([[1.0], [-2.0]], "float32")
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dropout(0.1), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss="mse", run_eagerly=BACKEND == "tensorflow")
    return model, {"x": ScheduledBatches(x[:16], y[:16], batch_size=4, seed=0), "validation_data": (x[16:], y[16:])}


def in_this_process(make=make, epochs=1, metric="val_loss", mode="min"):
    worker = Worker(make, epochs, metric, mode, BACKEND)
    return lambda jobs: [worker.train(*job) for job in jobs]


def test_size_of_the_quantiles():
    """Those of Ray Tune: the number of members times the fraction, rounded up, at most half of them."""

    def size(members, fraction):
        search = PopulationBasedTraining(SETTINGS, quantile_fraction=fraction)
        return len(search.exploit(list(range(members)), np.random.default_rng(0)))

    assert [size(8, 0.25), size(3, 0.25), size(2, 0.25), size(5, 0.5), size(9, 0.25)] == [2, 1, 1, 2, 3]


def test_the_worst_become_the_best():
    search = PopulationBasedTraining(SETTINGS, quantile_fraction=0.25)
    seen = set()
    for seed in range(20):
        pairs = search.exploit([0.3, -np.inf, 5.0, 0.1, 1.0, 4.0, 2.0, 3.0], np.random.default_rng(seed))
        assert [member for member, _ in pairs] == [1, 3]
        seen |= {source for _, source in pairs}
    assert seen == {2, 5}


def test_explore():
    search = PopulationBasedTraining(SETTINGS)
    numbers = np.random.default_rng(0)
    moved = [search.explore({RATE: 0.1, MOMENTUM: 0.9}, numbers) for _ in range(400)]
    rates = np.array([each[RATE] for each in moved])
    up, down = np.isclose(rates, 0.12), np.isclose(rates, 0.08)
    assert up.sum() == pytest.approx(150, abs=40)
    assert down.sum() == pytest.approx(150, abs=40)
    assert (~up & ~down).sum() == pytest.approx(100, abs=40)
    assert rates.min() >= 1e-3
    assert rates.max() <= 1.0
    assert {each[MOMENTUM] for each in moved} == {0.5, 0.9, 0.95}


def test_explore_stays_within():
    search = PopulationBasedTraining(SETTINGS, resample_probability=0.0, perturbation_factors=(4.0, 4.0))
    for seed in range(10):
        moved = search.explore({RATE: 0.5, MOMENTUM: 0.95}, np.random.default_rng(seed))
        assert moved[RATE] == 1.0
        assert moved[MOMENTUM] in (0.9, 0.95)


def test_explore_as_ray_does():
    pbt = pytest.importorskip("ray.tune.schedulers.pbt", reason="needs Ray Tune")
    values = [1.0, 2.0, 3.0, 4.0]
    search, numbers = PopulationBasedTraining({"a": values}, resample_probability=0.0), np.random.default_rng(0)
    ours, theirs = (
        [{move({"a": value})["a"] for _ in range(40)} for value in values]
        for move in (
            lambda settings: search.explore(settings, numbers),
            lambda settings: pbt._explore(settings, {"a": values}, 0.0, (1.2, 0.8), None)[0],
        )
    )
    assert ours == theirs


def test_drawn_evenly_over_the_logarithm():
    search = PopulationBasedTraining({RATE: (1e-4, 1.0), "loss.label_smoothing": (0.0, 0.2)})
    numbers = np.random.default_rng(0)
    drawn = [search.draw(numbers) for _ in range(2000)]
    rates = np.log10([each[RATE] for each in drawn])
    np.testing.assert_allclose(np.histogram(rates, bins=4, range=(-4, 0))[0], 500, atol=80)
    smoothing = [each["loss.label_smoothing"] for each in drawn]
    np.testing.assert_allclose(np.histogram(smoothing, bins=4, range=(0, 0.2))[0], 500, atol=80)


@nightly
def test_search(tmp_path):
    search = PopulationBasedTraining(SETTINGS, population=4, rounds=3, seed=0)
    found = search.evolve(in_this_process(), tmp_path)
    assert found.policy.ends == [4, 8, 12]
    assert np.shape(found.values) == (3, 4)
    assert found.value == min(found.values[-1])
    assert [round_ for round_, _, _ in found.copies] == [0, 1]
    for round_, member, source in found.copies:
        assert found.values[round_][member] == max(found.values[round_])
        assert found.values[round_][source] == min(found.values[round_])
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"policy.json", "best.state", f"{RATE}.json", f"{MOMENTUM}.json"}
    np.testing.assert_array_equal(
        Tabulated.load(tmp_path / f"{RATE}.json").values(12), found.policy.schedules()[RATE].values(12)
    )

    keras.utils.set_random_seed(found.policy.seed)
    model, fit = make()
    history = model.fit(**fit, epochs=3, verbose=0, callbacks=found.policy.callbacks()).history
    assert history["val_loss"][-1] == pytest.approx(found.value, rel=1e-4)


@nightly
def test_the_same_seed_finds_the_same(tmp_path):
    search = PopulationBasedTraining(SETTINGS, population=2, rounds=2, seed=3)
    first, second = (search.evolve(in_this_process(), tmp_path / name) for name in ("a", "b"))
    assert first.policy.settings == second.policy.settings
    np.testing.assert_allclose(first.values, second.values, rtol=1e-5)


def test_a_copy_trains_with_its_own_rate(tmp_path):
    """The learning rate is a variable of the optimizer, and so in the file that a copy begins from."""
    options = {"epochs": 1, "metric": "val_loss", "mode": "min"}
    for name in ("donor", "copy"):
        (tmp_path / name).mkdir()
    donor = Member(make, 0, tmp_path / "donor", **options)
    donor.train({RATE: 0.1, MOMENTUM: 0.5})
    donor.save(tmp_path)
    copy = Member(make, 1, tmp_path / "copy", **options)
    copy.load(tmp_path)
    copy.train({RATE: 0.0, MOMENTUM: 0.0})
    for ours, theirs in zip(copy.model.get_weights(), donor.model.get_weights(), strict=True):
        if ours.dtype == np.float32:  # and not the seed of the dropout
            np.testing.assert_array_equal(ours, theirs)
    assert copy.policy.settings == [{RATE: 0.1, MOMENTUM: 0.5}, {RATE: 0.0, MOMENTUM: 0.0}]
    assert (copy.policy.ends, copy.policy.seed) == ([4, 8], 0)


def test_a_member_without_a_number_is_the_worst_and_recovers(tmp_path):
    search = PopulationBasedTraining({RATE: [0.01, 1e30]}, population=2, rounds=2, resample_probability=0.0)
    drawn = iter([{RATE: 0.01}, {RATE: 1e30}])
    search.draw = lambda numbers: next(drawn)
    found = search.evolve(in_this_process(), tmp_path)
    assert not np.isfinite(found.values[0][1])
    assert found.copies == [[0, 1, 0]]
    assert found.policy.settings[0] == {RATE: 0.01}


def test_mode_max(tmp_path):
    outcome = Worker(make, 1, "val_loss", "max", BACKEND).train(0, {RATE: 0.1}, None, tmp_path)
    assert outcome[0] == outcome[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": {}}, "`settings` must be a non-empty dictionary"),
        ({"settings": {RATE: 0.1}}, "a tuple of two numbers or a list of values. Received: optimizer.learning_rate=0.1"),
        ({"settings": {RATE: (1.0, 0.1)}}, "must be strictly increasing. Received: optimizer.learning_rate="),
        ({"settings": {RATE: (-1.0, 0.1)}}, "must be a non-negative number. Received: optimizer.learning_rate=-1.0"),
        ({"settings": {RATE: []}}, "must give values to choose from"),
        ({"mode": "best"}, "Received: mode='best'"),
        ({"population": 1}, "`population` must be at least 2. Received: population=1"),
        ({"rounds": 0}, "Received: rounds=0"),
        ({"epochs": 0}, "Received: epochs=0"),
        ({"quantile_fraction": 0.6}, "must be at most 0.5. Received: quantile_fraction=0.6"),
        ({"resample_probability": 2}, "Received: resample_probability=2"),
        ({"perturbation_factors": (1.2,)}, "must be two"),
        ({"seed": -1}, "Received: seed=-1"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        PopulationBasedTraining(**{"settings": SETTINGS, **options})


def test_folder_in_use(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(ValueError, match=r"`folder` must be empty, or one in which this search was .* with mine$"):
        PopulationBasedTraining(SETTINGS).search(make, tmp_path)
    (tmp_path / "policy.json").write_text("")
    with pytest.raises(ValueError, match=r"The folder holds a search that is finished: read it with `Policy.load`"):
        PopulationBasedTraining(SETTINGS).search(make, tmp_path)


class Jobs:
    """Makes up what `Worker.train` does. The metric of a member is its seed, and is no number if it has `diverged`.

    `interrupt`: The number of a job, counted from 0, in the place of which Ctrl-C comes.
    """

    def __init__(self, interrupt=None, diverged=(), written=True):
        self.interrupt, self.diverged, self.written, self.done = interrupt, diverged, written, []

    def __call__(self, jobs):
        return [self.train(*job) for job in jobs]

    def train(self, seed, settings, source, place):
        if len(self.done) == self.interrupt:
            raise KeyboardInterrupt
        self.done.append((place.parent.name, place.name))
        outcome = (np.nan, -np.inf) if seed in self.diverged else (float(seed), -float(seed))
        if self.written:
            policy = Policy([settings], [1], seed)
            if source is not None:
                policy = Policy.load(source / "policy.json")
                policy = policy.with_piece(settings, policy.ends[-1] + 1)
            place.mkdir(parents=True)
            policy.save(place / "policy.json")
            (place / "member.state").write_text("weights")
            save_outcome(place, outcome)
        return outcome


@pytest.mark.parametrize("interrupt", [0, 2, 4, 5, 11])
def test_an_interrupted_search_goes_on(interrupt, tmp_path):
    """It finds what it would have found, and no member trains a round twice."""
    search = PopulationBasedTraining(SETTINGS, population=4, rounds=3)
    whole = Jobs()
    expected = search.evolve(whole, tmp_path / "whole")
    first, second = Jobs(interrupt), Jobs()
    with pytest.raises(KeyboardInterrupt):
        search.evolve(first, tmp_path / "found")
    found = search.evolve(second, tmp_path / "found")
    assert first.done + second.done == whole.done
    assert (found.values, found.copies, found.value) == (expected.values, expected.copies, expected.value)
    assert found.policy.settings == expected.policy.settings
    assert {path.name for path in (tmp_path / "found").iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_what_a_member_has_left_of_a_round_is_removed(tmp_path):
    search = PopulationBasedTraining(SETTINGS, population=2, rounds=1)
    with pytest.raises(KeyboardInterrupt):
        search.evolve(Jobs(1), tmp_path)
    (tmp_path / "rounds/0/1").mkdir()
    (tmp_path / "rounds/0/1/member.state").write_text("half")
    search.evolve(Jobs(), tmp_path)
    assert (tmp_path / "best.state").read_text() == "weights"


def test_goes_on_only_as_it_began(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        PopulationBasedTraining(SETTINGS, population=4).evolve(Jobs(5), tmp_path)
    other = PopulationBasedTraining(SETTINGS, population=4, rounds=3, seed=1)
    with pytest.raises(ValueError, match=r"a search with other arguments.*: rounds=3, there rounds=10; seed=1, there"):
        other.evolve(Jobs(), tmp_path)
    (tmp_path / "search.json").write_text('{"search": 3}')
    with pytest.raises(ValueError, match="The file holds no search"):
        other.evolve(Jobs(), tmp_path)


def test_a_search_in_which_all_diverge_is_an_error(tmp_path):
    search = PopulationBasedTraining(SETTINGS, population=2, rounds=3)
    message = r"All 2 members have diverged in round 0, .*narrow the ranges in `settings`.* Received: val_loss=\[nan, nan\]"
    with pytest.raises(ValueError, match=message):
        search.evolve(Jobs(diverged=(0, 1)), tmp_path)
    assert not (tmp_path / "policy.json").exists()


def test_a_folder_that_workers_do_not_share(tmp_path):
    search = PopulationBasedTraining(SETTINGS, population=2, rounds=3)
    with pytest.raises(ValueError, match=r"one that the program and all workers share: .*rounds.0.0 was written by"):
        search.evolve(Jobs(written=False), tmp_path)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(population_based_training, "pool", lambda *arguments: contextlib.nullcontext(Here()))
    search = PopulationBasedTraining(SETTINGS, population=2, rounds=1)
    assert search.search(make, "~/found").state == tmp_path / "found" / "best.state"
    assert Policy.load("~/found/policy.json").ends == [1]
    assert not (tmp_path / "found" / "search.json.lock").exists()


class Here:
    """A pool that has `Jobs` done."""

    def map(self, call, jobs):
        return Jobs()(jobs)


def test_another_process_that_searches_in_the_folder(tmp_path):
    with (tmp_path / "search.json.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another process"):
            PopulationBasedTraining(SETTINGS).search(make, tmp_path)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: None, "`make` must return a compiled model and a dictionary"),
        (lambda: (keras.Sequential([keras.layers.Dense(1)]), {}), "`make` must return a compiled model"),
        (lambda: (make()[0], {**make()[1], "epochs": 3}), "leave `epochs` out"),
    ],
)
def test_bad_make(broken, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Member(broken, 0, tmp_path, 1, "val_loss", "min")


def test_unknown_metric(tmp_path):
    with pytest.raises(ValueError, match="one that `fit` reports: loss, val_loss"):
        Member(make, 0, tmp_path, 1, "accuracy", "min").train({RATE: 0.1})


def test_another_backend():
    with pytest.raises(ValueError, match=f"Received: '{BACKEND}' on a worker, 'other' in the program"):
        Worker(make, 1, "val_loss", "min", "other")


def test_without_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"keras-lrsched\[ray\]"):
        PopulationBasedTraining(SETTINGS).search(make, tmp_path)


def test_bad_function(tmp_path):
    with pytest.raises(ValueError, match="`make` must be a function"):
        PopulationBasedTraining(SETTINGS).search(None, tmp_path)


def test_files_are_data(tmp_path):
    outcome = Worker(make, 1, "val_loss", "min", BACKEND).train(0, {RATE: 0.1}, None, tmp_path)
    assert json.loads((tmp_path / "outcome.json").read_text()) == list(outcome)
    assert json.loads((tmp_path / "policy.json").read_text()) == {"settings": [{RATE: 0.1}], "ends": [4], "seed": 0}
