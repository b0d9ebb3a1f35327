"""Scripts that are more, or less, than one `fit`."""

import collections

import keras
import numpy as np
from keras import layers, ops

from tests.programs import data
from tests.programs.program import EVERY, Run, program


def _mlp(features=6, outputs=1):
    return keras.Sequential([keras.Input((features,)), layers.Dense(6, "tanh"), layers.Dense(outputs)])


@program("arrays", "several_fits", backends=EVERY)
def fit_in_a_loop(how):
    """`fit(epochs=1)` in a loop, with a look at the predictions after each."""

    def script(run, callbacks):
        for _ in range(2):
            run.fit(callbacks, epochs=1)
            run.predictions = run.model.predict(x[:2], verbose=0)

    model = _mlp()
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y, script=script)


@program("arrays", "several_fits", "several_models", backends=EVERY)
def k_folds(how):
    """Two folds with a new model each, and one list of callbacks for all."""

    def script(run, callbacks):
        for fold in range(2):
            model = _mlp()
            model.compile(how.optimizer(), "mse", **how.mode)
            run.models.append(model)
            train = np.arange(len(x)) % 3 != fold
            run.fit(callbacks, x=x[train], y=y[train], epochs=1)
            run.scores = model.evaluate(x[~train], y[~train], verbose=0)

    x, y = data.numbers()
    return Run(None, x, y=y, script=script)


@program("arrays", "several_fits", backends=EVERY, optimizer="adamw")
def transfer_learning(how):
    """A new head on a frozen body, and then all of it, compiled anew with a second optimizer."""

    def script(run, callbacks):
        run.fit(callbacks, epochs=1)
        body.trainable = True
        compile_model()
        run.fit(callbacks, epochs=1)

    def compile_model():
        model.compile(how.optimizer(), "mse", **how.mode)

    body = keras.Sequential([keras.Input((6,)), layers.Dense(6, "tanh"), layers.BatchNormalization()], name="body")
    body.trainable = False
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dropout(0.2)(body(inputs, training=False))))
    compile_model()
    x, y = data.numbers()
    return Run(model, x, y=y, script=script)


@program("no_fit", backends=EVERY)
def train_on_batch(how):
    """A loop over `train_on_batch`."""

    def script(run, callbacks):
        for _ in range(2):
            for start in range(0, len(x), 4):
                run.model.train_on_batch(x[start : start + 4], y[start : start + 4])

    model = _mlp()
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, script=script)


@program("no_fit", optimizer="adamw")
def eager_loop(how):
    """A loop of one's own with a tape, without `compile` and `fit`."""
    import tensorflow as tf

    def script(run, callbacks):
        for _ in range(2):
            for start in range(0, len(x), 4):
                with tf.GradientTape() as tape:
                    loss = loss_fn(y[start : start + 4], model(x[start : start + 4], training=True))
                optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)

    model, optimizer, loss_fn = _mlp(), how.optimizer(), keras.losses.MeanSquaredError()
    model.optimizer = optimizer
    x, y = data.numbers()
    return Run(model, script=script)


@program("several_fits", "own_state", "lists_variables")
def small_fits(how):
    """Deep Q-learning: many `fit`s of one small batch from a memory, and a target network that is copied now and then."""

    def script(run, callbacks):
        memory: collections.deque = collections.deque(maxlen=10)
        for step in range(6):
            state = random.normal(size=4).astype("float32")
            memory.append((state, random.integers(2), random.normal(), state + 1))
            batch = [memory[i] for i in random.integers(0, len(memory), 4)]
            states, actions, rewards, following = (np.array(part) for part in zip(*batch, strict=True))
            values = np.array(ops.convert_to_numpy(model(states)))
            best = np.max(ops.convert_to_numpy(target(following)), axis=1)
            values[np.arange(4), actions] = rewards + 0.9 * best
            run.fit(callbacks, x=states, y=values, epochs=1)
            if step % 3 == 2:
                target.set_weights(model.get_weights())

    random = np.random.default_rng(0)
    model, target = _mlp(4, 2), _mlp(4, 2)
    target.set_weights(model.get_weights())
    model.compile(how.optimizer(), "mse", **how.mode)
    return Run(model, np.zeros((4, 4), "float32"), y=np.zeros((4, 2), "float32"), script=script)


class Counts(keras.callbacks.Callback):
    """A callback of a user: counters, the last values, an array, and a rule that acts on them."""

    def __init__(self):
        super().__init__()
        self.batches, self.best, self.waited = 0, float("inf"), 0
        self.last: collections.deque = collections.deque(maxlen=3)
        self.by_epoch: dict[int, float] = {}
        self.counts = np.zeros(4, "int64")

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        self.last.append(self.batches)
        self.counts[batch % 4] += 1

    def on_epoch_end(self, epoch, logs=None):
        self.by_epoch[epoch] = logs["loss"]
        self.waited = 0 if logs["loss"] < self.best else self.waited + 1
        self.best = min(self.best, logs["loss"])


@program("arrays", "own_state", backends=EVERY)
def callbacks_of_users(how):
    """A callback of the user with counters, a deque and an array, beside Keras' own."""
    model = _mlp()
    model.compile(how.optimizer(), "mse", metrics=["mae"], **how.mode)
    x, y = data.numbers()
    keras_own = [keras.callbacks.EarlyStopping("loss", patience=3), keras.callbacks.TerminateOnNaN()]
    return Run(model, x, y=y, callbacks=[Counts(), *keras_own])


@program("unknown_length")
def filtered_dataset(how):
    """A `tf.data` pipeline with a filter, whose length is not known; compiled by XLA."""
    import tensorflow as tf

    model = _mlp()
    model.compile(how.optimizer(), "mse", **how.xla_mode)
    rows = tf.data.Dataset.from_tensor_slices(data.numbers()).filter(lambda x, y: x[0] < 1.5)
    return Run(model, rows.batch(4))


@program("unknown_length", "phantom_updates", optimizer="adamw")
def filtered_dataset_without_xla(how):
    """The same without XLA, where Keras' own optimizers count a step without data at the end of each epoch."""
    import tensorflow as tf

    model = _mlp()
    model.compile(how.optimizer(), "mse", **how.mode)
    rows = tf.data.Dataset.from_tensor_slices(data.numbers()).filter(lambda x, y: x[0] < 1.5)
    return Run(model, rows.batch(4))


@program("unknown_length", "goes_on", "read_once", "own_state", optimizer="adamw")
def generator_data(how):
    """A generator that never ends, with `steps_per_epoch`."""

    def generate():
        random = np.random.default_rng(0)
        while True:
            chosen = random.integers(0, len(x), 4)
            yield x[chosen], y[chosen]

    model = _mlp()
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, generate(), steps_per_epoch=3)


@program("goes_on", "shuffled_anew")
def shuffled_dataset(how):
    """A `tf.data` pipeline that is shuffled anew for each epoch and mapped."""
    import tensorflow as tf

    model = _mlp()
    model.compile(how.optimizer(), "mse", **how.mode)
    rows = tf.data.Dataset.from_tensor_slices(data.numbers()).shuffle(14, seed=1)
    return Run(model, rows.batch(4).map(lambda x, y: (2 * x, y)).prefetch(1))


@program("own_state", "stateful_random")
def augmentation_in_map(how):
    """Keras augmentation layers in `tf.data`'s `map`."""
    import tensorflow as tf

    augment = keras.Sequential([layers.RandomFlip("horizontal", seed=1), layers.RandomContrast(0.2, seed=2)])
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(how.optimizer(), loss, **how.mode)
    rows = tf.data.Dataset.from_tensor_slices(data.images()).batch(4)
    return Run(model, rows.map(lambda x, y: (augment(x, training=True), y)))


class Shuffles(keras.utils.PyDataset):
    """Batches whose order `on_epoch_end` draws anew."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.order = x, y, np.arange(len(x))
        self.random = np.random.default_rng(1)

    def __len__(self):
        return -(-len(self.x) // 4)

    def __getitem__(self, i):
        rows = self.order[4 * i : 4 * i + 4]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self.random.shuffle(self.order)


@program("goes_on", "own_state", backends=EVERY)
def py_dataset(how):
    """A `PyDataset` that is shuffled in `on_epoch_end`."""
    model = _mlp()
    model.compile(how.optimizer(), "mse", **how.mode)
    return Run(model, Shuffles(*data.numbers()))
