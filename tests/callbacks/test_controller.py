"""The behavior that every controller inherits from its base: true values, the learning rate, refusals, state."""

import copy

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import Controller, ScheduleHyperparameter
from keras_lrsched.schedules import LinearDecay
from tests.callbacks.linear_regression import W, jit, linear_model
from tests.contract.backends import BACKEND

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(10, 2)).astype("float32"), RANDOM.normal(size=(10, 1)).astype("float32")


class FollowsLoss(Controller):
    """The learning rate is a tenth of the loss of the batch before."""

    saved = ("rates", "losses")

    def __init__(self, monitor=("loss",)):
        super().__init__(monitor)
        self.rates, self.losses = [], []

    def before_update(self):
        self.rates.append(self.learning_rate)

    def after_update(self):
        self.losses.append(self.loss)
        self.learning_rate = 0.1 * self.loss


def fit(model, *callbacks, **options):
    model.fit(X, Y, **{"batch_size": 4, "shuffle": False, "verbose": 0, **options}, callbacks=list(callbacks))


def expected(epochs):
    w, rate, rates, losses = W, 0.05, [], []
    for t in range(3 * epochs):
        part = slice(4 * (t % 3), 4 * (t % 3) + 4)
        error = X[part] @ w - Y[part]
        rates.append(rate)
        losses.append(np.mean(error**2))
        w = w - rate * 2 * X[part].T.astype("float64") @ error / len(error)
        rate = 0.1 * losses[-1]
    return rates, losses


@jit
@pytest.mark.parametrize("scaled", [False, True])
def test_sets_the_learning_rate_from_the_loss(jit, scaled):
    optimizer = keras.optimizers.SGD(0.05)
    model = linear_model(keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0) if scaled else optimizer, jit)
    controller = FollowsLoss()
    fit(model, controller, epochs=3)
    rates, losses = expected(epochs=3)
    np.testing.assert_allclose(controller.rates, rates, rtol=1e-5)
    np.testing.assert_allclose(controller.losses, losses, rtol=1e-5)
    assert controller.step == 9
    assert controller.optimizer is optimizer


def test_goes_on_in_a_second_fit():
    model, controller = linear_model(keras.optimizers.SGD(0.05)), FollowsLoss()
    fit(model, controller, epochs=1)
    fit(model, controller, epochs=2)
    np.testing.assert_allclose(controller.rates, expected(epochs=3)[0], rtol=1e-5)
    assert controller.step == 9


def test_begins_anew_for_another_model_or_optimizer():
    controller, model = FollowsLoss(), linear_model(keras.optimizers.SGD(0.05))
    fit(linear_model(keras.optimizers.SGD(0.1)), controller, epochs=2)
    fit(model, controller, epochs=2)
    np.testing.assert_allclose(controller.rates, expected(epochs=2)[0], rtol=1e-5)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.set_weights([W])
    fit(model, controller, epochs=2)
    np.testing.assert_allclose(controller.rates, expected(epochs=2)[0], rtol=1e-5)
    assert controller.step == 6


def test_a_copy_begins_anew():
    model, controller = linear_model(keras.optimizers.SGD(0.05)), FollowsLoss()
    fit(model, controller)
    copied = copy.deepcopy(controller)
    fit(linear_model(keras.optimizers.SGD(0.05)), copied)
    assert copied.rates == controller.rates
    assert copied.step == 3


def test_a_state_from_outside_is_that_of_the_next_fit():
    model, controller = linear_model(keras.optimizers.SGD(0.05)), FollowsLoss()
    fit(model, controller)
    state, others = controller.state(), [linear_model(keras.optimizers.SGD(0.05)) for _ in range(2)]
    controller.restore_state(state)
    fit(others[0], controller)
    assert controller.step == 6
    fit(others[1], controller)
    assert controller.step == 3


@pytest.mark.parametrize("first", [True, False])
def test_refuses_backups_that_lack_its_state(first, tmp_path):
    pair = [FollowsLoss(), keras.callbacks.BackupAndRestore(tmp_path)]
    with pytest.raises(ValueError, match=r"use TrainingState.*Received: BackupAndRestore beside FollowsLoss"):
        fit(linear_model(keras.optimizers.SGD(0.05)), *(pair if first else pair[::-1]))


def test_refuses_to_go_on_from_an_orbax_checkpoint():
    class OrbaxCheckpoint(keras.callbacks.Callback):
        """The name is what counts: Keras' own needs a library."""

    saves = OrbaxCheckpoint()
    fit(linear_model(keras.optimizers.SGD(0.05)), FollowsLoss(), saves)
    with pytest.raises(ValueError, match="Received: OrbaxCheckpoint beside FollowsLoss"):
        fit(linear_model(keras.optimizers.SGD(0.05)), FollowsLoss(), saves, initial_epoch=1, epochs=2)


def test_counts_optimizer_steps():
    model, controller = linear_model(keras.optimizers.SGD(0.0, gradient_accumulation_steps=2)), FollowsLoss()
    state = None
    for _ in range(3):  # of 3 batches each, so that a step goes over the end of the first epoch
        fit(model, controller)
        state = controller.state()
    assert (state["step"], len(state["partial"])) == (4, 1)
    controller.learning_rate = 0.0
    batches = [np.mean((X[i : i + 4] @ W - Y[i : i + 4]) ** 2) for i in (0, 4, 8)]
    assert controller.losses[0] == pytest.approx((batches[0] + batches[1]) / 2, rel=1e-5)
    assert [round(rate, 6) for rate in controller.rates[1:]] == [round(0.1 * loss, 6) for loss in controller.losses]


def test_begin_of_a_batch_that_does_not_come():
    """Where Keras does not know the number of batches, `on_train_batch_begin` comes once more at the end of an epoch."""

    def data():
        for i in (0, 4, 8, 0, 4, 8):
            yield X[i : i + 4], Y[i : i + 4]

    class Records(FollowsLoss):
        saved = ("used", "losses")
        used = ()

        def before_update(self):
            self.rate = 0.01 * self.step

        def after_update(self):
            self.used = [*self.used, self.rate]

    controller = Records()
    model = linear_model(keras.optimizers.SGD(0.05))
    begins = []
    counts = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: begins.append(batch))
    model.fit(data(), verbose=0, callbacks=[controller, counts])
    assert len(begins) == (6 if BACKEND == "torch" else 7)
    assert controller.used == [0.01 * i for i in range(6)]


class TwoOptimizers(keras.Model):
    """Trains by optimizers of its own, beside the one that `compile` makes."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.dense.build((None, 2))
        self.built = True
        self.own_optimizer = keras.optimizers.SGD(0.1)

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.dense(x) - y) ** 2)
        self.own_optimizer.apply(tape.gradient(loss, self.dense.trainable_variables), self.dense.trainable_variables)
        return {"loss": loss}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a step for TensorFlow")
@pytest.mark.parametrize("optimizer", ["sgd", None])
def test_refuses_a_step_that_does_not_use_the_learning_rate(optimizer):
    model = TwoOptimizers()
    model.compile(optimizer)
    with pytest.raises(ValueError, match=r"sets the learning rate of `model.optimizer`.* Received: "):
        fit(model, FollowsLoss())


def test_names_the_values_that_there_are():
    class Watches(Controller):
        """Another name than the logs have."""

    with pytest.raises(ValueError, match=r"model has: loss. Received: 'd_loss'. Watches watches what"):
        fit(linear_model(keras.optimizers.SGD(0.05)), Watches("d_loss"))


def test_in_a_loop_of_ones_own():
    model, controller = linear_model(keras.optimizers.SGD(0.05)), FollowsLoss()
    callbacks = keras.callbacks.CallbackList([controller], model=model, epochs=2, steps=3)
    callbacks.on_train_begin()
    losses = []
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        for batch, part in enumerate((slice(0, 2), slice(2, 8), slice(8, 10))):
            callbacks.on_train_batch_begin(batch)
            logs = model.train_on_batch(X[part], Y[part], return_dict=True)
            losses.append(float(logs["loss"]))
            callbacks.on_train_batch_end(batch, logs)
        callbacks.on_epoch_end(epoch)
    callbacks.on_train_end()
    assert "reset_metrics" not in vars(model)
    np.testing.assert_allclose(controller.losses, losses, rtol=1e-6)
    np.testing.assert_allclose(controller.rates[1:], 0.1 * np.array(losses[:-1]), rtol=1e-6)


def test_reads_nothing_without_monitor():
    class Silent(Controller):
        def after_update(self):
            assert self.values == {}

    fit(linear_model(keras.optimizers.SGD(0.05)), Silent(monitor=()))


def test_unknown_metric():
    with pytest.raises(ValueError, match=r"no metric 'accuracy'. The model has: loss"):
        fit(linear_model(keras.optimizers.SGD(0.05)), FollowsLoss(("loss", "accuracy")))


@jit
def test_evaluates_within_an_epoch(jit):
    class Evaluates(FollowsLoss):
        def after_update(self):
            super().after_update()
            self.evaluated = self.evaluate(X, Y, batch_size=5)

    models = [linear_model(keras.optimizers.SGD(0.05), jit) for _ in range(2)]
    plain, evaluates = FollowsLoss(), Evaluates()
    fit(models[0], plain, epochs=2)
    fit(models[1], evaluates, epochs=2)
    assert evaluates.losses == plain.losses
    assert models[0].history.history == models[1].history.history
    assert evaluates.evaluated["loss"] == pytest.approx(np.mean((X @ models[1].get_weights()[0] - Y) ** 2), rel=1e-5)


def test_evaluates_before_the_first_batch():
    class Evaluates(FollowsLoss):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            self.evaluate(X, Y)

    controller = Evaluates()
    fit(linear_model(keras.optimizers.SGD(0.05)), controller, epochs=2)
    np.testing.assert_allclose(controller.losses, expected(epochs=2)[1], rtol=1e-5)


def test_state():
    model, controller = linear_model(keras.optimizers.SGD(0.05)), FollowsLoss()
    fit(model, controller)
    state = controller.state()
    assert state == {"step": 3, "partial": [], "rates": controller.rates, "losses": controller.losses}
    other = FollowsLoss()
    other.restore_state(state)
    fit(model, controller)
    assert other.state() == state
    assert state["losses"] == controller.losses[:3]
    with pytest.raises(ValueError, match=r"FollowsLoss must have \['losses', 'partial', .*Received: \['step'\]"):
        other.restore_state({"step": 3})


def test_deepcopy():
    controller = FollowsLoss()
    copied = copy.deepcopy(controller)
    fit(linear_model(keras.optimizers.SGD(0.05)), copied)
    assert len(copied.rates) == 3
    assert controller.rates == []


def refused(model, controller=None):
    with pytest.raises(ValueError, match="Received: ") as error:
        fit(model, controller or FollowsLoss())
    return str(error.value)


def test_refuses_a_schedule_unless_it_leaves_the_rate_alone():
    class Watches(Controller):
        sets_learning_rate = False

    model = linear_model(keras.optimizers.SGD(LinearDecay(0.1, 4)))
    assert "construct SGD with a float instead of a schedule. Received: learning_rate=LinearDecay(" in refused(model)
    fit(model, Watches())


def test_refuses_a_scheduled_learning_rate():
    model = linear_model(keras.optimizers.SGD(0.1))
    schedule = ScheduleHyperparameter("optimizer.learning_rate", LinearDecay(0.1, 4))
    with pytest.raises(ValueError, match=r"and so does a ScheduleHyperparameter"):
        fit(model, schedule, FollowsLoss())


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses it itself on PyTorch")
def test_refuses_steps_per_execution():
    model = linear_model(keras.optimizers.SGD(0.1), steps_per_execution=2)
    assert refused(model).endswith("needs every optimizer step. Received: steps_per_execution=2")


def test_refuses_several_optimizers():
    inner = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))
    model = linear_model(keras.optimizers.MultiOptimizer(inner, name="several"))
    assert "a MultiOptimizer has several. Received: 'several'" in refused(model)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute")
def test_refuses_several_replicas(monkeypatch):
    class Strategy:
        num_replicas_in_sync = 2

    class Alone(FollowsLoss):
        works_on_replicas = False

    model, controller = linear_model(keras.optimizers.SGD(0.1)), Alone()
    monkeypatch.setattr(type(model), "distribute_strategy", Strategy())
    controller.set_model(model)
    with pytest.raises(ValueError, match=r"Received: num_replicas_in_sync=2"):
        controller.on_train_begin()
