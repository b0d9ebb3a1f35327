"""The machinery of a study beside `compile` and `fit` by hand, and two workers beside one.

Prints the time of a step by hand and in a run of a study, and the time of some runs by one worker and by two, each a process
of one thread. The machine must have two idle cores.

Run: python benchmarks/study.py [--width 450] [--steps 300] [--runs 60]
"""

import argparse
import time
import warnings

import keras
import numpy as np

from keras_lrsched import schedules
from keras_lrsched.study import Study, Trial

RATE, BATCH, EVALUATIONS, HELD_OUT = 1e-4, 64, 5, 400


class Network:
    """Function that builds a network whose width sets the time of a step."""

    def __init__(self, width):
        self.width = width

    def __call__(self):
        hidden = [keras.layers.Dense(self.width, "relu") for _ in range(4)]
        return keras.Sequential([keras.layers.Input((self.width,)), *hidden, keras.layers.Dense(1)])


def parts(width, steps):
    """Training and validation data: as many batches as an epoch of the run has, so that `fit` makes the same steps."""
    x = np.random.default_rng(0).normal(size=(BATCH * steps // EVALUATIONS + HELD_OUT, width)).astype("float32")
    y = x[:, :1] ** 2
    return (x[:-HELD_OUT], y[:-HELD_OUT]), (x[-HELD_OUT:], y[-HELD_OUT:])


def make(width, steps, seeds=1, **options):
    return Study(
        Network(width),
        *parts(width, steps),
        loss="mse",
        batch_size=BATCH,
        optimizers=["SGD"],
        schedules=["cosine"],
        learning_rates=RATE,
        budget=steps,
        seeds=seeds,
        evaluations=EVALUATIONS,
        **options,
    )


def by_hand(width, steps):
    train, validation = parts(width, steps)
    keras.utils.set_random_seed(0)
    model = Network(width)()
    model.compile(keras.optimizers.SGD(schedules.get("cosine", RATE, steps, steps // 20)), loss="mse")
    model.fit(*train, batch_size=BATCH, epochs=EVALUATIONS, validation_data=validation, verbose=0)


def least(function, repeats=3):
    """The shortest of several times, in wall clock and in processor time."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        function()
        found.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return np.min(found, axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=450)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--runs", type=int, default=60)
    arguments = parser.parse_args()
    width, steps, runs = arguments.width, arguments.steps, arguments.runs
    warnings.simplefilter("ignore")
    study = make(width, steps)
    trial = Trial("SGD", "cosine", RATE, steps, 0)
    hand, run = least(lambda: by_hand(width, steps)), least(lambda: study._runner(trial))
    print("| | ms a step | processor ms a step |\n| --- | --- | --- |")
    for name, times in (("compile and fit", hand), ("run of a study", run)):
        print(f"| {name} | {times[0] / steps * 1e3:.2f} | {times[1] / steps * 1e3:.2f} |")
    print(f"Overhead {run[0] / hand[0] - 1:+.1%}, of processor time {run[1] / hand[1] - 1:+.1%}.")
    seconds = {}
    for workers in (1, 2):
        many = make(width, steps, seeds=runs, workers=workers, executor="processes")
        started = time.perf_counter()
        many.outcomes(verbose=0)
        seconds[workers] = time.perf_counter() - started
    faster = seconds[1] / seconds[2]
    print(f"{runs} runs: {seconds[1]:.0f} s by one worker, {seconds[2]:.0f} s by two, {faster:.2f} times as fast.")


if __name__ == "__main__":
    main()
