"""`fit` on two CPU devices of one process under `MirroredStrategy`, beside one: `mirrored.py TASK ...`, prints JSON."""

# ruff: noqa: E402
import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import numpy as np

from keras_lrsched.optimizers import AdamW, Lamb, Lion, LocalUpdates
from keras_lrsched.schedules import LinearDecay, SynchronizationPeriod
from tests.contract.callback_cases import CASES
from tests.contract.optimizer_problem import RUNS, gradients, variables
from tests.distributed import fedhyper, local_adamw, problem, processes

ONE, TWO = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def optimizers(*names):
    """By how much the weights differ."""
    return {name: problem.apart(*(_weights(strategy, *name.split(":")) for strategy in (ONE, TWO))) for name in names}


def _weights(strategy, *name):
    with strategy.scope():
        return problem.trained(lambda: problem.optimizer(*name), *problem.data(), problem.BATCH)[0]


def callbacks(*names):
    """By how much the weights, the history and what the callback has in its state differ."""
    cases = problem.callback_cases()

    def run(strategy, name):
        with strategy.scope():
            return problem.with_callback(lambda make_optimizer: problem.model(make_optimizer()), cases[name])

    return {name: problem.differences(*(run(strategy, name) for strategy in (ONE, TWO))) for name in names}


def resumed(folder, *names):
    """By how much a run that was interrupted ends elsewhere; it goes on under a strategy of its own."""

    def make_model(make_optimizer):
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            return problem.model(make_optimizer())

    data = problem.data()
    return {name: problem.resumed(name, f"{folder}/{name}", make_model, *data, problem.BATCH) for name in names}


def refusals():
    """The errors of the callbacks and optimizers that cannot work."""
    with TWO.scope():
        return {
            "GradientNoiseScale": _error(keras.optimizers.SGD(0.1), "GradientNoiseScale"),
            "PrecisionSchedule": _error(keras.optimizers.SGD(0.1), "PrecisionSchedule"),
            "ScheduleHyperparameter": _error(keras.optimizers.SGD(0.1, momentum=0.5), "ScheduleHyperparameter"),
            "LocalUpdates": _error(LocalUpdates(AdamW(0.1)), "GradientNormRecorder"),
            "accumulation": _error(AdamW(0.1, gradient_accumulation_steps=2), None),
            "fused": _error(AdamW(0.1, fused=True), None),
        }


def _error(optimizer, name):
    given = [] if name is None else [next(case for case in CASES if case.name == name).build(None)]
    try:
        problem.model(optimizer).fit(*problem.data(), batch_size=problem.BATCH, verbose=0, callbacks=given)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def fused():
    """The optimizers with kernels, which use Keras operations here, since kernels run on one replica only."""
    kinds = AdamW, Lion, Lamb
    return {kind.__name__: problem.apart(*(_with(kind, strategy) for strategy in (ONE, TWO))) for kind in kinds}


def _with(kind, strategy):
    with strategy.scope():
        return problem.trained(lambda: kind(0.01), *problem.data(), problem.BATCH)[0]


def local(inner):
    """LocalUpdates beside its formulas in NumPy: the largest difference after `fit`, and where the averages were."""
    x, y = problem.data()
    rate = LinearDecay(0.1, decay_steps=problem.STEPS)
    period = SynchronizationPeriod(rate, alpha=0.12, base_period=2)
    kind = AdamW if inner == "ours" else keras.optimizers.AdamW
    with TWO.scope():
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
        model.compile(LocalUpdates(kind(rate, weight_decay=0.1, epsilon=1e-8), period), "mse", jit_compile=False)
    same = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            left, right = TWO.experimental_local_results(model.trainable_variables[0].value)
            same.append(bool(np.all(left.numpy() == right.numpy())))

    model.fit(x, y, batch_size=problem.BATCH, shuffle=False, verbose=0, callbacks=[Watch()])
    expected = local_adamw.weights(x, y, problem.BATCH, [float(rate(t)) for t in range(problem.STEPS)], period.averages(), 2)
    averages = [step + 1 for step, equal in enumerate(same) if equal]
    return {"apart": float(np.abs(model.get_weights()[0] - expected).max()), "averages": averages, "due": period.averages()}


def outer(*runs):
    """By how much the weights after each round, and those of each replica between, differ from the reference runs."""
    rules = {
        "outer_average_own": {},
        "outer_diloco_own": {"outer": "nesterov"},
        "outer_slowmo_own": {"outer": "slowmo"},
        "scaffold_own": {"outer": "scaffold"},
    }
    return {run: _outer(RUNS[run]["traj"], 0.0 if run == "scaffold_own" else 0.9, rules[run]) for run in runs}


def _outer(trajectory, momentum, options):
    with TWO.scope():
        kernel = variables()["kernel"]
        optimizer = LocalUpdates(keras.optimizers.SGD(0.05, momentum=momentum), 2, **options)
        optimizer.build([kernel])

    @tf.function
    def step(g):
        k = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, "float32")
        optimizer.apply([(g * (1 + 0.5 * k) + 0.1 * k) / 2], [kernel])  # as of a loss that is divided by two

    apart = []
    for t, expected in enumerate(trajectory, start=1):
        TWO.run(step, args=(gradients(t)[0],))
        workers = [part.numpy().ravel() for part in TWO.experimental_local_results(kernel.value)]
        if t % 2 == 0:
            apart += [np.abs(worker - expected["x"]).max() for worker in workers]
        elif "w0" in expected:
            apart += [np.abs(w - expected[f"w{k}"]).max() for k, w in enumerate(workers)]
    return float(max(apart))


def hyper():
    """By how much FedHyper's weights after each update differ from those in NumPy, and how far its rates go from 1."""
    return {f"{outer} {period}": _hyper(outer, period) for outer in ("fedhyper", "fedhyper_client") for period in (3, 5)}


def _hyper(outer, period):
    with TWO.scope():
        kernel = variables()["kernel"]
        first = kernel.numpy()
        optimizer = LocalUpdates(keras.optimizers.SGD(0.5), period, outer=outer)
        optimizer.build([kernel])

    @tf.function
    def step(g):
        k = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, "float32")
        optimizer.apply([(g * (1 + 0.5 * k) + 0.1 * k) / 2], [kernel])

    def of_worker(t, k):
        return np.asarray(gradients(t)[0], "float64") * (1 + 0.5 * k) + 0.1 * k

    plain, _ = fedhyper.weights(first.astype("float64"), of_worker, None, 0.5, period)
    expected, _ = fedhyper.weights(first.astype("float64"), of_worker, outer, 0.5, period)
    apart = []
    for t, wanted in enumerate(expected, start=1):
        TWO.run(step, args=(gradients(t)[0],))
        found = [part.numpy() for part in TWO.experimental_local_results(kernel.value)]
        apart.append(max(np.abs(one - other).max() for one, other in zip(found, wanted, strict=True)))
    return {"apart": float(max(apart)), "effect": float(np.abs(plain[-1][0] - expected[-1][0]).max())}


if __name__ == "__main__":
    processes.perform(globals())
