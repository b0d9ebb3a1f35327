"""MARS: what is a matrix, and the AdamW that updates all else."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import MARS, AdamW

SHAPES = {"matrix": (4, 3), "vector": (5,), "kernel": (3, 3, 2, 4)}


def trained(optimizer, steps=3):
    rng = np.random.default_rng(0)
    weights = [keras.Variable(rng.normal(size=shape), name=name) for name, shape in SHAPES.items()]
    for _ in range(steps):
        optimizer.apply([ops.convert_to_tensor(rng.normal(size=v.shape), "float32") for v in weights], weights)
    return dict(zip(SHAPES, map(ops.convert_to_numpy, weights), strict=True))


def test_adamw_updates_what_is_no_matrix():
    """With its own rate, decay rates and weight decay."""
    mine = trained(MARS(0.02, weight_decay=0.5, adam_lr_ratio=0.5, adam_beta_1=0.8, adam_weight_decay=0.2))
    adamw = trained(AdamW(0.01, weight_decay=0.2, beta_1=0.8, beta_2=0.95, epsilon=1e-8))
    for name in ("vector", "kernel"):
        np.testing.assert_allclose(mine[name], adamw[name], rtol=1e-6)
    assert np.any(np.abs(mine["matrix"] - adamw["matrix"]) > 1e-3)


@pytest.mark.parametrize(("mars_type", "has_v"), [("adamw", True), ("lion", False), ("shampoo", True)])
def test_all_variables_alike(mars_type, has_v):
    """Without gamma and with norms below 1, it is AdamW or the sign of a mean; a vector has no Shampoo."""
    optimizer = MARS(0.01, gamma=0.0, mars_type=mars_type, optimize_1d=True)
    w = keras.Variable([1.0, -1.0, 0.5])
    optimizer.build([w])
    assert ("v" in optimizer._states[0]) == has_v
    optimizer.apply([ops.convert_to_tensor([0.1, -0.2, 0.3])], [w])
    np.testing.assert_allclose(ops.convert_to_numpy(w), [0.99, -0.99, 0.49], rtol=1e-5)


@pytest.mark.parametrize("size", [0.01, 100.0])
def test_corrected_gradients_have_a_norm_of_at_most_one(size):
    optimizer, w = MARS(0.01, beta_1=0.5, gamma=1.0, adam_weight_decay=None), keras.Variable(np.zeros((2, 2)))
    g = size * np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
    optimizer.apply([ops.convert_to_tensor(g)], [w])
    c = 2 * g / max(1, np.linalg.norm(2 * g))  # g and its difference to 0
    np.testing.assert_allclose(ops.convert_to_numpy(optimizer._states[0]["m"]), 0.5 * c, rtol=1e-6)


def test_weight_decay_and_its_exclusion():
    def decayed(**options):
        with_, without = (trained(MARS(0.01, weight_decay=d, adam_weight_decay=d, **options)) for d in (0.5, None))
        return {name for name in SHAPES if np.any(with_[name] != without[name])}

    assert decayed() == set(SHAPES)
    assert decayed(exclude_from_weight_decay=["^matrix$", "vector"]) == {"kernel"}
