"""Local updates on one replica; tests/distributed has two."""

import keras
import pytest
from keras import ops

from keras_lrsched._core import backends
from keras_lrsched.optimizers import AdamW, LocalUpdates, ScheduleFreeSGD
from keras_lrsched.schedules import LinearDecay, SynchronizationPeriod
from tests.contract.backends import BACKEND


def updated(optimizer):
    w = keras.Variable([1.0, -1.0])
    for t in range(5):
        optimizer.apply([ops.convert_to_tensor([t + 1.0, 0.5])], [w])
    return ops.convert_to_numpy(w).tolist()


def test_one_replica_is_the_inner_optimizer():
    assert updated(LocalUpdates(AdamW(0.1), 2)) == updated(AdamW(0.1))
    assert updated(LocalUpdates("sgd")) == updated(keras.optimizers.SGD())


def test_fit_on_one_replica_ends_as_it_would():
    def trained(optimizer):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
        model.compile(optimizer, "mse")
        model.fit(ops.ones((8, 1)), ops.zeros((8, 1)), batch_size=4, verbose=0)
        return [weights.tolist() for weights in model.get_weights()]

    assert trained(LocalUpdates(AdamW(0.1))) == trained(AdamW(0.1))


@pytest.mark.parametrize("period", [3, SynchronizationPeriod(LinearDecay(0.01, decay_steps=100), alpha=0.02)])
def test_config(period):
    optimizer = LocalUpdates(AdamW(0.5, weight_decay=0.1), period, name="local")
    config = keras.saving.serialize_keras_object(optimizer)
    loaded = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(loaded) == config
    assert type(loaded.period) is type(period)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (lambda: AdamW(use_ema=True), "averages no weights"),
        (ScheduleFreeSGD, "averages no weights"),
        (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "Put the LossScaleOptimizer around"),
    ],
)
def test_refuses(inner, message):
    with pytest.raises(ValueError, match=message):
        LocalUpdates(inner())


def test_an_outer_rule_needs_replicas():
    for outer in ("nesterov", "slowmo", "scaffold"):
        with pytest.raises(ValueError, match=f"needs several replicas. Received: outer='{outer}'"):
            LocalUpdates(keras.optimizers.SGD(0.1), outer=outer).build([keras.Variable([1.0])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outer": "adam"}, "`outer` must be one of"),
        ({"outer": "nesterov", "outer_momentum": 1.0}, "`outer_momentum` must be"),
        ({"outer": "slowmo", "outer_learning_rate": 0}, "`outer_learning_rate` must be"),
        ({"outer_momentum": 0.5}, "`outer_momentum` is for another `outer`"),
        ({"outer": "scaffold", "outer_momentum": 0.5}, "`outer_momentum` is for another `outer`"),
        ({"outer": "fedhyper_client", "outer_momentum": 0.5}, "`outer_momentum` is for another `outer`"),
        ({"outer": "scaffold"}, "needs SGD without momentum"),
    ],
)
def test_bad_outer_rules(options, message):
    with pytest.raises(ValueError, match=message):
        LocalUpdates(AdamW(), **options)


def test_refuses_to_leave_updates_out_on_one_replica(monkeypatch):
    optimizer = LocalUpdates(AdamW(nonfinite="skip"))
    monkeypatch.setattr(backends, "replicas", lambda: 2)
    with pytest.raises(ValueError, match="Received: an inner nonfinite='skip'"):
        optimizer.build([keras.Variable([1.0])])


@pytest.mark.skipif(BACKEND == "tensorflow", reason="there, workers are replicas")
def test_refuses_processes_that_it_cannot_average(monkeypatch):
    monkeypatch.setattr(f"keras_lrsched._core.backends.{BACKEND}.processes", lambda: 2)
    with pytest.raises(ValueError, match=r"Received: 2 processes, keras\.distribution=None"):
        LocalUpdates(AdamW()).build([keras.Variable([1.0])])
