"""An update of many small variables: this package's AdamW, with and without its compiled kernel, beside Keras' AdamW.

    ms       milliseconds of an update, the median of the rounds, in which the three take turns
    ratio    to Keras' AdamW in the same round, the median

Run: KERAS_BACKEND=torch python benchmarks/small_variables.py --variables 3000 --size 4
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np

from keras_lrsched import optimizers

SETTINGS = {"weight_decay": 0.01}
CASES = {
    "Keras": lambda: keras.optimizers.AdamW(1e-3, **SETTINGS),
    "compiled": lambda: optimizers.AdamW(1e-3, **SETTINGS),
    "plain": lambda: optimizers.AdamW(1e-3, fused=False, **SETTINGS),
}


class Case:
    """An optimizer with variables and gradients of its own."""

    def __init__(self, make, number, size):
        random = np.random.default_rng(0)
        values = random.normal(size=(number, size)).astype("float32")
        self.variables = [keras.Variable(value) for value in values]
        self.gradients = [keras.ops.convert_to_tensor(0.1 * value) for value in values]
        self.optimizer = make()
        self.optimizer.build(self.variables)
        self.apply = self._step
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            self.apply = tf.function(self._step)

    def _step(self):
        self.optimizer.apply(self.gradients, self.variables)

    def milliseconds(self):
        start = time.perf_counter()
        self.apply()
        np.asarray(self.variables[-1].numpy())
        return 1e3 * (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variables", type=int, default=3000)
    parser.add_argument("--size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    if keras.backend.backend() == "jax":
        parser.error("JAX compiles the updates of all variables together: measure it within `fit`.")
    cases = {name: Case(make, arguments.variables, arguments.size) for name, make in CASES.items()}
    for case in cases.values():
        case.milliseconds()
    rounds = [{name: case.milliseconds() for name, case in cases.items()} for _ in range(arguments.rounds)]
    print(f"{keras.backend.backend()}: {arguments.variables} variables of {arguments.size} numbers")
    print(f"{'AdamW':10}{'ms':>10}{'ratio':>8}")
    for name in cases:
        ratio = statistics.median(each[name] / each["Keras"] for each in rounds)
        print(f"{name:10}{statistics.median(each[name] for each in rounds):10.2f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
