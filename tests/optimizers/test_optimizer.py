"""The behavior of the base of every optimizer, as far as the contract does not test it."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.callbacks import ScheduleHyperparameter
from keras_lrsched.optimizers import SGD, AdamW, Lion, Lookahead, Optimizer, get
from keras_lrsched.precision import LossScaleOptimizer
from keras_lrsched.schedules import LinearDecay
from tests.contract.backends import JIT, JIT_WAYS

BACKEND = keras.backend.backend()


class Probe(Optimizer):
    """Records what a method is given; state that all variables share, and state of unusual shape."""

    def __init__(self, learning_rate=1.0, **options):
        super().__init__(learning_rate, **options)
        self.seen = []

    def make_state(self, variable):
        return {
            "rows": self.add_state(variable, "rows", shape=variable.shape[:1]),
            "count": self.add_state(variable, "count", ()),
        }

    def make_scalars(self):
        return {"total": self.add_scalar("total", 2.0)}

    def before_update(self, steps):
        scalars = steps[0].scalars
        scalars.total = scalars.total + sum(ops.sum(step.gradient) for step in steps)
        return scalars.total

    def step(self, w, g, state, ctx):
        state.count = state.count + 1
        assert float(state.count) == float(ctx.t)
        self.seen.append({"t": float(ctx.t), "iterations": int(ctx.iterations), "shared": float(ctx.shared)})
        self.seen[-1].update(index=ctx.index, lr=float(ctx.learning_rate), decay=float(ctx.weight_decay))
        return w - ctx.learning_rate * g


def variable(value=(1.0, 2.0), dtype="float32", name="w"):
    return keras.Variable(value, dtype=dtype, name=name)


def test_what_a_method_is_told():
    optimizer = Probe(
        LinearDecay(1.0, 10), weight_decay=0.5, exclude_from_weight_decay=["^b"], learning_rate_multipliers={"b": 3}
    )
    for t in range(2):
        optimizer.apply([ops.ones(2), ops.ones(1)], [variable(), variable([1.0], name="bias")] if t == 0 else None)
    common = [{"t": t, "iterations": t - 1, "shared": 2.0 + 3 * t} for t in (1, 1, 2, 2)]
    special = [
        {"index": 0, "lr": pytest.approx(1.0), "decay": 0.5},
        {"index": 1, "lr": pytest.approx(3.0), "decay": 0.0},
        {"index": 0, "lr": pytest.approx(0.9), "decay": 0.5},
        {"index": 1, "lr": pytest.approx(2.7), "decay": 0.0},
    ]
    assert optimizer.seen == [a | b for a, b in zip(common, special, strict=True)]
    assert float(optimizer._scalars["total"]) == 8.0
    assert optimizer.state_bytes() == 4 * (2 + 1 + 1 + 1 + 1)


def test_unknown_state():
    class Misspelt(Lion):
        def step(self, w, g, state, ctx):
            state.momentun = g
            return w

    with pytest.raises(AttributeError, match="no state `momentun` among momentum"):
        Misspelt().apply([ops.ones(2)], [variable()])


def test_formula_is_missing():
    with pytest.raises(NotImplementedError, match=r"Optimizer must implement `step\(w, g, state, ctx\)`"):
        Optimizer(0.1).apply([ops.ones(2)], [variable()])


def test_decay_lists_of_apply_gradients():
    """As TensorFlow Addons take them: by variables or by path, in the first update."""
    names = ("dense/kernel", "dense/bias", "norm/gamma")
    for chosen in (lambda weights: [weights[0]], lambda weights: ["^dense/kernel$"]):
        weights = [keras.Variable([1.0, 2.0], name=name.replace("/", "_")) for name in names]
        for variable, path in zip(weights, names, strict=True):
            variable._path = path
        optimizer = SGD(0.5, weight_decay=0.5)
        optimizer.apply_gradients([(ops.zeros(2), v) for v in weights], decay_var_list=chosen(weights))
        assert [float(v.value[0]) for v in weights] == [0.75, 1.0, 1.0]
        optimizer.apply_gradients([(ops.zeros(2), v) for v in weights], decay_var_list=chosen(weights))
        assert optimizer.get_config()["exclude_from_weight_decay"] == ["^dense/bias$", "^norm/gamma$"]
        with pytest.raises(ValueError, match="another one, which differs for dense/bias"):
            optimizer.apply_gradients([(ops.zeros(2), v) for v in weights], decay_var_list=["dense"])


def test_state_bytes():
    optimizer = AdamW(master_weights=True, use_ema=True, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="call `build"):
        optimizer.state_bytes()
    optimizer.build([variable(np.zeros((8, 4)), "bfloat16", "low"), variable(np.zeros(8), name="high")])
    assert optimizer.state_bytes() == 4 * (32 * 5 + 8 * 4)  # moments, average, accumulator; a copy of the first
    assert optimizer.state_bytes_per_parameter() == pytest.approx(19.2)


@pytest.mark.parametrize("rate", [1, np.float32(0.5), np.int64(2)])
def test_learning_rate_of_any_number_type(rate):
    assert float(ops.convert_to_numpy(Lion(rate).learning_rate)) == rate


def test_learning_rate_is_precise_whatever_floatx_is():
    before = keras.config.floatx()
    keras.config.set_floatx("bfloat16")
    try:
        optimizer = Lion(1e-3)
        assert optimizer.learning_rate.dtype == "float32"
        assert optimizer.get_config()["learning_rate"] == pytest.approx(1e-3, rel=1e-6)
        assert len(optimizer.variables) == 2
        optimizer.learning_rate = 2e-3
        w = keras.Variable([0.0], dtype="float32")
        optimizer.apply([ops.ones(1, "float32")], [w])
    finally:
        keras.config.set_floatx(before)
    assert w.numpy() == pytest.approx(-2e-3, rel=1e-6)


@pytest.mark.skipif(BACKEND == "jax", reason="has float64 only behind a switch of its own")
def test_float64_stays_float64():
    w = variable(dtype="float64")
    optimizer = AdamW(0.1, weight_decay=None, epsilon=0.0)
    optimizer.apply([ops.convert_to_tensor([1e-3, 1.0], "float64")], [w])
    assert {v.dtype for v in optimizer.variables[2:]} == {"float64"}
    np.testing.assert_allclose(ops.convert_to_numpy(w), [0.9, 1.9], rtol=1e-7)  # the rate itself is float32


def test_stochastic_rounding_moves_on_average():
    """Each update is a hundredth of the distance between two bfloat16 numbers: rounded to nearest, nothing would move."""
    count, ulp = 4000, 2.0**-7
    starts = np.ones(count)
    exact = Lion(ulp / 100, stochastic_rounding=True, seed=3)
    nearest, rounded = variable(starts, "bfloat16"), variable(starts, "bfloat16")
    for _ in range(50):
        exact.apply([-ops.ones(count, "bfloat16")], [rounded])
    Lion(ulp / 100).apply([-ops.ones(count, "bfloat16")], [nearest])
    assert np.all(ops.convert_to_numpy(ops.cast(nearest, "float32")) == 1)
    moved = ops.convert_to_numpy(ops.cast(rounded, "float32")) - 1
    assert set(np.unique(moved / ulp)) <= set(range(8))
    deviation = ulp * np.sqrt(0.5 / count)
    assert abs(moved.mean() - 0.5 * ulp) < 5 * deviation


def test_stochastic_rounding_is_reproducible():
    runs = []
    for seed in (1, 1, 2):
        w = variable(np.ones(1000), "bfloat16")
        Lion(1e-3, stochastic_rounding=True, seed=seed).apply([-ops.ones(1000, "bfloat16")], [w])
        runs.append(ops.convert_to_numpy(ops.cast(w, "float32")))
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_master_weights_and_stochastic_rounding_exclude_each_other():
    with pytest.raises(ValueError, match="`master_weights` are exact"):
        Lion(master_weights=True, stochastic_rounding=True)


def test_exclusion_by_method_comes_before_building():
    optimizer = Lion()
    optimizer.build([variable()])
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["w"])


def fit(optimizer, *, jit, poison=False, callbacks=()):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(optimizer, loss=lambda y, prediction: prediction, jit_compile=jit)
    x = np.ones((4, 1), "float32")
    x[2] = np.nan if poison else 1.0
    model.fit(x, x, batch_size=1, verbose=0, shuffle=False, callbacks=callbacks)
    return model.get_weights()[0].item()


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_skips_in_fit(jit):
    optimizer = Lion(0.1, nonfinite="skip")
    assert fit(optimizer, jit=jit, poison=True) == pytest.approx(1 - 3 * 0.1)
    assert int(optimizer.skipped_updates) == 1
    assert int(optimizer.iterations) == 3


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_raises_in_fit(jit):
    """At once where a step can raise, else at the end; in both cases the weights are as before the bad batch."""
    with pytest.raises(Exception, match="not finite") as error:
        fit(Lion(0.1, nonfinite="raise"), jit=jit, poison=True)
    at_once = {"tensorflow": "FloatingPointError" if jit else "InvalidArgumentError"}.get(BACKEND, "FloatingPointError")
    assert type(error.value).__name__ == at_once


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_weight_decay_from_a_callback(jit):
    decay = ScheduleHyperparameter("optimizer.weight_decay", LinearDecay(0.5, 4))
    optimizer = Lion(1.0, weight_decay=0.1)
    w = 1.0
    for t in range(4):
        w = w - (1 + 0.5 * (1 - t / 4) * w)
    assert fit(optimizer, jit=jit, callbacks=[decay]) == pytest.approx(w, rel=1e-6)


def test_schedule_counts_updates_of_accumulated_gradients():
    optimizer = Lion(LinearDecay(1.0, 2), gradient_accumulation_steps=2)
    assert fit(optimizer, jit=JIT[0]) == pytest.approx(1 - 1.0 - 0.5)


@pytest.mark.parametrize("options", [{}, {"master_weights": True}, {"master_weights": False}, {"stochastic_rounding": True}])
def test_updates_that_a_variable_cannot_show_are_warned_of(options):
    optimizer = AdamW(1e-3, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.build([keras.Variable([1.0], dtype="bfloat16", name="kernel")])
    named = [str(each.message) for each in caught if "master_weights=True" in str(each.message)]
    assert len(named) == (not options)
    assert all("bfloat16, such as kernel" in message for message in named)


@pytest.mark.parametrize("make", [AdamW, lambda: Lookahead(keras.optimizers.SGD(0.1))])
def test_complex_variables_are_refused(make):
    w = keras.Variable(np.array([1 + 1j], "complex64"), dtype="complex64", name="phase")
    with pytest.raises(ValueError, match=r"must be real. Received: phase, dtype=complex64"):
        make().build([w])


@pytest.mark.parametrize("name", ["adamw", "muon", "galore", "fira", "apollo_mini", "adam_mini", "adafactor"])
def test_variables_without_entries_are_left_alone(name):
    empty, w = keras.Variable(np.zeros((0, 4), "float32"), name="empty"), keras.Variable(np.ones((8, 8), "float32"))
    optimizer, alone = get(name), get(name)
    optimizer.apply([ops.zeros((0, 4)), ops.ones((8, 8))], [empty, w])
    v = keras.Variable(np.ones((8, 8), "float32"))
    alone.apply([ops.ones((8, 8))], [v])
    if name != "apollo_mini":  # which draws its projections
        np.testing.assert_array_equal(ops.convert_to_numpy(w), ops.convert_to_numpy(v))
    assert all(np.isfinite(ops.convert_to_numpy(each)).all() for each in optimizer.variables)
    optimizer.apply([ops.zeros((0, 4))], [empty])
    assert int(optimizer.iterations) == 2


def test_sgd_without_momentum_has_no_state():
    """As Keras' own; a momentum that is set afterwards has nowhere to be kept."""
    optimizer, weights = SGD(0.5), [keras.Variable([1.0, 2.0])]
    optimizer.build(weights)
    assert optimizer.state_bytes() == 0
    optimizer.apply([ops.ones(2)], weights)
    assert ops.convert_to_numpy(weights[0]).tolist() == [0.5, 1.5]
    optimizer.momentum = 0.9
    with pytest.raises(ValueError, match=r"`momentum` was 0 when SGD was built.*momentum=0.9"):
        optimizer.apply([ops.ones(2)], weights)


def test_a_function_as_weight_decay_is_refused():
    with pytest.raises(
        ValueError, match=r"`weight_decay` must be a number, a LearningRateSchedule or None\. Received: .*lambda"
    ):
        AdamW(0.1, weight_decay=lambda: 0.1)


@pytest.mark.skipif(BACKEND != "jax", reason="there values are missing from variables after an error")
@pytest.mark.parametrize("build", [lambda: AdamW(nonfinite="raise"), lambda: LossScaleOptimizer(AdamW())])
def test_an_error_of_the_user_is_not_hidden(build):
    """By one of `finalize_variable_values`, which Keras calls also after an error in the step."""

    class Broken(keras.layers.Layer):
        def call(self, x, training=False):
            if training:
                raise RuntimeError("this is mine")
            return x

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1), Broken()])
    model.compile(build(), "mse")
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(RuntimeError, match="this is mine"):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
