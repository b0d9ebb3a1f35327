"""Callbacks that set values: compared with runs in which a hand-written callback or optimizer sets them."""

import keras
import numpy as np
import pytest

from keras_lrsched import callbacks
from keras_lrsched.data import ScheduledBatches
from keras_lrsched.schedules import BatchSizeWarmup, SparsityRamp
from tests.programs import references
from tests.programs.bench import EAGER, RATE, assert_close, assert_equal, constant, state
from tests.programs.observers import refused
from tests.programs.truth import Truth


def sparsity():
    return SparsityRamp(0.0, 0.5, begin_step=1, end_step=5, frequency=2)


def magnitude_pruning(bench):
    run = bench.sgd_run(constant).train([callbacks.MagnitudePruning(sparsity())])
    pruning = references.Pruning(sparsity())
    expected = bench.sgd_run(constant, mode=EAGER, make=pruning.optimizer).train([pruning])
    assert_close(run, expected, bench.rtol)
    for variable, other in zip(run.model.variables, expected.model.variables, strict=True):
        if variable.name.endswith("kernel"):
            np.testing.assert_array_equal(np.array(variable.numpy()) == 0, np.array(other.numpy()) == 0)


def refuse_magnitude_pruning(bench):
    refused(bench, callbacks.MagnitudePruning(sparsity()), bench.sgd_run(constant))


class Forgets(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        getattr(optimizer, "inner_optimizer", optimizer).forget()


def hypergradient(bench):
    controller = callbacks.HypergradientLearningRate(
        hypergradient_learning_rate=references.Hypergradient.b, max_learning_rate=None
    )
    run = bench.sgd_run(constant).train([controller])
    expected = bench.run(references.Hypergradient, constant, mode=EAGER).train([Forgets()])
    assert_close(run, expected, 10 * bench.rtol)


def refuse_hypergradient(bench):
    refused(bench, callbacks.HypergradientLearningRate(), bench.sgd_run(constant))


def finder():
    return callbacks.LearningRateFinder(1e-5, 1e-2, total_steps=20, stop_factor=1e6)


def find(run, data):
    options = {name: value for name, value in data.options.items() if name not in ("epochs", "verbose", "x", "y")}
    return finder().find(run.model, data.options["x"], data.options.get("y"), fit_options=options)


def learning_rate_finder(bench):
    run = bench.keras_run(constant)
    if bench.program.has("goes_on", "own_state", "stateful_random"):  # data of its own, since those of a run move on
        data = bench.keras_run(constant)
        run = bench.keras_run(constant)
    else:
        data = run
    before = state(run)
    rate = find(run, data)
    assert 1e-5 < rate < 1e-2
    after = state(run)
    for path, value in before.items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)
    if not bench.program.has("stateful_random"):
        assert_equal(run.train(), bench.constant)


def refuse_learning_rate_finder(bench):
    refused(bench, finder(), bench.keras_run(constant), train=lambda run: find(run, run))


def autolrs_callback():
    return callbacks.AutoLRS(1e-3, 0.1, search_steps=8, exploitation_steps=8, candidates=2, search="log_grid")


def autolrs(bench):
    """The steps that are kept are those of a run with the rate that was found."""
    controller = autolrs_callback()
    run = bench.keras_run(constant).train([controller])
    stages = controller.stages
    assert [len(stage["tried"]) for stage in stages] == [2] * len(stages)
    assert controller.search_steps_done == sum(stage["search_steps"] for stage in stages) > 0

    def rate(step):
        return [stage["learning_rate"] for stage in stages if stage["step"] <= step][-1]

    expected = bench.keras_run(constant, mode=EAGER).train([references.Rates(rate)])
    assert_close(run, expected, bench.rtol)


def refuse_autolrs(bench):
    refused(bench, autolrs_callback(), bench.keras_run(constant))


def volsched_callback():
    return callbacks.VolSched(8, every=2, sensitivity=0.2, monitor="loss")


def volsched(bench):
    run = bench.keras_run(constant).train([volsched_callback()])
    truth = Truth()

    def losses():
        of_batches, size = [batch.losses[-1] for batch in truth.fits[-1]], bench.accumulated
        return [np.mean(of_batches[i : i + size]) for i in range(0, len(of_batches) - size + 1, size)]

    by_hand = references.Volatility(losses, 8, 2, 0.2)
    with truth.watching():
        expected = bench.keras_run(constant, mode=EAGER).train([truth, by_hand])
    assert_close(run, expected, 10 * bench.rtol)


def refuse_volsched(bench):
    refused(bench, volsched_callback(), bench.keras_run(constant))


def arrays(run):
    """The data of a run as `ScheduledBatches` take them, without what `fit` is not to be given then."""
    given = {name: run.options.pop(name) for name in ("x", "y", "sample_weight") if name in run.options}
    size = run.options.pop("batch_size")
    run.options.pop("shuffle")
    return given, size


def scheduled_batches(bench):
    """The same batches, in the same order, are trained as `fit` trains arrays.

    A `fit` that makes a dataset of them is refused, with the remedy.
    """
    run = bench.keras_run()
    given, size = arrays(run)
    batches = run.options["x"] = ScheduledBatches(**given, batch_size=size, shuffle=False)
    if bench.program.has("makes_datasets"):
        with pytest.raises(ValueError, match="to_tf_dataset"):
            run.train()
        run.options["x"] = batches.to_tf_dataset()
    assert_equal(run.train(), bench.baseline)


def batch_size_schedule(bench):
    """The batches have the sizes of the schedule, and the rate goes with them."""
    sizes = BatchSizeWarmup([2, 4], boundaries=[3])
    run = bench.sgd_run(constant)
    given, _ = arrays(run)
    run.options["x"] = ScheduledBatches(**given, batch_size=2, shuffle=False)
    controller = callbacks.BatchSizeSchedule(sizes, "linear")
    run.train([controller])

    expected = bench.sgd_run(constant, mode=EAGER)
    given, _ = arrays(expected)
    epochs, wanted = cut(given, sizes)
    rates = references.Rates(lambda step: RATE * wanted[step] / 2)
    for batches in epochs:
        expected.options.update(x=references.batches(batches), shuffle=False, epochs=1)
        expected.train([rates])
    assert controller.batch_size == [len(keras.tree.flatten(batch)[0]) for batches in epochs for batch in batches]
    assert_close(run, expected, bench.rtol)


def cut(given, sizes):
    """The batches of each of two epochs, and the sizes that were asked for."""
    parts = [given[name] for name in ("x", "y", "sample_weight") if given.get(name) is not None]
    data = parts[0] if len(parts) == 1 else tuple(parts)
    samples = len(keras.tree.flatten(data)[0])
    epochs, wanted = [[], []], []
    for batches in epochs:
        start = 0
        while start < samples:
            size = round(float(sizes(len(wanted))))
            batches.append(keras.tree.map_structure(lambda each, at=start, n=size: each[at : at + n], data))
            wanted.append(size)
            start += size
    return epochs, wanted


def refuse_batch_size_schedule(bench):
    refused(bench, callbacks.BatchSizeSchedule(BatchSizeWarmup([2, 4], boundaries=[3])), bench.sgd_run(constant))
