"""A loop with `strategy.run` under `MultiWorkerMirroredStrategy`, a process each: `multi_worker.py TASK ...`."""

# ruff: noqa: E402
import json
import os
import sys

ADDRESSES, WORKER = json.loads(os.environ["ADDRESSES"]), int(os.environ["WORKER"])
os.environ["KERAS_BACKEND"] = "tensorflow"

from keras_lrsched import distributed

distributed.meet(ADDRESSES, WORKER, timeout=300)
os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": ADDRESSES}, "task": {"type": "worker", "index": WORKER}})

import tensorflow as tf

STRATEGY = tf.distribute.MultiWorkerMirroredStrategy()

import keras
import numpy as np

from keras_lrsched.optimizers import AdamW, LocalUpdates
from keras_lrsched.schedules import LinearDecay, SynchronizationPeriod
from tests.distributed import local_adamw, problem


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
    task, *names = sys.argv[1:]
    print(json.dumps(globals()[task](*names)), flush=True)
