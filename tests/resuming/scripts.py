"""Generated training scripts: models x data x optimizers x callbacks, each made afresh as a new process would."""

import collections
import contextlib
import itertools
import random
import warnings

import keras
import numpy as np

from keras_lrsched import callbacks as ours
from keras_lrsched import optimizers, schedules
from keras_lrsched._core import runs
from keras_lrsched.callbacks import TrainingState
from keras_lrsched.data import ScheduledBatches
from tests.contract.backends import BACKEND

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(24, 4, 4, 1)).astype("float32")
Y = RANDOM.normal(size=(24, 1)).astype("float32")
BATCH, EPOCHS = 4, 4
STEPS = 24 // BATCH


# Models


def dense():
    return [keras.layers.Flatten(), keras.layers.Dense(4, "tanh"), keras.layers.Dropout(0.3), keras.layers.Dense(1)]


def augmented_convolution():
    augmentation = [keras.layers.RandomFlip(), keras.layers.GaussianNoise(0.1)]
    body = [keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization(), keras.layers.Flatten(), keras.layers.Dense(1)]
    return [*augmentation, *body]


def stateful_recurrence():
    return [keras.layers.Reshape((4, 4)), keras.layers.GRU(3, stateful=True, dropout=0.2), keras.layers.Dense(1)]


def bidirectional():
    return [keras.layers.Reshape((4, 4)), keras.layers.Bidirectional(keras.layers.LSTM(2)), keras.layers.Dense(1)]


def half_precision():
    return [keras.layers.Flatten(), keras.layers.Dense(4, "relu", dtype="mixed_bfloat16"), keras.layers.Dense(1)]


def attention():
    inputs = keras.Input(batch_shape=(None, 4, 4, 1))
    x = keras.layers.Reshape((4, 4))(inputs)
    x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(2, 2, dropout=0.2)(x, x))
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(x)))


class Counts(keras.Model):
    """A subclassed model with a counter, a queue and a generator of its own."""

    def __init__(self):
        super().__init__()
        self.body = [keras.layers.Flatten(), keras.layers.Dense(3, "tanh")]
        self.head = keras.layers.Dense(1)
        self.epochs_seen, self.recent = 0, collections.deque(maxlen=2)
        self.draw = np.random.default_rng(3)

    def call(self, x, training=None):
        for layer in self.body:
            x = layer(x)
        return self.head(x)

    def reset_metrics(self):
        super().reset_metrics()
        if self.built and self.draw.random() < 0.5:
            self.recent.append(self.epochs_seen)
        self.epochs_seen += 1


MODELS = {
    "dense": dense,
    "augmented convolution": augmented_convolution,
    "stateful recurrence": stateful_recurrence,
    "bidirectional": bidirectional,
    "half precision": half_precision,
    "attention": attention,
    "subclassed": Counts,
}


def model_of(name):
    made = MODELS[name]()
    if isinstance(made, keras.Model):
        return made
    shape = (BATCH, 4, 4, 1) if name == "stateful recurrence" else (None, 4, 4, 1)
    return keras.Sequential([keras.layers.Input(batch_shape=shape), *made])


# Data: arguments of `fit`, and of `TrainingState`


class Reshuffled(keras.utils.PyDataset):
    """The usual data set of a user: an order that it changes at the end of each epoch, noise that it draws."""

    def __init__(self, **options):
        super().__init__(**options)
        self.order, self.random = np.arange(24), np.random.default_rng(5)

    def __len__(self):
        return STEPS

    def __getitem__(self, i):
        rows = self.order[BATCH * i : BATCH * (i + 1)]
        return X[rows] + 0.01 * i, Y[rows]

    def on_epoch_end(self):
        self.random.shuffle(self.order)


def pipeline():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH, drop_remainder=True)


def mapped():
    noise = keras.layers.GaussianNoise(0.5, seed=2)
    return pipeline().map(lambda x, y: (noise(x, training=True), y))


def generator():
    for i in itertools.count():
        rows = slice(BATCH * (i % STEPS), BATCH * (i % STEPS + 1))
        yield X[rows], Y[rows]


DATA = {
    "arrays": lambda: ({"x": X, "y": Y, "batch_size": BATCH, "shuffle": False}, {}),
    "shuffled arrays": lambda: ({"x": X, "y": Y, "batch_size": BATCH, "shuffle": True}, {}),
    "weighted arrays": lambda: (
        {"x": X, "y": Y, "batch_size": BATCH, "shuffle": False, "sample_weight": np.linspace(0.5, 1.5, 24)},
        {},
    ),
    "scheduled batches": lambda: ({"x": ScheduledBatches(X, Y, batch_size=BATCH, seed=4)}, {"every": 2}),
    "scheduled batches, each step": lambda: ({"x": ScheduledBatches(X, Y, batch_size=BATCH)}, {"every": 1}),
    "growing batches": lambda: (
        {"x": ScheduledBatches(X, Y, batch_size=schedules.BatchSizeWarmup([4, 8], boundaries=[8]))},
        {"every": 3},
    ),
    "PyDataset": lambda: ({"x": Reshuffled(), "shuffle": True}, {}),
    "PyDataset, two workers": lambda: ({"x": Reshuffled(workers=2), "shuffle": False}, {}),
    "generator": lambda: ({"x": generator(), "steps_per_epoch": STEPS}, {}),
    "tf.data": lambda: ({"x": pipeline()}, {}),
    "tf.data, shuffled": lambda: ({"x": pipeline().shuffle(8)}, {}),
    "tf.data, shuffled once": lambda: ({"x": pipeline().shuffle(8, seed=1, reshuffle_each_iteration=False)}, {}),
    "tf.data, mapped": lambda: ({"x": mapped()}, {}),
    "tf.data, filtered": lambda: ({"x": pipeline().filter(lambda x, y: True)}, {}),
    "tf.data, repeated": lambda: ({"x": pipeline().repeat(), "steps_per_epoch": STEPS - 1}, {}),
}

FIXED_SIZE = {"growing batches"}
"""Data that a stateful layer, whose batches are of one size, cannot take."""


WARNED = {"generator", "tf.data, shuffled", "tf.data, repeated", "PyDataset, two workers"}
"""Data whose order depends on what cannot be saved, or may."""


# Optimizers


OPTIMIZERS = {
    "Keras' Adam": lambda: keras.optimizers.Adam(0.01),
    "Keras' SGD, schedule": lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.05, 20), momentum=0.9),
    "Keras' Adam, average": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=5),
    "Keras' Adam, accumulated": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=4),
    "AdamW, schedule": lambda: optimizers.AdamW(schedules.LinearDecay(0.01, 20)),
    "Lion": lambda: optimizers.Lion(0.001),
    "Lookahead": lambda: optimizers.Lookahead(keras.optimizers.SGD(0.05)),
    "Schedule-Free": lambda: optimizers.ScheduleFreeAdamW(0.01),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.02), dynamic_growth_steps=3),
}


# Callbacks


class Wanders(keras.callbacks.Callback):
    """A user's callback: a learning rate from a generator, what it has seen in containers of all kinds."""

    def __init__(self):
        super().__init__()
        self.random, self.seen, self.by_epoch = random.Random(1), set(), {}
        self.best = keras.Variable(1e9, trainable=False)

    def on_epoch_end(self, epoch, logs=None):
        self.seen.add(round(logs["loss"], 6))
        self.by_epoch[epoch] = len(self.seen)
        if logs["loss"] < float(self.best.numpy()):
            self.best.assign(logs["loss"])
        numbers = self.random.random() + np.random.uniform() + 0.1 * len(self.by_epoch) + float(self.best.numpy())
        self.model.optimizer.learning_rate = 0.01 * numbers


def watching():
    return [
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.5, factor=0.5),
        keras.callbacks.EarlyStopping("loss", patience=3, restore_best_weights=True),
    ]


CALLBACKS = {
    "none": list,
    "Keras'": watching,
    "a user's": lambda: [Wanders()],
    "averaged": lambda: [ours.WeightAveraging("ema", every=2)],
    "recorded": lambda: [ours.LossRecorder(), ours.LearningRateLogger()],
    "controlled": lambda: [ours.VolSched(20, every=2, monitor="loss")],
}

SET_RATES = {"Keras'", "a user's", "controlled"}
"""Callbacks that need a learning rate that is a number."""


class Killed(Exception):  # noqa: N818 - not an error
    """Ends a run as the death of its process would, as far as its files are concerned."""


class Kills(keras.callbacks.Callback):
    """Ends the run at an event: after so many batches, or at the end of an epoch, before or after it was saved."""

    def __init__(self, batches=None, epoch=None):
        super().__init__()
        self.batches, self.epoch = batches, epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.batches is not None:
            self.batches -= 1
            if self.batches < 0:
                raise Killed

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed

    def state(self):
        return {}

    def restore_state(self, state):
        pass


def run(kind, path=None, kill=None):
    """Run a script as a process of its own would. Return what it leaves, or `None` if it was killed; and its warnings."""
    model_name, data_name, optimizer_name, callbacks_name = kind
    runs.forget()
    keras.utils.set_random_seed(7)
    model = model_of(model_name)
    model.compile(OPTIMIZERS[optimizer_name](), "mse", metrics=["mae"])
    data, saving = DATA[data_name]()
    callbacks = [kill or Kills(), *CALLBACKS[callbacks_name]()]
    if optimizer_name == "Schedule-Free":
        callbacks.append(ours.ScheduleFreeEvaluation())  # which `restore_best_weights` needs
    if path is not None:
        callbacks.append(TrainingState(path, **saving))
    history = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(Killed):
            history = model.fit(**data, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    told = [str(each.message) for each in caught if "TrainingState cannot save" in str(each.message)]
    if history is None:
        return None, told
    weights = [np.array(keras.ops.convert_to_numpy(each)) for each in [*model.variables, *model.optimizer.variables]]
    return (weights, history.history), told


def same(one, other):
    """Whether two runs have left the same, bit for bit."""
    weights = all(map(np.array_equal, one[0], other[0])) and len(one[0]) == len(other[0])
    return weights and {name: list(map(str, it)) for name, it in one[1].items()} == {
        name: list(map(str, it)) for name, it in other[1].items()
    }


def kinds(number, seed=0):
    """Combinations drawn at random, that can be trained."""
    draw = random.Random(seed)
    found: dict[tuple, None] = {}
    while len(found) < number:
        kind = tuple(draw.choice(list(each)) for each in (MODELS, DATA, OPTIMIZERS, CALLBACKS))
        if _can_be_trained(*kind):
            found[kind] = None
    return list(found)


def _can_be_trained(model, data, optimizer, callbacks):
    if model == "stateful recurrence" and data in FIXED_SIZE:
        return False
    if callbacks in SET_RATES and "schedule" in optimizer:
        return False
    if callbacks == "controlled" and "accumulated" in optimizer:
        return False
    if BACKEND != "tensorflow" and "mapped" in data:  # a layer of this backend in a pipeline of TensorFlow
        return False
    return not (BACKEND == "torch" and data == "PyDataset, two workers")
