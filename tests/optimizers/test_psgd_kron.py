"""PSGD-Kron: which factors are diagonal, when they are fitted, and what they come to."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import PSGDKron
from tests.contract.backends import compiled_update


def factors(optimizer, shape):
    w = keras.Variable(np.zeros(shape), dtype="float32", name="w")
    optimizer.build([w])
    return [tuple(v.shape) for name, v in optimizer._states[0].items() if name.startswith("q_")]


def test_factors():
    assert factors(PSGDKron(), (3, 5)) == [(3, 3), (5, 5)]
    assert factors(PSGDKron(), (1, 5, 2)) == [(5, 5), (2, 2)]  # what is known by its shape alone is all inputs but the last
    assert factors(PSGDKron(diagonal="one"), (5, 5)) == [(5, 5), (5,)]
    assert factors(PSGDKron(diagonal="smart_one"), (5, 5)) == [(5, 5), (5, 5)]
    assert factors(PSGDKron(diagonal="smart_one"), (6, 5)) == [(6,), (5, 5)]
    assert factors(PSGDKron(diagonal="all"), (3, 5)) == [(3,), (5,)]
    assert factors(PSGDKron(max_size_triangular=4), (3, 5)) == [(3, 3), (5,)]
    assert factors(PSGDKron(), (5,)) == [(5,)]
    assert factors(PSGDKron(), ()) == [(1,)]
    assert factors(PSGDKron(exclude_from_preconditioning=["w"]), (3, 5)) == []


@pytest.mark.parametrize(("probability", "expected"), [(1.0, [1, 1, 1, 1]), (0.5, [0, 1, 0, 1]), (0.4, [0, 0, 1, 0])])
def test_updates_of_the_factors(probability, expected):
    w, optimizer = keras.Variable(np.zeros((2, 3)), dtype="float32"), PSGDKron(update_probability=probability)
    fits, rng = [0], np.random.default_rng(0)
    for _ in expected:
        optimizer.apply([ops.convert_to_tensor(rng.normal(size=(2, 3)), "float32")], [w])
        fits.append(int(optimizer._scalars["fits"]))
    assert [*np.diff(fits)] == expected


def test_the_schedule_of_the_factors():
    w, optimizer = keras.Variable(np.zeros(2), dtype="float32"), PSGDKron()
    optimizer.build([w])
    for fits, needed in ((499, 1), (500 + 693, 2), (10**6, 34)):
        optimizer._scalars["fits"].assign(fits)
        optimizer._scalars["counter"].assign(0)
        steps = 0
        while int(optimizer._scalars["fits"]) == fits:
            optimizer.apply([ops.ones(2)], [w])
            steps += 1
        assert steps in (needed, needed + 1)


def test_gradients_are_whitened():
    """A matrix whose rows and columns have gradients of different sizes moves alike in all entries, factors in balance."""
    sizes = np.outer([10.0, 0.1], [1.0, 0.05, 3.0])
    w = keras.Variable(np.zeros((2, 3)), dtype="float32")
    optimizer, rng = PSGDKron(1.0, beta_1=0.0, weight_decay=None), np.random.default_rng(0)
    update, squares = compiled_update(optimizer, [w]), []
    for t in range(700):
        before = ops.convert_to_numpy(w)
        update([ops.convert_to_tensor(sizes * rng.normal(size=(2, 3)), "float32")])
        if t >= 500:
            squares.append((ops.convert_to_numpy(w) - before) ** 2)
    rms = np.sqrt(np.mean(squares, axis=0))
    assert rms.min() > 0.5
    assert rms.max() < 1.6
    largest = [np.abs(ops.convert_to_numpy(optimizer._states[0][name])).max() for name in ("q_0", "q_1")]
    assert 0.2 < largest[0] / largest[1] < 5.0


def test_the_probe_is_not_in_the_step():
    moved = []
    for options in ({"seed": 0}, {"seed": 1}, {"seed": 0, "noise_in_step": True}):
        w, optimizer = keras.Variable(np.zeros((2, 3)), dtype="float32"), PSGDKron(1.0, update_probability=0.5, **options)
        optimizer.apply([ops.convert_to_tensor(np.random.default_rng(0).normal(size=(2, 3)), "float32")], [w])
        moved.append(ops.convert_to_numpy(w))
    np.testing.assert_array_equal(moved[0], moved[1])  # before the first fit
    assert 1e-5 < np.abs(moved[2] - moved[0]).max() < 1e-2
