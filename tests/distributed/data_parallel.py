"""`keras.distribution` on JAX: `data_parallel.py TASK ...`, prints JSON.

Two host devices in one process, or as many as DEVICES says; or, if ADDRESSES has two, one device in each of two processes
that talk over gloo.
"""

# ruff: noqa: E402
import json
import os

ADDRESSES, WORKER = json.loads(os.environ["ADDRESSES"]), int(os.environ["WORKER"])
WORKERS = len(ADDRESSES)
os.environ["KERAS_BACKEND"] = "jax"
if WORKERS == 1:
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={os.environ.get('DEVICES', 2)}"

import jax
import keras

from keras_lrsched import distributed

if WORKERS > 1:
    distributed.wait_for_workers(ADDRESSES, WORKER, timeout=300)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(ADDRESSES[0], WORKERS, WORKER)

import numpy as np

from keras_lrsched._core.backends import broadcast_from_first
from keras_lrsched.callbacks import Controller, GradientNormRecorder, LossRecorder
from keras_lrsched.optimizers import AdamW, LocalUpdates
from tests.distributed import problem, processes


def everywhere():
    return keras.distribution.DataParallel(devices=jax.devices(), auto_shard_dataset=False)


def own_part():
    """Each process gives its part of each batch."""
    x, y = problem.data()
    share = problem.BATCH // WORKERS
    own = np.arange(len(x)).reshape(-1, WORKERS, share)[:, WORKER].ravel()
    return x[own], y[own], share


def both(make_optimizer, make_callbacks=lambda: ()):
    """The results of one device, in each process by itself, and of two devices."""
    one = make_callbacks()
    weights, loss = problem.trained(make_optimizer, *problem.data(), problem.BATCH, one)
    keras.distribution.set_distribution(everywhere())
    two = make_callbacks()
    others, loss_of_others = problem.trained(make_optimizer, *own_part(), two)
    keras.distribution.set_distribution(None)
    return problem.apart(weights, others), abs(loss - loss_of_others), one, two


def optimizers(*names):
    return {name: both(lambda name=name: problem.optimizer(*name.split(":")))[0] for name in names}


def distributions():
    """Four devices: each with a part of the batch, and with a part of the batch and of the first layer."""
    layout = keras.distribution.LayoutMap(keras.distribution.DeviceMesh((2, 2), ("batch", "model"), jax.devices()))
    layout["hidden/kernel"] = (None, "model")
    layout["hidden/bias"] = ("model",)
    return {
        "data": everywhere(),
        "model": keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False),
    }


def meshes(*names):
    """The results of four devices and of one, for an optimizer as `Lion:REXDecay`, or a case of either contract."""

    def run(name):
        if name in problem.optimizer_cases():
            return problem.trained(problem.optimizer_cases()[name], *problem.data(), problem.BATCH)[0]
        if ":" in name:
            return problem.trained(lambda: problem.optimizer(*name.split(":")), *problem.data(), problem.BATCH)
        return problem.with_callback(lambda make_optimizer: problem.model(make_optimizer()), problem.callback_cases()[name])

    apart = {}
    for name in names:
        alone = run(name)
        for kind, distribution in distributions().items():
            keras.distribution.set_distribution(distribution)
            apart[f"{name} {kind}"] = problem.differences(alone, run(name))
            keras.distribution.set_distribution(None)
    return apart


class Halves(Controller):
    """Lowers the learning rate where the loss is above the last one, and keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.seen, self.rates = [], []

    def after_update(self):
        if self.seen and self.loss > self.seen[-1]:
            self.learning_rate = self.learning_rate / 2
        self.seen.append(self.loss)
        self.rates.append(self.learning_rate)


def callbacks(folder):
    """The values that callbacks see, and their decisions."""

    def make():
        path = None if keras.distribution.distribution() is None else f"{folder}/run.csv"
        return Halves(), GradientNormRecorder(), LossRecorder(path, flush_every=3)

    keras.distribution.set_distribution(everywhere())
    received = broadcast_from_first({"loss": WORKER + 0.1, "accuracy": WORKER - 1.0})
    keras.distribution.set_distribution(None)
    weights, loss, one, two = both(lambda: keras.optimizers.SGD(0.2), make)
    return {
        "received": received,
        "weights": weights,
        "loss": loss,
        "seen": float(np.max(np.abs(np.subtract(one[0].seen, two[0].seen)))),
        "rates": [one[0].rates, two[0].rates],
        "exact": [value.hex() for value in two[0].seen],
        "recorded": float(np.max(np.abs(np.subtract(one[2].loss, two[2].loss)))),
        "sizes": [one[2].batch_size, two[2].batch_size],
        "norms": float(np.max(np.abs(np.subtract(one[1].gradient_norm, two[1].gradient_norm)))),
    }


def resumed(folder, *names):
    """By how much a run that was interrupted ends elsewhere."""

    def make_model(make_optimizer):
        keras.distribution.set_distribution(everywhere())
        return problem.model(make_optimizer())

    return {name: problem.resumed(name, f"{folder}/{name}", make_model, *own_part()) for name in names}


def fused():
    """A kernel is of one device; two do without."""
    apart, *_ = both(lambda: AdamW(0.01))
    try:
        keras.distribution.set_distribution(everywhere())
        problem.model(AdamW(0.01, fused=True)).fit(*problem.data(), batch_size=problem.BATCH, verbose=0)
    except RuntimeError as error:
        return {"apart": apart, "error": str(error)}


def local():
    keras.distribution.set_distribution(everywhere())
    try:
        problem.model(LocalUpdates(AdamW(0.01))).fit(*problem.data(), batch_size=problem.BATCH, verbose=0)
    except ValueError as error:
        return str(error)


if __name__ == "__main__":
    processes.perform(globals())
