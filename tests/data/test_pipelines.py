"""`ScheduledBatches` as a `tf.data.Dataset` and as a Grain source: what is trained, and how a run goes on in the middle."""

import pickle

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import BatchSizeSchedule, TrainingState
from keras_lrsched.data import ScheduledBatches
from keras_lrsched.data._fit_data import batches_ahead, data_adapter
from keras_lrsched.schedules import PiecewiseConstant

FORMS = ["tf", "grain"]
every_form = pytest.mark.parametrize("form", FORMS)
N = 20


class Task(keras.Sequential):
    """As KerasHub's tasks do, maps a preprocessor over a dataset in `fit`."""

    def fit(self, x, **options):
        if type(x).__module__.startswith("tensorflow"):
            import tensorflow as tf

            return super().fit(
                x=x.map(self.preprocess, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE), **options
            )
        return super().fit(x=x.map(lambda batch: self.preprocess(*batch)), **options)

    def preprocess(self, x, y):
        return 2 * x, y


class Watch(keras.callbacks.Callback):
    """Trains on a weighted sum whose gradient is the batch: what was trained can be read off the weights."""

    def __init__(self, batches, stop=None, tells=True):
        super().__init__()
        self.batches, self.stop, self.tells = batches, stop, tells
        self.trained, self.states, self.epochs = [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(0)

    def on_train_batch_end(self, batch, logs=None):
        weights = self.model.get_weights()[0].ravel()
        self.trained.append(np.flatnonzero(weights).tolist())
        assert set(weights) <= {0.0, 2.0}
        self.model.set_weights([np.zeros((N, 1))])
        self.epochs[-1] += 1
        if self.tells:
            self.batches.trained(batch + 1)
        self.states.append(self.batches.state())
        if len(self.trained) == self.stop:
            raise InterruptedError


def make(**options):
    return ScheduledBatches(
        np.eye(N, dtype="float32"), np.zeros((N, 1), "float32"), **{"batch_size": 8, "seed": 3, **options}
    )


def form_of(batches, form):
    if form == "tf":
        pytest.importorskip("tensorflow")
        return batches.to_tf_dataset()
    pytest.importorskip("grain")
    return batches.to_grain()


MODEL = []


def model():
    if not MODEL:
        MODEL.append(Task([keras.layers.Input((N,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]))
        MODEL[0].compile(keras.optimizers.SGD(1.0), loss=SumOfOutputs(), jit_compile=False)
    MODEL[0].set_weights([np.zeros((N, 1))])
    return MODEL[0]


class SumOfOutputs(keras.losses.Loss):
    def __init__(self):
        super().__init__(reduction="sum")

    def call(self, y_true, y_pred):
        return -y_pred


def run(batches, form, epochs=1, stop=None, tells=True, **options):
    watch = Watch(batches, stop, tells)
    if stop:
        with pytest.raises(InterruptedError):
            model().fit(form_of(batches, form), epochs=epochs, verbose=0, callbacks=[watch], **options)
        MODEL.clear()  # on JAX, its weights went with the error
    else:
        model().fit(form_of(batches, form), epochs=epochs, verbose=0, callbacks=[watch], **options)
    return watch


def planned(count, **options):
    """The samples of the first batches of the stream."""
    batches = make(**options)
    return [np.flatnonzero(batches.peek(i)[0].sum(axis=0)).tolist() for i in range(count)]


@every_form
@pytest.mark.parametrize("tells", [True, False])
def test_trains_what_the_batches_are(form, tells, recwarn):
    batches = make()
    watch = run(batches, form, epochs=3, tells=tells)
    assert watch.trained == planned(9)
    assert watch.epochs == [3, 3, 3]
    assert not [warning for warning in recwarn if "ran out of data" in str(warning.message)]
    assert batches.state()["origin"] == [3 * N, 9, 8]
    assert run(batches, form, epochs=2, tells=tells).trained == planned(15)[9:]


@every_form
@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_goes_on_in_the_middle(form, stop):
    """The rest of the epoch is the next epoch, as with `fit(batches)`; also in the same process."""
    state = run(make(), form, epochs=2, stop=stop).states[-1]
    resumed = make()
    resumed.restore_state(state)
    watch = run(resumed, form, epochs=3)
    assert watch.trained == planned(stop + sum(watch.epochs))[stop:]
    assert watch.epochs == ([3 - stop % 3, 3, 3] if stop % 3 else [3, 3, 3])


@every_form
def test_goes_on_behind_the_last_batch_after_an_interruption(form):
    batches = make()
    run(batches, form, stop=2)
    assert run(batches, form).trained == planned(5)[2:]


@every_form
def test_the_state_is_that_of_fit_with_the_batches(form):
    class Plain(Watch):
        def on_train_batch_end(self, batch, logs=None):
            self.batches.trained(batch + 1)
            self.states.append(self.batches.state())

    batches = make(batch_size=PiecewiseConstant([2], [3, 7]), steps_per_epoch=4)
    plain = Plain(batches)
    keras.Sequential.fit(model(), batches, epochs=2, verbose=0, callbacks=[plain])
    batches = make(batch_size=PiecewiseConstant([2], [3, 7]), steps_per_epoch=4)
    watch = run(batches, form, epochs=2)
    assert watch.states == plain.states
    assert watch.trained == planned(8, batch_size=PiecewiseConstant([2], [3, 7]))


@every_form
def test_looks_at_the_data_change_nothing(form):
    batches = make()
    data = form_of(batches, form)
    first = [next(iter(data)) for _ in range(2)]
    np.testing.assert_array_equal(*[keras.ops.convert_to_numpy(x) for x, _ in first])
    assert run(batches, form).trained == planned(3)
    plain = keras.Sequential([keras.layers.Input((N,)), keras.layers.Dense(1)])
    plain.compile("sgd", loss="mse")
    plain.evaluate(data, verbose=0)
    assert run(batches, form).trained == planned(6)[3:]


@every_form
def test_own_loops(form):
    batches = make()
    data = form_of(batches, form)
    for epoch in range(2):
        read = [np.flatnonzero(np.asarray(x).sum(axis=0)).tolist() for x, _ in data]
        assert read == planned(6)[3 * epoch :][:3]
    assert batches.state()["origin"] == [2 * N, 6, 8]
    next(iter(data))
    batches.trained(1)
    assert batches.state()["left"] == 2


def test_grain_iterators_have_a_state():
    data = form_of(make(), "grain").map(lambda batch: batch[0])
    iterator = iter(data)
    next(iterator)
    state = iterator.get_state()
    rest = [next(iterator) for _ in range(2)]
    again = iter(form_of(make(), "grain").map(lambda batch: batch[0]))
    again.set_state(state)
    np.testing.assert_array_equal(np.concatenate([next(again) for _ in range(2)]), np.concatenate(rest))
    with pytest.raises(StopIteration):
        next(again)


def test_batches_are_not_taken_for_an_array():
    tf = pytest.importorskip("tensorflow")
    with pytest.raises(ValueError, match=r"give `to_tf_dataset\(\)` or `to_grain\(\)`"):
        tf.data.Dataset.from_tensor_slices(make())
    with pytest.raises(ValueError, match="Batches are no array"):
        keras.ops.convert_to_numpy(make())


def test_other_processes_are_refused():
    with pytest.raises(ValueError, match="cannot be read in another process"):
        pickle.dumps(form_of(make(), "grain"))


def test_epochs_that_cannot_be_counted():
    tf = pytest.importorskip("tensorflow")
    with pytest.raises(ValueError, match=r"give `steps_per_epoch` to ScheduledBatches.*Received: steps_per_epoch=None"):
        make(batch_size=lambda t: 4).to_tf_dataset()
    errors = (ValueError, tf.errors.OpError)
    with pytest.raises(errors, match=r"one by one, by `map` and `prefetch`. Received: None batches instead of 3"):
        keras.Sequential.fit(model(), make().to_tf_dataset().unbatch().batch(4), verbose=0)
    MODEL.clear()
    with pytest.raises(errors, match=r"not to `fit`.*Received: steps_per_epoch=2"):
        keras.Sequential.fit(model(), make().to_tf_dataset(), steps_per_epoch=2, verbose=0)
    MODEL.clear()
    batches = make()
    data = batches.to_tf_dataset()
    batches.set_batch_size(4)
    with pytest.raises(errors, match=r"has changed since the dataset was made.*Received: 5 instead of 3"):
        keras.Sequential.fit(model(), data, verbose=0)
    MODEL.clear()


@pytest.mark.parametrize("arrays", [([1.0 * np.arange(6)],), ({"a": np.arange(6)}, np.arange(6), np.ones(6))])
def test_structures(arrays):
    pytest.importorskip("tensorflow")
    batches = ScheduledBatches(*arrays, batch_size=4)
    batch, spec = batches[0], batches.to_tf_dataset().element_spec
    keras.tree.assert_same_structure(keras.tree.lists_to_tuples(batch), spec)
    dtypes = [each.dtype.name for each in keras.tree.flatten(spec)]
    assert dtypes == [keras.backend.standardize_dtype(each.dtype) for each in keras.tree.flatten(batch)]


class Kill(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_train_batch_end(self, batch, logs=None):
        self.after -= 1
        if not self.after:
            raise InterruptedError

    def state(self):
        return {}

    def restore_state(self, state):
        pass


def script(form, path=None, kill=0):
    """A program that trains a task and saves its state; its weights at the end."""
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(1)
    batches = ScheduledBatches(random.normal(size=(N, 2)), random.normal(size=(N, 1)), batch_size=8, seed=4)
    task = Task([keras.layers.Input((2,)), keras.layers.Dropout(0.5, seed=2), keras.layers.Dense(1)])
    task.compile("adam", "mse", jit_compile=False)
    state = [TrainingState(path, every=1, data=batches)] if path else []
    task.fit(form_of(batches, form), epochs=3, verbose=0, shuffle=False, callbacks=[Kill(kill), *state])
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in [*task.variables, *task.optimizer.variables]]


@every_form
def test_resumes_bit_by_bit(form, tmp_path):
    for kill in (2, 3, 1):  # in the first epoch, in the second, and where the second has ended
        with pytest.raises(InterruptedError):
            script(form, tmp_path / "state", kill)
    resumed = script(form, tmp_path / "state")
    for one, other in zip(resumed, script(form), strict=True):
        np.testing.assert_array_equal(one, other)


def test_callbacks_that_change_sizes_are_refused_and_those_that_try_rates_look_ahead():
    batches = make(batch_size=4)
    data = form_of(batches, "tf")
    with pytest.raises(
        ValueError, match="BatchSizeSchedule needs data whose batch size can change: give `fit` ScheduledBatches"
    ):
        keras.Sequential.fit(model(), data, verbose=0, callbacks=[BatchSizeSchedule(4)])
    MODEL.clear()
    ahead = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch in (0, 2):
                x, _ = next(batches_ahead(data_adapter("Look")))
                ahead.append(np.flatnonzero(np.asarray(x).sum(axis=0)).tolist())

    watch = Watch(batches)
    model().fit(data, epochs=2, verbose=0, callbacks=[Look(), watch])
    assert watch.trained == planned(10, batch_size=4)
    assert ahead == [watch.trained[i] for i in (0, 2, 5, 7)]
