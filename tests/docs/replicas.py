"""Trains with an optimizer on one device and on two, and prints by how much the weights differ: `replicas.py NAME ...`."""

import os
import sys
from functools import partial


def main(names):
    os.environ.update(KERAS_BACKEND="tensorflow", KERAS_LRSCHED_FUSED="0")  # nothing to compile first
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

    import keras

    from keras_lrsched import optimizers
    from keras_lrsched.schedules import LinearDecay

    strategies = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for name in names:
        try:
            print(name, difference(partial(optimizers.get, name), strategies))
        except ValueError as error:
            print(name, "refused" if "replica" in str(error) else f"failed: {error}")
    print("schedule", difference(lambda: keras.optimizers.SGD(LinearDecay(0.1, 8)), strategies))


def difference(make, strategies):
    one, two = (trained(make, strategy) for strategy in strategies)
    return max(float(abs(a - b).max()) for a, b in zip(one, two, strict=True))


def trained(make, strategy):
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(128, 8)).astype("float32")
    with strategy.scope():
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
        model.compile(make(), "mse", jit_compile=False)
    model.fit(x, x.sum(axis=1), batch_size=32, epochs=2, shuffle=False, verbose=0)
    return model.get_weights()


if __name__ == "__main__":
    main(sys.argv[1:])
