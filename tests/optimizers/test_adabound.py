"""To what rate the bounds of AdaBound refer."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import AdaBound
from keras_lrsched.schedules import LinearDecay


def test_a_schedule_needs_a_base():
    for learning_rate in (LinearDecay(0.1, 10), lambda: 0.1):
        with pytest.raises(ValueError, match="`base_learning_rate` must be given"):
            AdaBound(learning_rate)


def test_base_is_the_learning_rate_at_construction_also_after_saving():
    optimizer = AdaBound(0.01)
    optimizer.learning_rate = 0.001
    again = AdaBound.from_config(optimizer.get_config())
    assert (optimizer.base_learning_rate, again.base_learning_rate) == (0.01, 0.01)


def test_ends_as_sgd_at_the_final_rate():
    """With bounds that have met, every entry moves by the final rate, in proportion to the learning rate."""
    w, gradient = keras.Variable([0.0, 0.0]), [5.0, 1e-3]
    optimizer = AdaBound(LinearDecay(0.1, 10), beta_1=0.0, final_learning_rate=0.4, base_learning_rate=0.2, gamma=1e9)
    optimizer.apply([ops.convert_to_tensor(gradient)], [w])
    np.testing.assert_allclose(ops.convert_to_numpy(w), -0.2 * np.array(gradient), rtol=1e-6)


def test_amsbound_has_one_slot_more():
    optimizer = AdaBound(amsbound=True)
    optimizer.build([keras.Variable(np.zeros((4, 3)), dtype="float32", name="w")])
    assert optimizer.state_bytes_per_parameter() == 12
