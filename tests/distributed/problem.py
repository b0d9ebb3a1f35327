"""The problem of the scripts beside this file: two workers must end with the weights of one with the summed batch."""

import numpy as np

STEPS, BATCH = 8, 8
OPTIMIZERS = ("SGD", "Lion", "Lamb", "ScheduleFreeAdamW", "Prodigy")
SCHEDULES = ("REXDecay", "WarmupStableDecay")
CALLBACKS = (
    "AutoLRS",
    "BatchSizeSchedule",
    "CriticalBatchSize",
    "GradientNormRecorder",
    "HypergradientLearningRate",
    "LearningRateFinder",
    "LearningRateLogger",
    "LossRecorder",
    "MagnitudePruning",
    "ScheduleFreeEvaluation",
    "StabilityMonitor",
    "VolSched",
    "WeightAveraging ema",
)
"""Those that work on several replicas of `tf.distribute`."""


def optimizer(name, schedule):
    """With clipping, which must see the gradient of the whole batch."""
    from keras_lrsched import optimizers, schedules

    peak = {"SGD": 0.1, "Prodigy": 1.0}.get(name, 0.01)
    if schedule == "REXDecay":
        rate = schedules.REXDecay(peak, decay_steps=STEPS)
    else:
        rate = schedules.WarmupStableDecay(peak, warmup_steps=2, stable_steps=3, decay_steps=3)
    options = {"momentum": 0.9} if name == "SGD" else {}
    return getattr(optimizers, name)(rate, global_clipnorm=1.0, **options)


def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS * BATCH, 5)).astype("float32")
    return x, np.sin(x.sum(axis=1, keepdims=True))


def model(optimizer):
    import keras

    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, "tanh", name="hidden"), keras.layers.Dense(1)])
    jit = "auto" if keras.backend.backend() == "jax" else False  # what Keras does by itself, on JAX
    made.compile(optimizer, "mse", metrics=["mae"], jit_compile=jit)
    return made


def trained(make_optimizer, x, y, batch_size, callbacks=()):
    """The weights after one epoch; each epoch's loss."""
    return fitted(model(make_optimizer()), x, y, batch_size, callbacks)


def fitted(network, x, y, batch_size, callbacks=()):
    history = network.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0, callbacks=list(callbacks))
    return network.get_weights(), history.history["loss"][-1]


def apart(one, two):
    return max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))


def callback_cases():
    """Those of the contract, by name."""
    from keras_lrsched.callbacks import BatchSizeSchedule
    from keras_lrsched.schedules import BatchSizeWarmup
    from tests.contract.callback_cases import CASES, Case

    even = BatchSizeWarmup([2, 4, 8], [5, 9])  # Keras weighs the halves of a batch alike, also if one is larger
    own = Case("BatchSizeSchedule", lambda sample: BatchSizeSchedule(even, "linear"))
    return {case.name: case for case in [*CASES, own]}


def optimizer_cases():
    """Those of the contract of optimizers, by name."""
    from tests.contract.optimizer_cases import CASES

    return {case.name: case.build for case in CASES}


def with_callback(make_model, case):
    """The results of a case of the callback contract: weights, history, and the callback's own state."""
    from keras_lrsched.data import ScheduledBatches

    random = np.random.default_rng(0)
    x, y = random.normal(size=(24, 5)).astype("float32"), random.normal(size=(24, 1)).astype("float32")
    callback = case.build((x[:8], y[:8]))
    network = make_model(lambda: case.optimizer(**{"learning_rate": 0.05, "momentum": 0.9, **case.options}))
    history = network.fit(ScheduledBatches(x, y, batch_size=4, seed=2), epochs=2, verbose=0, callbacks=[callback])
    return network.get_weights(), history.history, callback.state() if hasattr(callback, "state") else {}


def differences(one, two):
    """The largest, over all numbers in two structures."""
    import keras

    left, right = keras.tree.flatten(one), keras.tree.flatten(two)
    if len(left) != len(right):
        return float("inf")
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if not isinstance(a, str) and a is not None]
    return max(float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)), initial=0)) for a, b in pairs)


RESUMED = ("SGD", "Lion", "ScheduleFreeAdamW", "VolSched")
EPOCHS, EVERY, CUT = 2, 3, 10
"""It ends within the second epoch, and goes on from the update before."""


def resumed(name, path, make_model, x, y, batch_size):
    """By how much the variables, the history and a controller's state differ, of a run that ends and is started again."""
    from keras_lrsched.callbacks import TrainingState, VolSched
    from keras_lrsched.data import ScheduledBatches

    def run(path, cut):
        controllers = [VolSched(EPOCHS * STEPS, every=3, monitor="loss")] if name == "VolSched" else []
        network = make_model(lambda: _constant_rate() if controllers else optimizer(name, "REXDecay"))
        batches = ScheduledBatches(x, y, batch_size=batch_size, seed=2)
        callbacks = [_power_cut(cut), *controllers, TrainingState(path, every=EVERY)]
        try:
            history = network.fit(batches, epochs=EPOCHS, verbose=0, callbacks=callbacks)
        except InterruptedError:
            return None
        variables = [variable.numpy() for variable in (*network.variables, *network.optimizer.variables)]
        return variables, history.history, [each.state() for each in controllers]

    whole = run(f"{path}.whole", None)
    assert run(path, CUT) is None
    parts = zip(("variables", "history", "controllers"), whole, run(path, None), strict=True)
    return {part: differences(one, other) for part, one, other in parts if one}


def check_resumed(results):
    """Bit for bit; but `tf.distribute` keeps sums of metrics by replica, and gets back equal parts of them."""
    for result in results.values():
        assert result["variables"] <= (1e-7 if "controllers" in result else 0), results
        assert max(result.values()) <= 1e-6, results


def _constant_rate():
    import keras

    return keras.optimizers.SGD(0.1, momentum=0.9)


def _power_cut(after):
    import keras

    class PowerCut(keras.callbacks.Callback):
        """Ends a run after so many updates."""

        def __init__(self):
            super().__init__()
            self.updates = 0

        def on_train_batch_begin(self, batch, logs=None):
            if self.updates == after:
                raise InterruptedError
            self.updates += 1

        def state(self):
            return {}

        def restore_state(self, state):
            pass

    return PowerCut()
