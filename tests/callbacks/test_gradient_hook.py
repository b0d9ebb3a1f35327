"""Values computed from the gradients in the compiled step: they are correct, and leave no trace."""

import copy

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.callbacks import Snapshot, TrainingState
from keras_lrsched.callbacks.gradient_controller import GradientController, global_square
from keras_lrsched.data import ScheduledBatches
from keras_lrsched.schedules import LinearDecay
from tests.callbacks.linear_regression import STEPS, W, X, Y, fit, gradient, jit, linear_model, sgd
from tests.nightly import some


class Probe(GradientController):
    """Keeps what it is handed, at each batch; sums up all of it in the compiled step."""

    sets_learning_rate = False

    def __init__(self):
        super().__init__()
        self.seen, self.updates_done = [], []

    def begin(self):
        super().begin()
        self._gradient = self.add_variable("gradient", (2, 1))
        self._of_update = self.add_variable("of_update", (2, 1))
        self._after = self.add_variable("after", (2, 1))
        self._sum = self.add_variable("sum")

    def before_apply(self, gradients, variables):
        self._gradient.assign(gradients[0])
        self._of_update.assign(self.of_update(gradients, variables)[0])
        self._sum.assign_add(global_square(gradients))

    def after_apply(self, gradients, variables):
        self._after.assign(variables[0])

    def after_update(self):
        self.seen.append([self.read(each) for each in (self._gradient, self._of_update, self._after)])
        self.total = float(self.read(self._sum))
        self.updates_done.append(self.applied() // self.accumulation_steps)


def trajectory(steps=STEPS, learning_rate=0.1, clipnorm=np.inf):
    weights = [sgd([0.0] * t, learning_rate, clipnorm=clipnorm) for t in range(steps + 1)]
    return [gradient(w) for w in weights[:-1]], weights[1:]


def check(probe, learning_rate=0.1, rtol=3e-6, **options):
    gradients, weights = trajectory(learning_rate=learning_rate, **options)
    np.testing.assert_allclose([each[0] for each in probe.seen], gradients, rtol=rtol)
    np.testing.assert_allclose([each[2] for each in probe.seen], weights, rtol=rtol)
    np.testing.assert_allclose(probe.total, sum(np.sum(g**2) for g in gradients), rtol=rtol)
    assert probe.updates_done == [1, 2, 3, 4]


@jit
def test_gradients_before_the_update_and_weights_after_it(jit):
    fit(linear_model(keras.optimizers.SGD(0.1), jit), probe := Probe())
    check(probe)


def test_step_by_step():
    fit(linear_model(keras.optimizers.SGD(0.1), run_eagerly=True), probe := Probe())
    check(probe)


@pytest.mark.parametrize("schedule", [LinearDecay(0.1, 4), 0.1])
def test_with_a_schedule(schedule):
    fit(linear_model(keras.optimizers.SGD(schedule)), probe := Probe())
    np.testing.assert_allclose(probe.seen[0][0], gradient(W), rtol=2e-6)


@jit
def test_before_clipping(jit):
    fit(linear_model(keras.optimizers.SGD(0.1, clipnorm=0.5), jit), probe := Probe())
    check(probe, clipnorm=0.5)


@jit
@pytest.mark.parametrize("wrap", [True, False])
def test_without_the_scale_of_the_loss(jit, wrap):
    inner = keras.optimizers.SGD(0.1, loss_scale_factor=None if wrap else 64.0)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0) if wrap else inner
    fit(linear_model(optimizer, jit), probe := Probe())
    check(probe)


@jit
def test_gradients_that_are_not_finite_are_left_out_with_loss_scaling(jit):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=3e38)
    fit(linear_model(optimizer, jit), probe := Probe(), epochs=8)
    done = probe.updates_done[-1]
    assert 0 < done < 8
    expected = sum(np.sum(g**2) for g in trajectory(done)[0])
    np.testing.assert_allclose(probe.total, expected, rtol=1e-5)


@jit
def test_accumulated_gradients(jit):
    model = linear_model(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), jit)
    probe = Probe()
    model.fit(X, Y, batch_size=1, epochs=STEPS, shuffle=False, verbose=0, callbacks=[probe])
    gradients, weights = trajectory()
    assert probe.updates_done == [0, 1, 1, 2, 2, 3, 3, 4]
    np.testing.assert_allclose([each[1] for each in probe.seen[1::2]], gradients, rtol=3e-6)
    np.testing.assert_allclose([each[2] for each in probe.seen[1::2]], weights, rtol=3e-6)
    of_row = [2 * X[[i]].T * (X[[i]] @ W - Y[[i]]) for i in (0, 1)]
    np.testing.assert_allclose([each[0] for each in probe.seen[:2]], of_row, rtol=2e-6)
    np.testing.assert_allclose(probe.seen[0][1], of_row[0] / 2, rtol=2e-6)


class Doubler(GradientController):
    """Sets the learning rate in the compiled step, to twice what it was."""

    def __init__(self):
        super().__init__()

    def before_apply(self, gradients, variables):
        self.rate.assign(2 * self.rate)


@jit
@pytest.mark.parametrize("wrap", [True, False])
def test_sets_the_learning_rate_of_the_same_update(jit, wrap):
    optimizer = keras.optimizers.SGD(0.01)
    model = linear_model(keras.optimizers.LossScaleOptimizer(optimizer) if wrap else optimizer, jit)
    weights = fit(model, Doubler())
    np.testing.assert_allclose(weights, sgd([0.02, 0.04, 0.08, 0.16], scheduled="learning_rate"), rtol=3e-6)
    assert float(ops.convert_to_numpy(optimizer.learning_rate)) == pytest.approx(0.16, rel=1e-6)


@jit
def test_two_at_once(jit):
    fit(linear_model(keras.optimizers.SGD(0.1), jit), first := Probe(), second := Probe())
    check(first)
    check(second)


@jit
@pytest.mark.parametrize("wrap", some([True, False]))
def test_nothing_is_left(jit, wrap, tmp_path):
    optimizer = keras.optimizers.Adam(0.1)
    model = linear_model(keras.optimizers.LossScaleOptimizer(optimizer) if wrap else optimizer, jit)
    save = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    weights = fit(model, Probe(), save)
    assert "apply" not in vars(optimizer)
    for each in (optimizer, model.optimizer):
        assert not {"save_own_variables", "load_own_variables"} & vars(each).keys()
    names = [v.name for v in optimizer.variables]
    assert names[:2] == ["iteration", "learning_rate"]
    assert [name.rpartition("_")[2] for name in names[2:]] == ["momentum", "velocity"]
    early = keras.models.load_model(tmp_path / "2.keras")
    assert len(early.optimizer.variables) == len(model.optimizer.variables)
    np.testing.assert_allclose(fit(early, epochs=2), weights, rtol=2e-6)


@jit
def test_optimizer_that_is_loaded_within_fit(jit, tmp_path):
    model = linear_model(keras.optimizers.Adam(0.1), jit)
    fit(model, epochs=2)
    model.save_weights(path := tmp_path / "two.weights.h5")
    weights = fit(model, epochs=2)
    load = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: model.load_weights(path))
    np.testing.assert_allclose(fit(model, Probe(), load, epochs=2), weights, rtol=2e-6)


@jit
def test_after_a_fit_that_did_not_end(jit):
    def stop(batch, logs):
        raise InterruptedError

    model = linear_model(keras.optimizers.SGD(0.1), jit)
    with pytest.raises(InterruptedError):
        fit(model, Probe(), keras.callbacks.LambdaCallback(on_train_batch_end=stop))
    model.set_weights([W])
    model.optimizer.iterations.assign(0)
    fit(model, probe := Probe())
    check(probe)
    assert len(model.optimizer.variables) == 2


@jit
def test_snapshots_do_not_hold_its_variables(jit):
    class Back(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            before.restore()

    model = linear_model(keras.optimizers.SGD(0.1), jit)
    before = Snapshot(model)
    fit(model, probe := Probe(), Back(), epochs=3)
    np.testing.assert_allclose([each[0] for each in probe.seen], [gradient(W)] * 3, rtol=2e-6)
    assert probe.total == pytest.approx(3 * np.sum(gradient(W) ** 2), rel=1e-5)


@jit
def test_resumed_within_an_epoch(jit, tmp_path):
    def run(epochs, stop_at=None):
        def stop(batch, logs):
            if batch == stop_at:
                raise InterruptedError

        model = linear_model(keras.optimizers.SGD(0.1), jit)
        probe = Probe()
        data = ScheduledBatches(np.tile(X, (4, 1)), np.tile(Y, (4, 1)), batch_size=2, shuffle=False)
        end = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
        model.fit(data, epochs=epochs, verbose=0, callbacks=[probe, end, TrainingState(tmp_path / "state", every=1)])
        return probe

    with pytest.raises(InterruptedError):
        run(1, stop_at=2)
    probe = run(1)
    assert probe.updates_done == [3, 4]
    assert probe.total == pytest.approx(sum(np.sum(g**2) for g in trajectory()[0]), rel=1e-5)


def test_sparse_gradients_of_embeddings():
    class Norm(Probe):
        def begin(self):
            GradientController.begin(self)
            self._sum = self.add_variable("sum")

        def before_apply(self, gradients, variables):
            self._sum.assign(global_square(gradients))

        after_apply = GradientController.after_apply

        def after_update(self):
            self.total = float(self.read(self._sum))

    model = keras.Sequential([keras.layers.Input((3,), dtype="int32"), keras.layers.Embedding(5, 1, "ones")])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    model.fit(np.array([[1, 1, 2]]), np.zeros((1, 3, 1)), verbose=0, callbacks=[probe := Norm()])
    assert probe.total == pytest.approx((4 / 3) ** 2 + (2 / 3) ** 2, rel=1e-6)  # token 1 comes twice


def test_model_without_weights_yet():
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    fit(model, probe := Probe(), epochs=2)
    assert probe.updates_done == [1, 2]


def test_model_without_weights_whose_callback_needs_them():
    class Needs(Probe):
        def begin(self):
            self.build_optimizer()
            assert self.model.trainable_variables
            super().begin()

    model = keras.Sequential([keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    fit(model, probe := Needs(), epochs=2)
    assert probe.updates_done == [1, 2]


def test_copies():
    probe = copy.deepcopy(Probe())
    fit(linear_model(keras.optimizers.SGD(0.1)), probe)
    copy.deepcopy(probe.seen)
    check(probe)
