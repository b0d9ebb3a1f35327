"""Bursts of batches whose loss is NaN, and what guards against them."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import LossRecorder, StabilityMonitor
from keras_lrsched.laws import LossCurve
from keras_lrsched.precision import LossScaleOptimizer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
BURSTS, BATCHES = 20, 120


class Batches(keras.utils.PyDataset):
    """Batches in a fixed order."""

    def __init__(self, inputs):
        super().__init__()
        self.inputs = inputs

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, i):
        return self.inputs[i], np.ones((4, 1), "float32")


def inputs():
    """All batches, and which of them are finite: 20 bursts of one to three are not."""
    random = np.random.default_rng(6)
    all_of_them = random.normal(size=(BATCHES, 4, 3)).astype("float32")
    finite = np.ones(BATCHES, bool)
    for start in range(2, BATCHES, BATCHES // BURSTS):
        finite[start : start + random.integers(1, 4)] = False
    all_of_them[~finite, 0, 0] = np.nan
    return all_of_them, finite


def train(batches, callbacks=(), optimizer=None):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), loss="mse")
    history = model.fit(Batches(batches), shuffle=False, verbose=0, callbacks=list(callbacks))
    return model, history


@pytest.fixture(scope="module")
def clean():
    """The weights of a run that never saw the batches that are not finite."""
    batches, finite = inputs()
    return train(batches[finite])[0].get_weights()


def assert_equal(weights, others):
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(one, other)


def test_rolled_back(clean, report):
    batches, finite = inputs()
    monitor = StabilityMonitor((batches[0], np.ones((4, 1))), every=1, power_iterations=1, rollback=True)
    model, _ = train(batches, [monitor])
    assert monitor.instabilities == (~finite).sum()
    assert_equal(model.get_weights(), clean)
    report(
        "Burst of NaN losses, `StabilityMonitor(rollback=True, every=1)`",
        BURSTS,
        "rolled back: the same bits as a run without these batches",
    )


def test_left_out_by_loss_scaling(clean, report):
    batches, _ = inputs()
    optimizer = LossScaleOptimizer(keras.optimizers.SGD(0.05, momentum=0.9), 128.0, min_scale=2.0**-60)
    model, _ = train(batches, optimizer=optimizer)
    assert_equal(model.get_weights(), clean)
    report("Burst of NaN gradients, `LossScaleOptimizer`", BURSTS, "updates left out: the same bits as without them")


def test_an_abort_of_loss_scaling(report):
    batches, _ = inputs()
    batches[5:] = np.nan
    with pytest.raises(Exception, match=r"loss scale has come down to its minimum|not finite"):
        train(batches, optimizer=LossScaleOptimizer(keras.optimizers.SGD(0.05), 128.0))
    report("NaN gradients without end, `LossScaleOptimizer`", 1, "clear error")


def test_stopped(report):
    batches, finite = inputs()
    monitor = StabilityMonitor((batches[0], np.ones((4, 1))), every=1000, action="stop")
    _, history = train(batches, [monitor])
    assert monitor.instabilities == history.history["instabilities"][-1] == 1
    assert int(history.model.optimizer.iterations) == np.flatnonzero(~finite)[0] + 1
    report('Burst of NaN losses, `StabilityMonitor(action="stop")`', 1, "stops at the first; `instabilities` says so")


def test_no_law_is_fitted_to_it(tmp_path, report):
    batches, finite = inputs()
    train(batches, [LossRecorder(tmp_path / "run.csv")])
    with pytest.raises(ValueError, match=rf"positive and finite. Received: loss=nan at step {np.flatnonzero(~finite)[0]}"):
        LossCurve.load(tmp_path / "run.csv")
    report("Burst of NaN losses without a guard, recorded by `LossRecorder`", 1, "clear error of `LossCurve.load`")
