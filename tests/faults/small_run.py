"""A small run whose process may be killed; it sends a message when it begins to write a checkpoint and when it is done."""

import signal
import sys

import keras
import numpy as np

from keras_lrsched._core import checkpoint_file
from keras_lrsched.callbacks import LossRecorder, TrainingState
from keras_lrsched.data import ScheduledBatches

BATCHES = 15
X = np.random.default_rng(0).normal(size=(4 * BATCHES, 5)).astype("float32")
Y = np.random.default_rng(1).normal(size=(4 * BATCHES, 1)).astype("float32")


class Ballast(keras.callbacks.Callback):
    """Makes the checkpoint as large as the one of a larger model."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def state(self):
        return {"ballast": np.arange(self.size // 8)}

    def restore_state(self, state):
        np.testing.assert_array_equal(state["ballast"], np.arange(self.size // 8))


class PowerCut(keras.callbacks.Callback):
    """Ends the run after so many updates, which are counted from the start of the first run."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.after:
            raise InterruptedError

    def state(self):
        return {}

    def restore_state(self, state):
        pass


def train(path, epochs, ballast=0, cut=None, every=1, callbacks=()):
    """All that a run leaves: variables and history. With a path, each update is saved, or each so many."""
    keras.utils.set_random_seed(1)
    dense, dropout = keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.3)
    model = keras.Sequential([keras.layers.Input((5,)), dense, dropout, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.02), loss="mse", run_eagerly=True)
    batches = ScheduledBatches(X, Y, batch_size=4, seed=2)
    recorder = LossRecorder()
    state = [TrainingState(path, every=every)] if path else []
    callbacks = [PowerCut(cut), recorder, Ballast(ballast), *callbacks, *state]
    history = model.fit(batches, epochs=epochs, verbose=0, callbacks=callbacks)
    left = {"epochs": np.array(history.history["loss"]), "losses": np.array(recorder.loss)}
    variables = [*model.variables, *model.optimizer.variables]
    return left | {str(number): np.array(variable.numpy()) for number, variable in enumerate(variables)}


def train_and_tell(folder, epochs, ballast, connection):
    """The run in a process of its own; what it leaves goes into the folder."""
    write = checkpoint_file.write

    def told(path, state):
        connection.send(("writes", state["step"]))
        write(path, state)
        connection.send(("has written", state["step"]))

    checkpoint_file.write = told
    np.savez(folder / "result.npz", **train(folder / "state", epochs, ballast))


class Starts(keras.callbacks.Callback):
    """Sends a message when the first batch of this process begins."""

    def __init__(self, connection):
        super().__init__()
        self.connection = connection

    def on_train_batch_begin(self, batch, logs=None):
        if self.connection is not None:
            self.connection.send("starts")
        self.connection = None

    def state(self):
        return {}

    def restore_state(self, state):
        pass


def train_until_interrupted(folder, epochs, connection):
    """The run in a process of its own, saved only where a signal ends it, which it does as it would end a script."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        left = train(folder / "state", epochs, every=10**6, callbacks=[Starts(connection)])
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell gives it
    np.savez(folder / "result.npz", **left)


def assert_same(one, other):
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
