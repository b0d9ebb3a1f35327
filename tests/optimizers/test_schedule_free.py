"""Schedule-Free: which weights the model has, and when."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import ScheduleFreeAdamW, ScheduleFreeRAdam, ScheduleFreeSGD

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
    np.testing.assert_allclose(number(v) - x, (1 / optimizer.beta - 1) * number(optimizer._states[1]["gap"]), rtol=1e-4)


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
