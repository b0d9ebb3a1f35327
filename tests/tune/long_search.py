"""A program that searches in the folder that it is given, each round a second at least; it prints what it found."""

import sys

from keras_lrsched.tune import PopulationBasedTraining


def make():
    import time

    import keras
    import numpy as np

    from keras_lrsched.data import ScheduledBatches

    time.sleep(1)
    x = np.random.default_rng(0).normal(size=(16, 2)).astype("float32")
    y = x @ np.array([[1.0], [-2.0]], "float32")
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse", jit_compile=False)
    return model, {"x": ScheduledBatches(x, y, batch_size=4, seed=0), "validation_data": (x, y)}


if __name__ == "__main__":
    search = PopulationBasedTraining({"optimizer.learning_rate": (1e-3, 0.1)}, population=2, rounds=3)
    print(search.search(make, sys.argv[1], workers=1).values)
