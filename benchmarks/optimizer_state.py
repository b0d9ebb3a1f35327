"""Optimizers with moments in 8 bits beside float32: memory, loss and time.

Training: digits and the character model, every variable in 8 bits (`min_size=1`), the same batches for the same seed. The
loss is that of validation, in the mean; its difference to float32 is printed beside what another seed changes.
Update: one variable of many entries alone, which is what the codes cost; with Keras operations under XLA, and compiled. The
states take turns; `ratio` is to the first, the median of the rounds.

Run: python benchmarks/optimizer_state.py [--updates 200] [--seeds 3] [--size 4000000] [--rounds 9]; --seeds 0: updates only
"""

import argparse
import functools
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np

from keras_lrsched import optimizers
from keras_lrsched.precision import QuantizedState
from keras_lrsched.schedules import LinearDecay
from keras_lrsched.study.workloads.digits import Digits
from keras_lrsched.study.workloads.pydoc import PydocTopics

STATES = ("float32", "blockwise8", "coat")
COMPILED = tuple(f"{state}, compiled" for state in STATES)
OPTIMIZERS = {
    "AdamW": functools.partial(optimizers.AdamW, weight_decay=0.1, epsilon=1e-8),
    "Lion": functools.partial(optimizers.Lion, weight_decay=1.0),
}
PEAKS = {("AdamW", "digits"): 3e-3, ("AdamW", "pydoc"): 5e-3, ("Lion", "digits"): 3e-4, ("Lion", "pydoc"): 5e-4}


def made(name, state, rate):
    optimizer = OPTIMIZERS[name](rate, fused=state in COMPILED)
    state = state.partition(",")[0]
    return optimizer if state == "float32" else QuantizedState(optimizer, state, min_size=1)


def final_losses(workload, name, state, seeds, updates):
    """The validation loss of each seed, bytes for each parameter, and the median of the time of a training step."""
    model = workload.build_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = made(name, state, LinearDecay(PEAKS[name, workload.name], updates))
    model.compile(optimizer, loss, jit_compile=keras.backend.backend() != "torch")
    optimizer.build(model.trainable_variables)
    start = [np.array(keras.ops.convert_to_numpy(v)) for v in optimizer.variables]
    losses, times = [], []
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        model.set_weights(workload.build_model().get_weights())
        for variable, value in zip(optimizer.variables, start, strict=True):
            variable.assign(value)
        for t in range(updates):
            batch = workload.train_batch(t, seed)
            begin = time.perf_counter()
            model.train_on_batch(*batch)
            times.append(time.perf_counter() - begin)
        losses.append(model.evaluate(*workload.validation, batch_size=128, verbose=0))
    return losses, optimizer.state_bytes_per_parameter(), statistics.median(times) * 1e3


def compare_training(seeds, updates):
    print(f"{updates} updates, {seeds} seeds")
    print(f"{'':9}{'':7}{'state':11}{'bytes':>7}{'loss':>9}{'change':>9}{'seeds':>8}{'step ms':>9}{'ratio':>7}")
    for workload in (Digits(), PydocTopics()):
        for name in OPTIMIZERS:
            for state in STATES:
                losses, size, milliseconds = final_losses(workload, name, state, seeds, updates)
                mean = statistics.mean(losses)
                if state == "float32":
                    reference, plain = mean, milliseconds
                spread = statistics.stdev(losses) / mean if seeds > 1 else 0.0
                print(
                    f"{workload.name:9}{name:7}{state:11}{size:7.3f}{mean:9.4f}{mean / reference - 1:+9.2%}{spread:8.1%}"
                    f"{milliseconds:9.2f}{milliseconds / plain:7.2f}",
                    flush=True,
                )


def update_of(optimizer, variable):
    """A function of a gradient that updates the variable, compiled where the backend compiles."""
    optimizer.build([variable])
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            return tf.function(lambda gradient: optimizer.apply([gradient]), jit_compile=True)
        case "jax":
            import jax

            step = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))
            values = [v.value for v in optimizer.variables], [keras.ops.copy(variable.value)]

            def update(gradient):
                nonlocal values
                weights, state = step(values[0], [gradient], values[1])
                values = jax.block_until_ready((state, weights))

            return update
        case _:
            return lambda gradient: optimizer.apply([gradient])


def compare_updates(size, rounds):
    print(f"\nOne update of {size:,} parameters")
    print(f"{'':7}{'state':21}{'bytes':>7}{'ms':>9}{'ns each':>9}{'ratio':>7}")
    gradient = keras.ops.convert_to_tensor(np.random.default_rng(0).standard_normal(size), "float32")
    for name in OPTIMIZERS:
        made_ones = {state: made(name, state, 1e-3) for state in (*STATES, *COMPILED)}
        updates = {
            state: update_of(optimizer, keras.Variable(np.zeros(size, "float32"), name="w"))
            for state, optimizer in made_ones.items()
        }
        times = {state: [] for state in updates}
        for _ in range(rounds + 2):
            for state, update in updates.items():
                times[state].append(timed(update, gradient))
        times = {state: each[2:] for state, each in times.items()}  # not those that compile
        for state, optimizer in made_ones.items():
            seconds, each = statistics.median(times[state]), optimizer.state_bytes_per_parameter()
            ratio = statistics.median(one / first for one, first in zip(times[state], times["float32"], strict=True))
            print(f"{name:7}{state:21}{each:7.3f}{seconds * 1e3:9.1f}{seconds / size * 1e9:9.2f}{ratio:7.2f}", flush=True)


def timed(update, gradient):
    begin = time.perf_counter()
    update(gradient)
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(f"Keras {keras.__version__}, {keras.backend.backend()}")
    if arguments.seeds:
        compare_training(arguments.seeds, arguments.updates)
    compare_updates(arguments.size, arguments.rounds)


if __name__ == "__main__":
    main()
