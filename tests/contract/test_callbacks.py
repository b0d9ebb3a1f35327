"""The contract of every callback, on every backend. A new one joins by a `Case` in `callback_cases`."""

import copy
import gc
import inspect
import pickle
import time

import keras
import numpy as np
import pytest

from keras_lrsched import callbacks
from keras_lrsched._core import plain
from keras_lrsched.callbacks import TrainingState
from keras_lrsched.data import ScheduledBatches
from tests.nightly import nightly, some

from .backends import JIT
from .callback_cases import BASES, CASES, SAVES_THE_OTHERS

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(24, 3)).astype("float32"), RANDOM.normal(size=(24, 1)).astype("float32")
X2 = {"a": X[:, :2], "b": X[:, 2:]}
EPOCHS = 3

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

OF_EACH_KIND = ("AdaptiveBatchSize", "HypergradientLearningRate", "LossRecorder", "StabilityMonitor", "WeightAveraging ema")
"""Of each kind one: with other batch sizes, with the gradients, with values from outside, with its own loss, with weights.
Of the others, what trains once more is nightly, and what is compiled where that is one of two ways is slow."""

one_of_each_kind = pytest.mark.parametrize(
    "case", some(CASES, chosen=lambda case: case.name in OF_EACH_KIND), ids=lambda case: case.name
)


def marks(case, jit):
    of_each_kind = case.name in OF_EACH_KIND
    if jit and False in JIT:
        return nightly if of_each_kind else pytest.mark.slow
    return () if of_each_kind else nightly


every_case_and_mode = pytest.mark.parametrize(
    ("case", "jit"),
    [pytest.param(case, jit, marks=marks(case, jit), id=f"{jit}-{case.name}") for jit in JIT for case in CASES],
)


def make_model(case, jit=False, metrics=("mae",), several_inputs=False, built=True):
    """TensorFlow traces the step twice if the optimizer is built within it; so it does in only one of the tests."""
    keras.utils.set_random_seed(1)
    if several_inputs:
        inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((1,), name="b")}
        hidden = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
    else:
        hidden = inputs = keras.Input((3,))
    hidden = keras.layers.Dropout(0.2, seed=3)(keras.layers.Dense(4, "tanh")(hidden))
    if case.has_attention:
        pairs = keras.layers.Reshape((2, 2))(hidden)
        hidden = keras.layers.Flatten()(keras.layers.MultiHeadAttention(2, 2)(pairs, pairs))
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    optimizer = case.optimizer(**{"learning_rate": 0.05, "momentum": 0.9, **case.options})
    model.compile(optimizer, loss="mse", metrics=list(metrics), jit_compile=jit)
    if built:
        model.optimizer.build(model.trainable_variables)
    return model


def fit(model, *given, x=X):
    batches = ScheduledBatches(x, Y, batch_size=4, seed=2)
    model.fit(batches, epochs=EPOCHS, verbose=0, callbacks=list(given))
    return [np.array(variable.numpy()) for variable in [*model.variables, *model.optimizer.variables]]


RUNS = {}


def undisturbed(case, jit=JIT[0]):
    """A callback after its run, a copy of it from before, and the weights at the end; one run for all tests."""
    if (case.name, jit) not in RUNS:
        callback = case.build(sample())
        copied = pickle.loads(pickle.dumps(copy.deepcopy(callback)))
        RUNS[case.name, jit] = callback, copied, fit(make_model(case, jit), callback)
    return RUNS[case.name, jit]


class Interrupts(keras.callbacks.Callback):
    """Ends a run before the batch number `after` of it."""

    def __init__(self, after=None):
        super().__init__()
        self.left = after

    def on_train_batch_begin(self, batch, logs=None):
        if self.left == 0:
            raise InterruptedError
        self.left = self.left and self.left - 1

    def state(self):
        return {}

    def restore_state(self, state):
        """Restore nothing: the steps left to run do not depend on how often it was interrupted."""


def let_go_of_data():
    """Frees what an interrupted run has left, when its threads have come to rest.

    TensorFlow's iterators wait for threads that run Python, with the interpreter's lock in hand: freed in the middle of
    something else, they may wait forever.
    """
    time.sleep(0.2)
    gc.collect()


def sample(several_inputs=False):
    return ({name: x[:8] for name, x in X2.items()} if several_inputs else X[:8]), Y[:8]


def test_no_callback_is_forgotten():
    exported = {getattr(callbacks, name) for name in callbacks.__all__}
    exported = {it for it in exported if inspect.isclass(it) and issubclass(it, keras.callbacks.Callback)}
    built = {type(case.build(sample())) for case in CASES}
    assert built == exported - {*BASES, *SAVES_THE_OTHERS}
    assert {cls.__name__ for cls in built} == {case.name.split()[0] for case in CASES}


@every_case_and_mode
def test_resumes(case, jit, tmp_path):
    _, _, expected = undisturbed(case, jit)
    assert all(np.all(np.isfinite(values)) for values in expected)
    for after in (7, 5) if case.name in OF_EACH_KIND and not (jit and False in JIT) else (7,):  # each run is traced
        state = TrainingState(tmp_path / "state", every=2)
        with pytest.raises(InterruptedError):
            fit(make_model(case, jit), Interrupts(after), case.build(sample()), state)
        let_go_of_data()
    state = TrainingState(tmp_path / "state", every=2)
    resumed = fit(make_model(case, jit), Interrupts(), case.build(sample()), state)
    for left, right in zip(expected, resumed, strict=True):
        np.testing.assert_array_equal(left, right)


@one_of_each_kind
def test_state(case):
    callback, _, _ = undisturbed(case)
    if not hasattr(callback, "state"):
        return
    state = callback.state()
    assert plain.is_plain(state)
    other = case.build(sample())
    other.set_model(make_model(case))
    other.restore_state(copy.deepcopy(state))
    keras.tree.map_structure(np.testing.assert_array_equal, state, other.state())


@one_of_each_kind
def test_copy(case):
    """KerasTuner copies callbacks for each trial; what the first has become, a copy from before does not see."""
    _, copied, expected = undisturbed(case)
    for left, right in zip(fit(make_model(case, JIT[0]), copied), expected, strict=True):
        np.testing.assert_array_equal(left, right)


@one_of_each_kind
def test_begins_anew_for_another_model(case):
    """Lists of callbacks are made once and used for all folds."""
    used, _, expected = undisturbed(case)
    for left, right in zip(fit(make_model(case, JIT[0]), used), expected, strict=True):
        np.testing.assert_array_equal(left, right)


@one_of_each_kind
def test_copy_after_a_run(case):
    """As a tuner does that reuses its callbacks."""
    callback, _, _ = undisturbed(case)
    for copied in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        if hasattr(callback, "state"):
            keras.tree.map_structure(np.testing.assert_array_equal, callback.state(), copied.state())


@one_of_each_kind
def test_several_inputs_and_no_metrics(case):
    model = make_model(case, metrics=(), several_inputs=True, built=False)
    values = fit(model, case.build(sample(several_inputs=True)), x=X2)
    assert all(np.all(np.isfinite(value)) for value in values)
