"""Gain of a second process, and of averaging weights now and then in place of gradients at each update.

A perceptron of 300,000 weights is trained with AdamW in a `strategy.run` loop under `MultiWorkerMirroredStrategy`, over
loopback, one thread a process. Each process has its own batch of the same size, so two do twice the work of one:

    ms          an update, the median
    samples/s   of all processes together
    efficiency  samples/s, divided by the number of processes and by the samples/s of one
    exchanges   how often all weights, or gradients of the same size, were sent in the run
    saved       the part of these that is not sent, of one an update

The learning rate decays linearly to 0. QSR is LocalUpdates with a `SynchronizationPeriod`, whose alpha is chosen so that
periods grow from 4 updates to about a quarter of the run. On a machine that has other work to do the times say little;
`exchanges` are counted, not measured.

Run: python benchmarks/distributed.py --steps 200
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

BATCH, FEATURES, HIDDEN, CLASSES = 64, 64, 512, 10
PEAK, ALPHA, BASE = 1e-3, 2e-3, 4
METHODS = {1: ("AdamW",), 2: ("AdamW", "LocalUpdates, H = 4", "LocalUpdates, QSR")}
WARMUP = 5  # updates before the clock starts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--addresses", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        print(json.dumps(worker(options.addresses, options.worker, options.steps)))
        return
    print(f"{'processes':>9}  {'method':<20}{'ms':>8}{'samples/s':>11}{'efficiency':>12}{'exchanges':>11}{'saved':>8}")
    alone = None
    for number in (1, 2):
        for method, (milliseconds, exchanges) in launched(number, options.steps).items():
            speed = 1000 * number * BATCH / milliseconds
            alone = alone or speed
            saved = "" if exchanges is None else f"{1 - exchanges / options.steps:.0%}"
            cells = f"{milliseconds:>8.2f}{speed:>11.0f}{speed / number / alone:>12.2f}"
            print(f"{number:>9}  {method:<20}{cells}{'-' if exchanges is None else exchanges:>11}{saved:>8}")


def launched(number, steps):
    """The measurements of the first of so many processes."""
    ports = []
    for _ in range(number):
        with socket.socket() as each:
            each.bind(("127.0.0.1", 0))
            ports.append(each.getsockname()[1])
    addresses = [f"127.0.0.1:{port}" for port in ports]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "KERAS_BACKEND": "tensorflow", "KERAS_LRSCHED_FUSED": "0"}
    commands = [
        [sys.executable, __file__, "--steps", str(steps), "--worker", str(i), "--addresses", *addresses]
        for i in range(number)
    ]
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for command in commands]
    printed = [process.communicate(timeout=1800)[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("A worker has failed.")
    return json.loads(printed[0].splitlines()[-1])


def worker(addresses, index, steps):
    """Method -> milliseconds of an update, and how often weights or gradients were sent."""
    from keras_lrsched import distributed

    distributed.wait_for_workers(addresses, index, timeout=300)
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if len(addresses) > 1 else tf.distribute.get_strategy()
    return {method: measured(method, strategy, index, steps) for method in METHODS[len(addresses)]}


def measured(method, strategy, index, steps):
    import keras
    import numpy as np
    import tensorflow as tf

    optimizer, exchanges = made(method, steps)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        hidden = [keras.layers.Dense(HIDDEN, "relu") for _ in range(2)]
        model = keras.Sequential([keras.Input((FEATURES,)), *hidden, keras.layers.Dense(CLASSES)])
        optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean")

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True)) / strategy.num_replicas_in_sync
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    train_step = tf.function(lambda x, y: strategy.run(step, args=(x, y)), autograph=False)
    random = np.random.default_rng(index)
    x = tf.constant(random.normal(size=(BATCH, FEATURES)).astype("float32"))
    y = tf.constant(random.integers(CLASSES, size=BATCH))
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        train_step(x, y)
        times.append(time.perf_counter() - began)
    assert int(optimizer.iterations.numpy()) == steps
    return 1000 * statistics.median(times[WARMUP:]), exchanges if strategy.num_replicas_in_sync > 1 else None


def made(method, steps):
    from keras_lrsched.optimizers import AdamW, LocalUpdates
    from keras_lrsched.schedules import LinearDecay, SynchronizationPeriod

    rate = LinearDecay(PEAK, decay_steps=steps)
    if method == "AdamW":
        return AdamW(rate, epsilon=1e-8), steps
    if "QSR" not in method:
        return LocalUpdates(AdamW(rate, epsilon=1e-8), BASE), steps // BASE
    period = SynchronizationPeriod(rate, ALPHA, base_period=BASE)
    return LocalUpdates(AdamW(rate, epsilon=1e-8), period), len(period.averages())


if __name__ == "__main__":
    main()
