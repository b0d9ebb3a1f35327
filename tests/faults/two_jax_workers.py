"""A worker of two with JAX and gloo: `two_jax_workers.py FOLDER KILL`; the second one dies before update `KILL` of `fit`.

`TrainingState` saves each update; both go on from what was saved. At the end each prints whether the weights are those of a
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
os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras

from keras_lrsched import distributed

distributed.wait_for_workers(ADDRESSES, WORKER, timeout=200)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(ADDRESSES[0], len(ADDRESSES), WORKER, heartbeat_timeout_seconds=10, shutdown_timeout_seconds=10)
distribution = keras.distribution.DataParallel(devices=jax.devices(), auto_shard_dataset=False)
keras.distribution.set_distribution(distribution)

import numpy as np

from keras_lrsched._core import checkpoint_file
from keras_lrsched.callbacks import TrainingState
from keras_lrsched.data import ScheduledBatches
from tests.distributed import problem


class Kill(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.updates = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.updates == KILL and WORKER == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self.updates += 1

    def state(self):
        return {"updates": self.updates}

    def restore_state(self, state):
        self.updates = state["updates"]


def train(callbacks):
    model = problem.model(keras.optimizers.Adam(0.01))
    x, y = problem.data()
    share = problem.BATCH // 2
    own = np.arange(len(x)).reshape(-1, 2, share)[:, WORKER].ravel()
    batches = ScheduledBatches(x[own], y[own], batch_size=share, shuffle=False)
    model.fit(batches, verbose=0, callbacks=callbacks)
    return [np.asarray(each.numpy()) for each in (*model.variables, *model.optimizer.variables)]


first = checkpoint_file.read(PATH)["step"] if PATH.exists() else 0
resumed = train([Kill(), TrainingState(PATH, every=1)])
undisturbed = train([])
print(json.dumps({"first": first, "same": all(map(np.array_equal, resumed, undisturbed))}))
