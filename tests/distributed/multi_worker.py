"""`fit`, and a loop with `strategy.run`, under `MultiWorkerMirroredStrategy`, a process each: `multi_worker.py TASK ...`."""

# ruff: noqa: E402
import hashlib
import json
import os

ADDRESSES, WORKER = json.loads(os.environ["ADDRESSES"]), int(os.environ["WORKER"])
os.environ["KERAS_BACKEND"] = "tensorflow"

from keras_lrsched import distributed

distributed.wait_for_workers(ADDRESSES, WORKER, timeout=300)
os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": ADDRESSES}, "task": {"type": "worker", "index": WORKER}})

import tensorflow as tf

STRATEGY = tf.distribute.MultiWorkerMirroredStrategy()

import keras
import numpy as np

from keras_lrsched.optimizers import AdamW, LocalUpdates
from keras_lrsched.schedules import LinearDecay, SynchronizationPeriod
from tests.distributed import local_adamw, problem, processes


def train(model, optimizer, x, y, strategy, batch):
    """One epoch; this worker's part of each batch is its own."""

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y)) / strategy.num_replicas_in_sync
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    @tf.function
    def train_step(x, y):
        return strategy.reduce("SUM", strategy.run(step, args=(x, y)), axis=None)

    with strategy.scope():
        optimizer.build(model.trainable_variables)
    workers = strategy.num_replicas_in_sync
    share = batch // workers
    for start in range((WORKER if workers > 1 else 0) * share, len(x), batch):
        loss = train_step(tf.constant(x[start : start + share]), tf.constant(y[start : start + share]))
    return [weights.tolist() for weights in model.get_weights()], float(loss)


def optimizers(*names):
    """By how much the weights differ from those of one worker, which each worker trains by itself, and the loss."""
    return {name: problem.apart(*(map(_arrays, (_run(strategy, name) for strategy in (None, STRATEGY))))) for name in names}


def _run(strategy, name):
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        optimizer = problem.optimizer(*name.split(":"))
        model = problem.model(optimizer)
    weights, loss = train(model, optimizer, *problem.data(), strategy, problem.BATCH)
    return [*weights, loss]


def _arrays(values):
    return [np.asarray(each) for each in values]


def fit(*names):
    """By how much weights and history differ from those of one worker, with validation data."""
    x, y = problem.data()
    options = {"batch_size": problem.BATCH, "epochs": 2, "shuffle": False, "verbose": 0, "validation_data": (x[:20], y[:20])}

    def trained(make_model, name):
        model = make_model(lambda: problem.optimizer(*name.split(":")))
        history = model.fit(x, y, **options)
        return model.get_weights(), history.history, model.evaluate(x[:9], y[:9], verbose=0), model.predict(x[:9], verbose=0)

    return {name: problem.differences(*(trained(make, name) for make in (_alone, _together))) for name in names}


def callbacks(*names):
    """By how much what they see and leave differs from one worker; and all that, to be compared between workers."""
    cases = problem.callback_cases()
    left = {name: [problem.with_callback(make, cases[name]) for make in (_alone, _together)] for name in names}
    together = json.dumps(keras.tree.map_structure(_plain, [both[1] for both in left.values()]))
    apart = {name: problem.differences(*both) for name, both in left.items()}
    return {"apart": apart, "exact": hashlib.sha256(together.encode()).hexdigest()}


def resumed(folder, *names):
    """By how much a run that was interrupted ends elsewhere."""
    data = problem.data()
    return {name: problem.resumed(name, f"{folder}/{name}", _together, *data, problem.BATCH) for name in names}


def other_files(folder):
    """The error of a worker if the second one does not find the file of the first."""
    try:
        problem.resumed("SGD", f"{folder}/{WORKER}", _together, *problem.data(), problem.BATCH)
    except ValueError as error:
        return str(error)


def _alone(make_optimizer):
    return problem.model(make_optimizer())


def _together(make_optimizer):
    with STRATEGY.scope():
        return distributed.enable_multi_worker_fit(problem.model(make_optimizer()))


def _plain(value):
    return np.asarray(value).tolist()


def local():
    """LocalUpdates beside its formulas in NumPy."""
    x, y = problem.data()
    rate = LinearDecay(0.1, decay_steps=problem.STEPS)
    period = SynchronizationPeriod(rate, alpha=0.12, base_period=2)
    with STRATEGY.scope():
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
        optimizer = LocalUpdates(AdamW(rate, weight_decay=0.1, epsilon=1e-8), period)
    (weights,), _ = train(model, optimizer, x, y, STRATEGY, problem.BATCH)
    optimizer.average()
    expected = local_adamw.weights(x, y, problem.BATCH, [float(rate(t)) for t in range(problem.STEPS)], period.averages(), 2)
    return {"apart": float(np.abs(weights - expected).max())}


if __name__ == "__main__":
    processes.perform(globals())
