"""The stream of batches: what is in them, how their size changes in `fit`, and how a run goes on in the middle."""

import copy
import itertools
import pickle

import keras
import numpy as np
import pytest

from keras_lrsched.data import ScheduledBatches
from keras_lrsched.data.scheduled_batches import LEAD
from keras_lrsched.schedules import BatchSizeWarmup, PiecewiseConstant

X = np.arange(20.0)


class Watch(keras.callbacks.Callback):
    """Trains on a weighted sum whose gradient is the batch: what was trained can be read off the weights."""

    def __init__(self, batches, at_batch=None, at_epoch=None, held=False):
        super().__init__()
        self.batches, self.at_batch, self.at_epoch, self.held = batches, at_batch, at_epoch, held
        self.trained, self.sizes, self.epochs = [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(0)
        if self.held:
            self.batches.limit_prefetch()
        if self.at_epoch:
            self.at_epoch(epoch)

    def on_train_batch_end(self, batch, logs=None):
        self.batches.trained(batch + 1)
        self.sizes.append(self.batches.size_of(batch))
        sums = self.model.get_weights()[0].ravel()
        self.trained.append(sums.tolist())
        self.model.set_weights([np.zeros((20, 1))])
        self.epochs[-1] += 1
        if self.at_batch:
            self.at_batch(len(self.sizes))


def rows(array):
    """One-hot rows, so that the weights show which samples a batch had."""
    return np.eye(20, dtype="float32")[np.asarray(array, int)]


MODEL = []


def sum_model():
    """One for all tests."""
    if not MODEL:
        layer = keras.layers.Dense(1, use_bias=False)
        MODEL.append(keras.Sequential([keras.layers.Input((20,)), layer]))
        MODEL[0].compile(keras.optimizers.SGD(1.0), loss=lambda y, y_pred: -y_pred)
    MODEL[0].set_weights([np.zeros((20, 1))])
    return MODEL[0]


def run(batches, epochs=1, **options):
    watch = Watch(batches, **options)
    try:
        sum_model().fit(batches, epochs=epochs, verbose=0, callbacks=[watch])
    except Exception:
        MODEL.clear()  # on JAX, its weights went with the error
        raise
    return watch


def samples(watch):
    """The samples of each batch that was trained."""
    return [np.flatnonzero(weights).tolist() for weights in watch.trained]


def make(**options):
    return ScheduledBatches(rows(X), X[:, None], **{"batch_size": 8, **options})


def test_a_pass_in_order():
    batches = ScheduledBatches(X, batch_size=8, shuffle=False)
    assert [x.tolist() for x in batches] == [X[:8].tolist(), X[8:16].tolist(), X[16:].tolist()]
    with pytest.raises(IndexError, match=r"has 3 batches. Received: i=3"):
        batches[3]


def test_structures_and_weights():
    x = {"a": X, "b": [X[:, None], 2 * X]}
    batches = ScheduledBatches(x, (X, -X), sample_weight=X + 1, batch_size=4, seed=1)
    x, (y, minus_y), (weight, same_weight) = batches[1]
    np.testing.assert_array_equal(x["a"], x["b"][0][:, 0])
    np.testing.assert_array_equal(2 * x["a"], x["b"][1])
    np.testing.assert_array_equal(y, x["a"])
    np.testing.assert_array_equal(minus_y, -x["a"])
    np.testing.assert_array_equal(weight, x["a"] + 1)
    np.testing.assert_array_equal(same_weight, weight)
    assert x["a"].dtype == "float32"


def test_each_pass_has_an_order_that_only_the_seed_decides():
    watch, again, other = run(make(seed=5), 3), run(make(seed=5), 3), run(make(seed=6), 3)
    assert samples(watch) == samples(again) != samples(other)
    for epoch in range(3):
        part = samples(watch)[3 * epoch : 3 * epoch + 3]
        assert sorted(itertools.chain(*part)) == list(range(20))
        order = np.random.default_rng([5, epoch]).permutation(20)
        assert part[0] == sorted(order[:8])
    assert samples(watch)[:3] != samples(watch)[3:6]


def test_goes_on_in_the_next_fit_with_the_next_pass():
    batches = make()
    first, second = run(batches, 1), run(batches, 1)
    assert samples(first) + samples(second) == samples(run(make(), 2))


def test_size_by_a_schedule(recwarn):
    batches = make(batch_size=BatchSizeWarmup([5, 10, 20], boundaries=[4, 6]))
    watch = run(batches, 4)
    assert watch.sizes == [5, 5, 5, 5, 10, 10, 20, 20]
    assert watch.epochs == [4, 2, 1, 1]
    assert not [warning for warning in recwarn if "ran out of data" in str(warning.message)]
    assert run(make(batch_size=lambda t: 20 if t < 1 else 10), 3).epochs == [1, 2, 2]  # epochs may grow as well
    assert run(make(batch_size=PiecewiseConstant([3], [8, 5.2])), 2).sizes == [8, 8, 4, 5, 5, 5, 5]


def test_epochs_of_a_number_of_steps():
    batches = make(batch_size=5, steps_per_epoch=3)
    watch = run(batches, 4)
    assert watch.epochs == [3] * 4
    assert samples(watch) == samples(run(make(batch_size=5), 3))
    with pytest.raises(ValueError, match=r"not to `fit`.*Received: steps_per_epoch=2"):
        sum_model().fit(make(), steps_per_epoch=2, verbose=0)
    MODEL.clear()


def test_set_between_epochs(recwarn):
    batches = make()
    sizes = {0: 10, 1: 20, 2: 4}
    watch = run(batches, 4, at_epoch=lambda epoch: batches.set_batch_size(sizes.get(epoch, 4)))
    assert watch.epochs == [2, 1, 5, 5]
    assert watch.sizes == [10, 10, 20] + [4] * 10
    assert not [warning for warning in recwarn if "ran out of data" in str(warning.message)]


def test_set_within_an_epoch_takes_effect_in_the_next():
    batches = make()
    watch = run(batches, 2, at_batch=lambda step: batches.set_batch_size(20))
    assert watch.sizes == [8, 8, 4, 20]


def test_set_within_an_epoch_that_is_held_back():
    batches = make(batch_size=2)
    watch = run(batches, 2, held=True, at_batch=lambda step: batches.set_batch_size(5) if step == 3 else None)
    assert watch.sizes == [2] * (3 + LEAD) + [5, 1, 5] + [5, 5, 5, 5]
    assert watch.epochs == [10, 4]
    assert batches.batch_size == 5


def test_rewinds():
    marks = []

    def at_batch(step):
        if step == 2:
            marks.append(batches.mark())
        if step in (3, 9):
            batches.rewind(marks[0], after=5)

    batches = make(batch_size=2)
    watch = run(batches, 3, held=True, at_batch=at_batch)
    straight = samples(run(make(batch_size=2), 1))
    assert samples(watch) == straight[:8] + straight[2:8] + straight[2:] + samples(run(make(batch_size=2), 2))[10:18]
    batches.rewind([0, 0])
    assert samples(run(batches)) == straight
    with pytest.raises(ValueError, match=r"be at least 4.*Received: after=3"):
        run(batches, held=True, at_batch=lambda step: batches.rewind(marks[0], after=3))


def test_goes_on_behind_the_last_batch_after_an_interruption():
    def stop(step):
        if step == 2:
            raise InterruptedError

    batches = make()
    with pytest.raises(InterruptedError):
        run(batches, held=True, at_batch=stop)
    assert samples(run(batches))[0] == samples(run(make()))[2]


@pytest.mark.parametrize("done", [1, 4, 9, 10, 11, 20])
def test_goes_on_in_the_middle(done):
    states = []

    def at_batch(batches):
        def work(step):
            if step % 3 == 0:
                batches.set_batch_size(1 + step % 5)
            if step == done:
                states.append(batches.state())

        return work

    batches = make(batch_size=2)
    whole = run(batches, 3, held=True, at_batch=at_batch(batches))
    again = make(batch_size=2)
    again.restore_state(states[0])
    offset = done
    changes = lambda step: again.set_batch_size(1 + (step + offset) % 5) if (step + offset) % 3 == 0 else None  # noqa: E731
    rest = run(again, 3, held=True, at_batch=changes)
    missing = len(whole.sizes) - done
    assert rest.sizes[:missing] == whole.sizes[done:]
    assert samples(rest)[:missing] == samples(whole)[done:]


def test_refuses_a_place_in_other_data():
    with pytest.raises(ValueError, match=r"other data, with seed=0. Received: seed=1"):
        make(seed=1).restore_state(make().state())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"batch_size": 21}, "at most the number of samples, 20. Received: batch_size=21"),
        ({"batch_size": lambda t: 21}, "at most the number of samples, 20. Received: batch_size=21"),
        ({"seed": -1}, "Received: seed=-1"),
        ({"steps_per_epoch": -1}, "Received: steps_per_epoch=-1"),
        ({"sample_weight": X[:3]}, r"same number of samples.*Received: shapes \[\(20,\), \(20,\), \(3,\)\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScheduledBatches(X, X, **arguments)


def test_refuses_data_without_samples_and_a_size_that_is_too_large_later():
    with pytest.raises(ValueError, match=r"at least one. Received: shapes \[\(0,\)\]"):
        ScheduledBatches(np.zeros(0))
    with pytest.raises(ValueError, match=r"Received: batch_size=21"):
        make().set_batch_size(21)
    with pytest.raises(ValueError, match=r"follows a schedule"):
        make(batch_size=lambda t: 4).set_batch_size(5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copy", "pickle"])
def test_copies_and_pickles(copied):
    """Before and after a `fit`; a copy goes on by itself."""
    batches = copied(make(batch_size=BatchSizeWarmup([5, 10, 20], boundaries=[4, 6])))
    first = run(batches, 2)
    again = copied(batches)
    assert samples(run(batches, 2)) == samples(run(again, 2))
    assert first.sizes == [5, 5, 5, 5, 10, 10]
    np.testing.assert_array_equal(copied(make())[0][0], make()[0][0])
