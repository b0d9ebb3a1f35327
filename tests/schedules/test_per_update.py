"""Schedules that count optimizer steps already are not wrapped once more."""

import keras
import numpy as np
import pytest

from keras_lrsched import optimizers
from keras_lrsched.callbacks import MagnitudePruning, ScheduleHyperparameter
from keras_lrsched.schedules import Chain, LinearDecay, PerUpdate, Product, Scale, Warmup

ONCE_MORE = PerUpdate(LinearDecay(1.0, 8), accumulation_steps=2)
NESTED = [
    ONCE_MORE,
    Warmup(ONCE_MORE, 2),
    Scale(Chain([0.1, ONCE_MORE], boundaries=[2]), 2.0),
    Product([LinearDecay(1.0, 4), ONCE_MORE]),
    PerUpdate(ONCE_MORE, 1),
]
MESSAGE = r"counts updates already.*leave PerUpdate out. Received: {}=.*PerUpdate"


@pytest.mark.parametrize("schedule", NESTED, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
def test_our_optimizers_refuse(schedule, name):
    with pytest.raises(ValueError, match=MESSAGE.format(name)):
        optimizers.SGD(**{"learning_rate": 0.1, "gradient_accumulation_steps": 2, name: schedule})


def test_what_else_counts_updates_refuses():
    with pytest.raises(ValueError, match=MESSAGE.format("learning_rate")):
        optimizers.Lookahead(optimizers.AdamW(ONCE_MORE, gradient_accumulation_steps=2))
    optimizer = optimizers.SGD(0.1)
    with pytest.raises(ValueError, match=MESSAGE.format("learning_rate")):
        optimizer.learning_rate = ONCE_MORE
    with pytest.raises(ValueError, match=MESSAGE.format("schedule")):
        ScheduleHyperparameter("optimizer.momentum", ONCE_MORE)
    with pytest.raises(ValueError, match=MESSAGE.format("sparsity")):
        MagnitudePruning(Scale(ONCE_MORE, 0.5))
    optimizers.SGD(PerUpdate(LinearDecay(1.0, 8), accumulation_steps=1))


@pytest.mark.parametrize(
    "wrap", [lambda it: it, lambda it: optimizers.Lookahead(it, sync_period=10**6)], ids=["bare", "wrapped"]
)
def test_around_the_schedule_of_keras_optimizers(wrap):
    """The weight moves by exactly the learning rate."""
    moved = moves(wrap(keras.optimizers.SGD(ONCE_MORE, gradient_accumulation_steps=2)))
    np.testing.assert_allclose(moved, LinearDecay(1.0, 8).values(4), rtol=1e-6)
    plain = optimizers.SGD(LinearDecay(1.0, 8), momentum=0.0, gradient_accumulation_steps=2)
    np.testing.assert_allclose(moves(wrap(plain)), moved, rtol=1e-6)


def moves(optimizer):
    weight = keras.Variable(0.0)
    values = [0.0]
    for _ in range(8):
        optimizer.apply([keras.ops.ones(())], [weight])
        values.append(float(keras.ops.convert_to_numpy(weight)))
    return -np.diff(values)[1::2]
