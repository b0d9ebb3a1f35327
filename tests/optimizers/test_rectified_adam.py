"""The length of the average and the factor of RAdam in float32."""

from fractions import Fraction

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import RectifiedAdam
from keras_lrsched.optimizers.rectified_adam import average_length


@pytest.mark.parametrize("beta", [0.7, 0.9, 0.99, 0.999, 0.9999])
def test_length_of_the_average_has_all_digits(beta):
    exact = Fraction(beta)
    for t in (1, 2, 5, 6, 20, 100, 400, 1000, 1500):
        expected = 2 / (1 - exact) - 1 - 2 * t * exact**t / (1 - exact**t)
        actual = float(average_length(beta, ops.convert_to_tensor(float(t), "float32")))
        assert actual == pytest.approx(float(expected), rel=2e-6)


def moved(**options):
    """Whether w moves in each of eight updates."""
    w, optimizer = keras.Variable([1.0, -1.0]), RectifiedAdam(weight_decay=0.1, **options)
    result = []
    for _ in range(8):
        before = ops.convert_to_numpy(w) + 0
        optimizer.apply([ops.convert_to_tensor([0.5, -0.1])], [w])
        result.append(bool(np.any(ops.convert_to_numpy(w) != before)))
    return result


def test_nothing_happens_below_the_threshold_only_if_asked_for():
    assert moved() == [True] * 8
    assert moved(below_threshold="nothing") == [False] * 5 + [True] * 3
    assert moved(below_threshold="nothing", sma_threshold=4.0) == [False] * 4 + [True] * 4


def test_beta_2_below_which_nothing_is_ever_rectified():
    assert RectifiedAdam(beta_2=0.67).beta_2 == 0.67
    with pytest.raises(ValueError, match=r"`beta_2` .* Received: beta_2=0.66, sma_threshold=5.0"):
        RectifiedAdam(beta_2=0.66)
