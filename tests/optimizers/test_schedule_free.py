"""Schedule-Free: which weights the model has, and when."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.callbacks import ScheduleFreeEvaluation
from keras_lrsched.optimizers import (
    SGD,
    Prodigy,
    ScheduleFreeAdamW,
    ScheduleFreeRAdam,
    ScheduleFreeSGD,
    ScheduleFreeWrapper,
)
from keras_lrsched.schedules import LinearDecay

METHODS = [ScheduleFreeSGD, ScheduleFreeAdamW, lambda **options: ScheduleFreeRAdam(silent_sgd_phase=False, **options)]
START = np.array([3.0, -1.0, 0.5], "float32")


def number(tensor):
    return np.array(ops.convert_to_numpy(ops.cast(tensor, "float32")))


def trained(method, steps=4, dtype="float32", **options):
    optimizer, w = method(learning_rate=0.1, **options), keras.Variable(START, dtype=dtype, name="w")
    descend(optimizer, w, steps)
    return optimizer, w


def descend(optimizer, w, steps):
    for _ in range(steps):
        optimizer.apply([ops.convert_to_tensor(w) + 0.0], [w])


@pytest.mark.parametrize("method", METHODS)
def test_average_of_the_base_weights(method):
    """With a constant learning rate x is the mean of all z."""
    optimizer, w = trained(method, 0)
    base = []
    for _ in range(6):
        descend(optimizer, w, 1)
        base.append(number(w) + number(optimizer._states[0]["gap"]))
    optimizer.use_average()
    np.testing.assert_allclose(number(w), np.mean(base, 0), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_switching_twice_is_switching_once(method):
    optimizer, w = trained(method)
    y = number(w)
    optimizer.use_training_weights()
    np.testing.assert_array_equal(number(w), y)
    optimizer.use_average()
    x = number(w)
    assert optimizer.is_averaged
    assert np.all(x != y)
    optimizer.use_average()
    np.testing.assert_array_equal(number(w), x)
    optimizer.use_training_weights()
    assert not optimizer.is_averaged
    np.testing.assert_allclose(number(w), y, rtol=3e-7)


@pytest.mark.parametrize("method", METHODS)
def test_updates_go_on_from_the_training_weights(method):
    """Also without going back to them, which an update does by itself: only its gradient is taken at x then."""
    (there, w), (back, v) = trained(method), trained(method)
    gradient = [ops.convert_to_tensor([0.5, -0.25, 1.0])]
    there.use_average()
    there.apply(gradient, [w])
    assert not there.is_averaged
    back.apply(gradient, [v])
    np.testing.assert_allclose(number(w), number(v), rtol=1e-6)
    descend(there, w, 3)
    descend(back, v, 3)
    np.testing.assert_allclose(number(w), number(v), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_what_takes_no_part_in_an_update_stays(method):
    """A variable that is frozen, or without a gradient, keeps its average through evaluations and further training."""
    optimizer = method(learning_rate=0.1)
    w, v = keras.Variable(START), keras.Variable(START)
    for _ in range(3):
        optimizer.apply([ops.convert_to_tensor(each) + 0.0 for each in (w, v)], [w, v])
    optimizer.use_average()
    x = number(v)
    for _ in range(3):
        descend(optimizer, w, 2)
        optimizer.use_average()
        assert optimizer.is_averaged
        np.testing.assert_array_equal(number(v), x)
    optimizer.use_training_weights()
    np.testing.assert_allclose(
        number(v) - x, (1 / optimizer.beta_of(1) - 1) * number(optimizer._states[1]["gap"]), rtol=1e-4
    )


def test_before_the_first_update():
    optimizer, w = ScheduleFreeSGD(), keras.Variable(START)
    for _ in range(2):
        optimizer.use_average()
        optimizer.use_training_weights()
        assert not optimizer.is_averaged
        np.testing.assert_array_equal(number(w), START)
        optimizer.build([w])


def test_weights_from_outside_move_all_three():
    """A model that is loaded or set after the optimizer was built starts there."""
    (moved, w), (plain, v) = trained(ScheduleFreeSGD), trained(ScheduleFreeSGD)
    shift = 8.0
    w.assign(w + shift)
    for optimizer, weight in ((moved, w), (plain, v)):
        optimizer.apply([ops.ones(3)], [weight])
        optimizer.use_average()
    np.testing.assert_allclose(number(w), number(v) + shift, rtol=1e-6)


def test_variable_that_gets_its_first_gradient_late():
    optimizer = ScheduleFreeSGD(learning_rate=0.5)
    late, always = keras.Variable(START, name="late"), keras.Variable(START, name="always")
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([None, ops.ones(3)], [late, always])
    np.testing.assert_array_equal(number(late), START)
    optimizer.apply([ops.ones(3), ops.ones(3)], [late, always])
    optimizer.use_average()
    np.testing.assert_allclose(number(late), START - 0.25, rtol=1e-6)  # the mean of the start and a step


@pytest.mark.parametrize("options", [{}, {"master_weights": True}])
def test_bfloat16_comes_back(options):
    optimizer, w = trained(ScheduleFreeAdamW, 10, "bfloat16", **options)
    y, exact = number(w), number(optimizer._states[0]["master"]) if options else None
    for _ in range(10):
        optimizer.use_average()
        assert np.any(number(w) != y)
        optimizer.use_training_weights()
    np.testing.assert_allclose(number(w), y, rtol=0 if options else 1e-2)
    if options:
        np.testing.assert_allclose(number(optimizer._states[0]["master"]), exact, rtol=1e-6)


def test_moving_average_of_keras_is_not_replaced():
    optimizer, w = trained(ScheduleFreeSGD, use_ema=True)
    optimizer.finalize_variable_values([w])
    assert not optimizer.is_averaged
    np.testing.assert_array_equal(number(w), number(optimizer._model_variables_moving_average[0]))


def test_small_beta_2_would_never_be_rectified():
    with pytest.raises(ValueError, match=r"`beta_2` must be above 0.6.*Received: beta_2=0.6"):
        ScheduleFreeRAdam(beta_2=0.6)
    ScheduleFreeRAdam(beta_2=0.61)


# Around any optimizer


def around(beta_1=0.9, **options):
    return ScheduleFreeWrapper(SGD(0.1, **options), beta_1=beta_1)


def test_wrapper_around_sgd_is_schedule_free_sgd():
    """Bit for bit in neither, but to rounding, through evaluations, decay at y, and weights from outside."""
    wrapped = ScheduleFreeWrapper(SGD(0.1), beta_1=0.8, weight_decay_at_y=0.2, r=1.0)
    direct = ScheduleFreeSGD(0.1, momentum=0.8, weight_decay=0.2, r=1.0)
    w, v = keras.Variable(START), keras.Variable(START)
    for t in range(6):
        descend(wrapped, w, 1)
        descend(direct, v, 1)
        np.testing.assert_allclose(number(w), number(v), rtol=1e-6)
        if t == 2:
            wrapped.use_average()
            direct.use_average()
            np.testing.assert_allclose(number(w), number(v), rtol=1e-6)
        if t == 3:
            w.assign(w + 1.0)
            v.assign(v + 1.0)


def test_wrapper_with_beta_that_changes():
    """x and z are those of the formula, in NumPy; y is between them by the share of the next update."""
    schedule = LinearDecay(0.95, 5, alpha=0.5)
    optimizer, w = ScheduleFreeWrapper(SGD(0.1), beta_1=schedule), keras.Variable(START)
    x = z = y = START.astype("float64")
    for t in range(1, 8):
        z = z - 0.1 * y
        x = (1 - 1 / t) * x + z / t
        beta = schedule.values([t])[0]
        y = beta * x + (1 - beta) * z
        descend(optimizer, w, 1)
        np.testing.assert_allclose(number(w), y, rtol=1e-5)
    optimizer.use_average()
    np.testing.assert_allclose(number(w), x, rtol=1e-5)
    again = ScheduleFreeWrapper.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()


def test_wrapper_with_beta_that_changes_and_a_variable_at_rest():
    optimizer = ScheduleFreeWrapper(SGD(0.1), beta_1=LinearDecay(0.9, 4, alpha=0.5))
    w, v = keras.Variable(START), keras.Variable(START)
    for _ in range(3):
        optimizer.apply([ops.convert_to_tensor(each) + 0.0 for each in (w, v)], [w, v])
    optimizer.use_average()
    x = number(v)
    for _ in range(2):
        descend(optimizer, w, 2)
        optimizer.use_average()
        np.testing.assert_allclose(number(v), x, rtol=1e-6)


def test_wrapper_accumulates():
    """Between two updates the model keeps y, bit for bit."""
    optimizer, plain = around(gradient_accumulation_steps=2), around()
    w, v = keras.Variable(START), keras.Variable(START)
    for t in range(3):
        y, grads = number(w), [ops.convert_to_tensor(np.sin(2 * t + i + START), "float32") for i in range(2)]
        optimizer.apply(grads[:1], [w])
        np.testing.assert_array_equal(number(w), y)
        optimizer.apply(grads[1:], [w])
        plain.apply([sum(grads) / 2], [v])
        np.testing.assert_allclose(number(w), number(v), rtol=1e-6)


def test_wrapper_around_prodigy_weighs_by_its_estimate():
    optimizer, w = ScheduleFreeWrapper(Prodigy(1.0, d0=1e-3)), keras.Variable(START)
    d, weights = [], []
    for _ in range(8):
        descend(optimizer, w, 1)
        d.append(float(optimizer.inner_optimizer._scalars["d"]))
        weights.append(max(d) ** 2)
    assert d[-1] > 2 * d[0]
    assert float(optimizer._scalars["weight_sum"]) == pytest.approx(sum(weights), rel=1e-5)


@pytest.mark.parametrize("inner", [SGD(use_ema=True), ScheduleFreeSGD(), ScheduleFreeWrapper(SGD())])
def test_wrapper_around_what_averages_itself(inner):
    with pytest.raises(ValueError, match="needs an inner optimizer that averages no weights"):
        ScheduleFreeWrapper(inner)


def test_wrapper_around_what_raises():
    with pytest.raises(ValueError, match="would leave z in the model"):
        around(nonfinite="raise")


def test_wrapper_in_fit():
    """The callback gives x to each evaluation, and the model has it in the end."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(around(), "mse")
    x, y = np.ones((8, 3)), np.ones((8, 1))
    history = model.fit(
        x, y, batch_size=4, epochs=3, validation_data=(x, y), verbose=0, callbacks=[ScheduleFreeEvaluation()]
    )
    assert model.optimizer.is_averaged
    assert model.evaluate(x, y, verbose=0) == pytest.approx(history.history["val_loss"][-1], rel=1e-5)
