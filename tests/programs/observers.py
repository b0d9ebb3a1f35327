"""Callbacks that only look: they record what happened, and the training goes on as if they were not there.

All that support a program watch one run of it, whose weights are compared bit by bit with those of a run without them.
"""

import copy
import csv
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lrsched import callbacks
from tests.programs.bench import RATE, Bench, assert_equal, constant, state
from tests.programs.truth import array


def probe(bench):
    """A few samples of the data."""
    options = bench.keras_run().options
    return keras.tree.map_structure(lambda array: array[:6], (options["x"], options.get("y", options["x"])))


MAKE = {
    "LearningRateLogger": lambda bench: callbacks.LearningRateLogger(Path(tempfile.mkdtemp()) / "rates.csv"),
    "LossRecorder": lambda bench: callbacks.LossRecorder(),
    "GradientNormRecorder": lambda bench: callbacks.GradientNormRecorder(),
    "GradientNoiseScale": lambda bench: callbacks.GradientNoiseScale(),
    "StabilityMonitor": lambda bench: callbacks.StabilityMonitor(probe(bench), every=1, power_iterations=1),
    "WeightAveraging": lambda bench: callbacks.WeightAveraging("swa", every=1, keep_average=False),
}


class Taken(keras.callbacks.Callback):
    """Copies what the observers have at the end of each `fit`, and the weights after each batch."""

    def __init__(self, observers):
        super().__init__()
        self.observers, self.fits, self._trained = observers, [], None

    def on_train_begin(self, logs=None):
        trained = self.model, self.model.optimizer
        if self._trained is None or any(one is not other for one, other in zip(trained, self._trained, strict=True)):
            self.weights = []  # a further `fit` of one model with one optimizer goes on with what is averaged
        self._trained = trained

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(trainable(self.model))

    def on_train_end(self, logs=None):
        taken = {"weights": list(self.weights), "last": trainable(self.model)}
        for name, observer in self.observers.items():
            taken[name] = _take(observer)
        self.fits.append(taken)


def trainable(model):
    return [np.array(variable.numpy()) for variable in model.trainable_variables]


def _take(observer):
    if isinstance(observer, callbacks.LearningRateLogger):
        with observer.path.open() as file:
            return list(csv.DictReader(file))
    if isinstance(observer, callbacks.WeightAveraging):
        observer.on_predict_begin()
        average = trainable(observer.model)
        observer.on_predict_end()
        return average
    names = ("loss", "learning_rate", "batch_size", "gradient_norm", "history", "measured")
    return {name: copy.deepcopy(getattr(observer, name)) for name in names if name in vars(observer)}


def watched(bench: Bench, name):
    """The records of an observer after each `fit`, and the run that it watched, together with all others, or alone."""
    if not hasattr(bench, "watched"):
        bench.watched = _watch_all(bench)
    taken, run = bench.watched or _watch(bench, [name])
    return [{**fit, "observer": fit[name]} for fit in taken.fits], run


def _watch_all(bench):
    from tests.programs.matrix import FEATURES, support

    names = [name for name in MAKE if support(bench.program, FEATURES[name]) == "exact"]
    try:
        return _watch(bench, names)
    except (AssertionError, Exception):
        return None  # then each watches alone, so that it shows which of them fails


def _watch(bench, names):
    observers = {name: MAKE[name](bench) for name in names}
    taken = Taken(observers)
    run = bench.keras_run().train([*observers.values(), taken])
    assert_equal(run, bench.baseline)
    return taken, run


def refused(bench, callback, run=None, train=None):
    """A run with the callback raises, names its class or what it received, and leaves everything as it was.

    Where only a step can show it, by its logs or by the optimizers that it uses, one batch may have been trained.
    """
    run = bench.keras_run() if run is None else run
    before = state(run)
    with pytest.raises(ValueError, match=rf"{type(callback).__name__}|Received: "):
        train(run) if train else run.train([callback])
    after = state(run)
    if bench.program.has("no_loss_in_logs", "several_optimizers"):
        assert all(value <= 1 for path, value in after.items() if path.endswith("._iterations")), "it has trained"
        return
    for path, value in before.items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)
    assert not any(value for path, value in after.items() if path.endswith("._iterations")), "it has trained"


def refuse(name):
    return lambda bench: refused(bench, MAKE[name](bench))


def rows_of_fits(fits, taken):
    """The records of each fit, and its batches."""
    for batches, fit in zip(fits, taken, strict=True):
        yield fit, batches


def updates(batches):
    """The batches with which weights were updated, by their places."""
    return [i for i, batch in enumerate(batches) if batch.rates]


def learning_rate_logger(bench):
    taken, run = watched(bench, "LearningRateLogger")
    for fit, batches in rows_of_fits(bench.truth.fits, taken):
        if bench.program.has("accumulates_by_hand"):  # a batch without a step of an optimizer has no row
            batches = [batches[i] for i in updates(batches)]
        rows = fit["observer"][-len(batches) :]
        for place, path in enumerate(bench.program.optimizers):
            column = "learning_rate" if path == "optimizer" else f"{path}.learning_rate"
            logged = [float(rows[i][column]) for i in updates(batches)]
            np.testing.assert_allclose(logged, [batches[i].rates[place] for i in updates(batches)], rtol=1e-6)
            last = batches[updates(batches)[-1]].rates[place]
    np.testing.assert_allclose(run.history.history[column][-1], last, rtol=1e-6)


def loss_recorder(bench):
    taken, _ = watched(bench, "LossRecorder")
    for fit, batches in rows_of_fits(bench.truth.fits, taken):
        recorded = {name: values[-len(batches) :] for name, values in fit["observer"].items()}
        assert recorded["batch_size"] == [batch.size for batch in batches]
        rates = [recorded["learning_rate"][i] for i in updates(batches)]
        np.testing.assert_allclose(rates, [batches[i].rates[-1] for i in updates(batches)], rtol=1e-6)
        if not bench.program.has("stateful_random"):
            losses = [batch.losses[-1] for batch in batches]
            np.testing.assert_allclose(recorded["loss"], losses, rtol=bench.rtol, atol=1e-5)


def gradients_of_updates(bench, batches):
    """The values that each update used, and the batches that it is the mean of."""
    size = bench.accumulated
    of_batches = [batch.gradients[0] for batch in batches if batch.gradients]
    for i in range(0, len(of_batches) - size + 1, size):
        part = of_batches[i : i + size]
        yield [sum(each) / size for each in zip(*part, strict=True)], part


def norm(gradients):
    return float(np.sqrt(sum(np.sum(each.astype("float64") ** 2) for each in gradients)))


def gradient_norm_recorder(bench):
    taken, _ = watched(bench, "GradientNormRecorder")
    for fit, batches in rows_of_fits(bench.truth.fits, taken):
        expected = [norm(gradients) for gradients, _ in gradients_of_updates(bench, batches)]
        recorded = fit["observer"]["gradient_norm"][-len(expected) :]
        if bench.program.has("stateful_random"):
            assert len(recorded) == len(expected)
        else:
            np.testing.assert_allclose(recorded, expected, rtol=10 * bench.rtol)


def gradient_noise_scale(bench):
    taken, _ = watched(bench, "GradientNoiseScale")
    fit, batches = taken[-1], bench.truth.fits[-1]
    square = variance = 0.0
    b, scales = batches[0].size, []
    for gradients, parts in gradients_of_updates(bench, batches):
        small, large = np.mean([norm(part) ** 2 for part in parts]), norm(gradients) ** 2
        square += 0.01 * ((2 * b * large - b * small) / b - square)
        variance += 0.01 * ((small - large) / (1 / b - 1 / (2 * b)) - variance)
        scales.append(variance / square if square > 0 else np.nan)
    np.testing.assert_allclose([scale for _, scale in fit["observer"]["history"]], scales, rtol=1e-3)


def stability_monitor(bench):
    taken, run = watched(bench, "StabilityMonitor")
    measured = taken[-1]["observer"]["measured"]
    x, y = probe(bench)
    seeds = [(each, each.numpy()) for each in run.model.non_trainable_variables if "seed_generator" in each.path]
    outputs = [np.abs(each).max() for each in keras.tree.flatten(run.model.predict(x, batch_size=6, verbose=0))]
    np.testing.assert_allclose(measured["max_logit"], max(outputs), rtol=bench.rtol)
    if keras.backend.backend() == "tensorflow" and not bench.program.has("several_outputs"):
        import tensorflow as tf

        gradients = []
        for part in [slice(0, 3), slice(3, 6)] if seeds else [slice(6)]:  # noise in inference is the same for both halves
            for variable, value in seeds:
                variable.assign(value)
            half = keras.tree.map_structure(lambda each, part=part: each[part], {"x": x, "y": y})
            with tf.GradientTape() as tape:
                y_pred = run.model(half["x"], **({} if bench.program.has("own_train_step") else {"training": False}))
                loss = run.model.compute_loss(**half, y_pred=y_pred, training=False)
            gradients.append(
                [array(each) for each in tape.gradient(loss, run.model.trainable_variables) if each is not None]
            )
        gradients = [np.mean(parts, axis=0) for parts in zip(*gradients, strict=True)]
        assert np.isfinite(measured["sharpness"])
        np.testing.assert_allclose(measured["gradient_norm"], norm(gradients), rtol=100 * bench.rtol)


def weight_averaging(bench):
    taken, _ = watched(bench, "WeightAveraging")
    for fit in taken:
        checkpoints = fit["weights"][bench.accumulated - 1 :: bench.accumulated]
        for i, average in enumerate(fit["observer"]):
            expected = np.mean([each[i].astype("float64") for each in checkpoints], axis=0)
            np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(fit["last"][i], fit["weights"][-1][i])


def critical_batch_size(bench):
    critical = callbacks.CriticalBatchSize(8, (1, 2))
    run = bench.keras_run(constant).train([critical])
    assert_equal(run, bench.constant)
    assert [each["batch_size"] for each in critical.history] == [4] * len(critical.history)
    assert np.isclose(critical.history[0]["learning_rate"], [RATE, np.sqrt(2) * RATE], rtol=1e-6).any()


def refuse_critical_batch_size(bench):
    if bench.program.has("lengths_differ"):  # which the first measurement shows
        with pytest.raises(ValueError, match="CriticalBatchSize cuts other batches"):
            bench.keras_run(constant).train([callbacks.CriticalBatchSize(8, (1, 2))])
        return
    refused(bench, callbacks.CriticalBatchSize(8, (1, 2)), bench.keras_run(constant))
