"""What the package relies on inside of Keras is as it was."""

import keras
import numpy as np
import pytest

from keras_lrsched._core import keras_private
from tests.contract.backends import BACKEND


@pytest.mark.skipif(BACKEND != "jax", reason="JAX alone takes values out of variables")
def test_has_value():
    """After an error in the first step, Keras has not put them back."""

    def fails(y, y_pred):
        raise ZeroDivisionError

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    assert keras_private.has_value(model.optimizer.iterations)
    model.fit(np.ones((1, 1)), np.ones((1, 1)), verbose=0)
    assert keras_private.has_value(model.optimizer.iterations)
    model.compile("adam", "mse")
    model.fit(np.ones((1, 1)), np.ones((1, 1)), verbose=0)
    model.train_function = lambda state, iterator: fails(None, None)
    with pytest.raises(ZeroDivisionError):
        model.fit(np.ones((1, 1)), np.ones((1, 1)), verbose=0)
    assert not keras_private.has_value(model.optimizer.iterations)
