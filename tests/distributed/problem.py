"""What the scripts beside this file train: two workers must end with the weights that one has with the summed batch."""

import numpy as np

STEPS, BATCH = 8, 8
OPTIMIZERS = ("SGD", "Lion", "Lamb", "ScheduleFreeAdamW", "Prodigy")
SCHEDULES = ("REXDecay", "WarmupStableDecay")


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
    made = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    made.compile(optimizer, "mse", metrics=["mae"], jit_compile=False)
    return made


def trained(make_optimizer, x, y, batch_size, callbacks=()):
    """The weights after one epoch; each epoch's loss."""
    network = model(make_optimizer())
    history = network.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0, callbacks=list(callbacks))
    return network.get_weights(), history.history["loss"][-1]


def apart(one, two):
    return max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))
