"""Models with a training step of their own, in the forms that Keras' guides have."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.callbacks import (
    GradientNormRecorder,
    HypergradientLearningRate,
    MagnitudePruning,
    ScheduleHyperparameter,
)
from keras_lrsched.schedules import LinearDecay, SparsityRamp
from tests.callbacks.linear_regression import X, Y
from tests.contract.backends import BACKEND
from tests.nightly import some

only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="the step is written for TensorFlow")


class Own(keras.Model):
    """A linear map in two parts, trained by `form`; not built before its first batch."""

    def __init__(self, form):
        super().__init__(name="own")
        self.form, self.factor = form, 0.1
        self.a, self.b = keras.layers.Dense(2, name="a"), keras.layers.Dense(1, name="b")

    def call(self, x):
        return self.b(self.a(x))

    def train_step(self, data):
        import tensorflow as tf

        x, y = data[:2]
        with tf.GradientTape() as tape:
            loss = ops.mean((self(x) - y) ** 2)
        variables = self.b.trainable_variables if self.form == "part" else self.trainable_variables
        gradients = tape.gradient(loss, variables)
        if self.form == "zip":
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        elif self.form == "by hand":
            for gradient, variable in zip(gradients, variables, strict=True):
                variable.assign_sub(self.factor * gradient)
        else:
            self.optimizer.apply(gradients, variables)
        return {"loss": loss}


class Two(Own):
    """Two optimizers of its own, beside the one that Keras' `compile` makes."""

    def compile(self, a_optimizer, b_optimizer, **options):
        super().compile(**options)
        self.a_optimizer, self.b_optimizer = a_optimizer, b_optimizer

    def train_step(self, data):
        import tensorflow as tf

        x, y = data[:2]
        with tf.GradientTape() as tape:
            loss = ops.mean((self(x) - y) ** 2)
        parts = self.a.trainable_variables, self.b.trainable_variables
        of_a, of_b = tape.gradient(loss, parts)
        self.a_optimizer.apply(of_a, parts[0])
        self.b_optimizer.apply_gradients(zip(of_b, parts[1], strict=True))
        self.b_optimizer.apply(of_b, parts[1])
        return {"loss": loss}


def own(form, **options):
    keras.utils.set_random_seed(0)
    model = Own(form)
    model.compile(keras.optimizers.Adam(0.01), **options)
    return model


def fit(model, *callbacks, epochs=2, **options):
    model.fit(X, Y, batch_size=1, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks), **options)
    return model.get_weights()


@only_tensorflow
@pytest.mark.parametrize("jit", some([False, True]))
@pytest.mark.parametrize("form", some(["zip", "lists", "part"]))
def test_gradients_of_every_form(form, jit):
    recorder, plain = GradientNormRecorder(), own(form, jit_compile=jit)
    model = own(form, jit_compile=jit)
    for mine, its in zip(fit(model, recorder), fit(plain), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-6)
    assert len(recorder.gradient_norm) == 4
    assert len(set(recorder.gradient_norm)) == 4
    assert [v.name for v in model.optimizer.variables] == [v.name for v in plain.optimizer.variables]


@only_tensorflow
@pytest.mark.parametrize("form", some(["part", "zip"]))
def test_schedules_of_every_form(form):
    model = own(form)
    fit(model, ScheduleHyperparameter("optimizer.beta_1", LinearDecay(0.9, 8)))
    assert model.optimizer.beta_1 == pytest.approx(0.9 * 5 / 8)


@only_tensorflow
@pytest.mark.parametrize("make", some([HypergradientLearningRate, lambda: MagnitudePruning(SparsityRamp(0.0, 0.5, 0, 2))]))
def test_callbacks_that_need_the_variables_of_a_model_without_any(make):
    """The optimizer gets the variables that the step hands to it, and no others."""
    model = own("part")
    fit(model, make())
    assert [v.path.rpartition("/")[2] for v in model.optimizer.variables[2:]] == [
        "own_b_kernel_momentum", "own_b_kernel_velocity", "own_b_bias_momentum", "own_b_bias_velocity",
    ]  # fmt: skip


@only_tensorflow
def test_train_on_batch():
    """In a loop of one's own, with the methods of a `CallbackList`."""
    model, same = own("zip"), own("zip")
    fit(same, first := GradientNormRecorder(), ScheduleHyperparameter("optimizer.beta_1", LinearDecay(0.9, 8)))
    second = GradientNormRecorder()
    schedule = ScheduleHyperparameter("optimizer.beta_1", LinearDecay(0.9, 8))
    model.build((None, 2))
    callbacks = keras.callbacks.CallbackList([second, schedule], model=model)
    callbacks.on_train_begin()
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        for i in range(2):
            callbacks.on_train_batch_begin(i)
            logs = model.train_on_batch(X[[i]], Y[[i]], return_dict=True)
            callbacks.on_train_batch_end(i, logs)
        callbacks.on_epoch_end(epoch, {})
    callbacks.on_train_end()
    np.testing.assert_allclose(second.gradient_norm, first.gradient_norm, rtol=1e-6)
    assert model.optimizer.beta_1 == same.optimizer.beta_1
    assert "train_step" not in vars(model)


@only_tensorflow
def test_a_step_that_never_calls_the_optimizer():
    with pytest.raises(
        ValueError, match=r"GradientNormRecorder .* calls neither `apply` nor `apply_gradients`.* Received: model=Own"
    ):
        fit(own("by hand"), GradientNormRecorder())
    with pytest.raises(ValueError, match="the training step makes none with it: name the optimizer"):
        fit(own("by hand"), ScheduleHyperparameter("factor", LinearDecay(0.9, 8)))


def two(**options):
    keras.utils.set_random_seed(0)
    model = Two("")
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1, momentum=0.5), **options)
    return model


@only_tensorflow
@pytest.mark.parametrize("jit", some([False, True]))
def test_a_setting_follows_the_optimizer_that_has_it(jit):
    """Here one makes two updates where the other makes one, and a third, which the model has but does not use, none."""
    model = two(jit_compile=jit)
    schedules = {"a_optimizer.beta_1": LinearDecay(0.9, 8), "b_optimizer.learning_rate": LinearDecay(0.1, 16)}
    before = fit(model, epochs=1)
    fit(model, *(ScheduleHyperparameter(target, schedule) for target, schedule in schedules.items()), epochs=1)
    assert model.a_optimizer.beta_1 == pytest.approx(0.9 * (1 - 3 / 8))
    assert float(model.b_optimizer.learning_rate) == pytest.approx(0.1 * (1 - 7 / 16))
    assert np.any(before[0] != model.get_weights()[0])


@only_tensorflow
def test_a_setting_of_a_layer_follows_the_optimizer_that_is_named():
    target, decay = "layers.a.kernel_regularizer.l2", LinearDecay(0.5, 16)

    def regularized():
        model = two()
        model.a.kernel_regularizer = keras.regularizers.L2(0.5)
        return model

    model = regularized()
    with pytest.raises(ValueError, match=r"has several optimizers: name the one .*Received: .*a_optimizer, b_optimizer"):
        fit(model, ScheduleHyperparameter(target, decay))
    with pytest.raises(ValueError, match=r"no such optimizer. Received: optimizer='c_optimizer'"):
        fit(model, ScheduleHyperparameter(target, decay, optimizer="c_optimizer"))
    callback = ScheduleHyperparameter(target, decay, optimizer="b_optimizer")
    with pytest.raises(ValueError, match="never reads"):  # this step has no losses of layers
        fit(model, callback)


@only_tensorflow
def test_gradients_of_several_optimizers_are_refused():
    with pytest.raises(
        ValueError, match=r"gradients of one optimizer. Received: model.optimizer and a_optimizer, b_optimizer"
    ):
        fit(two(), GradientNormRecorder())


@pytest.mark.skipif(BACKEND != "jax", reason="where all state is an argument of the step")
def test_jax_has_the_state_of_one_optimizer():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.other = keras.optimizers.Adam()
    with pytest.raises(ValueError, match=r"has the counter of `model.optimizer` only. Received: target='other.beta_1'"):
        fit(model, ScheduleHyperparameter("other.beta_1", LinearDecay(0.9, 8)))


class OfGuide(keras.Model):
    """The step of Keras' guides for JAX and for PyTorch."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, kernel_initializer="ones")

    def call(self, x):
        return self.dense(x)

    def compute_loss_and_state(self, values, others, x, y):
        y_pred, others = self.stateless_call(values, others, x)
        return ops.mean((y_pred - y) ** 2), others

    def train_step(self, *args):
        return self._of_jax(*args) if BACKEND == "jax" else self._of_torch(*args)

    def _of_jax(self, state, data):
        import jax

        values, others, of_optimizer, of_metrics = state
        x, y = data
        derivative = jax.value_and_grad(self.compute_loss_and_state, has_aux=True)
        (loss, others), gradients = derivative(values, others, x, y)
        values, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, values)
        return {"loss": loss}, (values, others, of_optimizer, of_metrics)

    def _of_torch(self, data):
        import torch

        x, y = data
        self.zero_grad()
        loss = ops.mean((self(x) - y) ** 2)
        loss.backward()
        weights = list(self.trainable_weights)
        with torch.no_grad():
            self.optimizer.apply([weight.value.grad for weight in weights], weights)
        return {"loss": loss.detach()}


@pytest.mark.skipif(BACKEND == "tensorflow", reason="see above")
def test_steps_of_the_other_backends():
    def trained(kind, **options):
        model = kind()
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), **options)
        recorder = GradientNormRecorder()
        pruning = MagnitudePruning(SparsityRamp(0.0, 0.5, 0, 2))
        fit(model, recorder, pruning, ScheduleHyperparameter("optimizer.momentum", LinearDecay(0.9, 8)))
        assert model.optimizer.momentum == pytest.approx(0.9 * 5 / 8)
        return [*recorder.gradient_norm, *model.get_weights()[0].ravel()]

    def plain():
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])

    np.testing.assert_allclose(trained(OfGuide), trained(plain, loss="mse"), rtol=1e-6)


@pytest.mark.skipif(BACKEND != "torch", reason="where all optimizers are at hand, as on TensorFlow")
def test_two_optimizers_on_pytorch():
    class Pair(OfGuide):
        def train_step(self, data):
            logs = super().train_step(data)
            self.other.apply([ops.ones_like(self.dense.bias)], [self.dense.bias])
            return logs

    model = Pair()
    model.other = keras.optimizers.Adam(0.1)
    model.compile(keras.optimizers.SGD(0.1))
    fit(model, ScheduleHyperparameter("other.beta_1", LinearDecay(0.9, 8)))
    assert model.other.beta_1 == pytest.approx(0.9 * 5 / 8)
