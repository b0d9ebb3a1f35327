"""A worker of two under `MultiWorkerMirroredStrategy`: `two_workers.py FOLDER KILL`; the second one dies at update `KILL`.

The first one saves each update; both begin from what was saved. At the end each prints whether the weights are those of a
run that was not disturbed, which the two train after it.
"""

# ruff: noqa: E402
import json
import os
import signal
import sys
from pathlib import Path

ADDRESSES, WORKER = json.loads(os.environ["ADDRESSES"]), int(os.environ["WORKER"])
PATH, KILL = Path(sys.argv[1]) / "state", int(sys.argv[2])
os.environ["KERAS_BACKEND"] = "tensorflow"

from keras_lrsched import distributed

distributed.wait_for_workers(ADDRESSES, WORKER, timeout=200)
os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": ADDRESSES}, "task": {"type": "worker", "index": WORKER}})

import tensorflow as tf

STRATEGY = tf.distribute.MultiWorkerMirroredStrategy()

import keras
import numpy as np

from keras_lrsched._core import checkpoint_file
from keras_lrsched.callbacks import Snapshot
from tests.distributed import problem

x, y = problem.data()
with STRATEGY.scope():
    model = problem.model(keras.optimizers.Adam(0.01))
    model.optimizer.build(model.trainable_variables)


def step(x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x, training=True) - y)) / STRATEGY.num_replicas_in_sync
    model.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)


@tf.function
def train_step(x, y):
    STRATEGY.run(step, args=(x, y))


def train(first, save):
    share = problem.BATCH // 2
    for number in range(first, problem.STEPS):
        if number == KILL and WORKER == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        start = number * problem.BATCH + WORKER * share
        train_step(tf.constant(x[start : start + share]), tf.constant(y[start : start + share]))
        if save and WORKER == 0:
            checkpoint_file.write(PATH, {"step": number + 1, "model": Snapshot(model).state()})
    return Snapshot(model).state()["model"]


beginning, first = Snapshot(model), 0
if PATH.exists():
    saved = checkpoint_file.read(PATH)
    first = saved["step"]
    Snapshot.from_state(model, saved["model"]).restore()
resumed = train(first, save=True)
beginning.restore()
undisturbed = train(0, save=False)
print(json.dumps({"first": first, "same": all(map(np.array_equal, resumed, undisturbed))}))
