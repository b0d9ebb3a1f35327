"""Continual learning, beyond the contract: CLASSP, TAG, elastic weight consolidation."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import CLASSP, TAG, ElasticWeightConsolidation
from tests.contract.optimizer_problem import RUNS, gradients, variables


@pytest.mark.parametrize(("run", "fisher"), [("ewc_diag_own", "diagonal"), ("ewc_rank1_own", "rank_one")])
def test_consolidation_to_its_reference(run, fisher):
    weights = variables()
    optimizer = ElasticWeightConsolidation(keras.optimizers.SGD(0.05), strength=10.0, fisher=fisher)
    optimizer.build([*weights.values()])
    optimizer.consolidate(gradients(t) for t in (1, 2, 3))
    for t, expected in enumerate(RUNS[run]["traj"], start=1):
        optimizer.apply(gradients(t), [*weights.values()])
        for variable, name in zip(weights.values(), "Wb", strict=True):
            np.testing.assert_allclose(ops.convert_to_numpy(variable).ravel(), expected[name], rtol=1e-6, atol=2e-6)


def test_several_tasks_are_one_penalty():
    """The gradient of the sum of two penalties, each around the weights after its task; entries without F have none."""
    w = keras.Variable([1.0, 2.0, 3.0])
    optimizer = ElasticWeightConsolidation(keras.optimizers.SGD(1.0), strength=0.5)
    optimizer.build([w])
    anchors, fishers = (
        [np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.5, 2.0])],
        [np.array([4.0, 0, 0]), np.array([1.0, 9, 0])],
    )
    for anchor, fisher in zip(anchors, fishers, strict=True):
        w.assign(anchor)
        optimizer.consolidate([[ops.convert_to_tensor(np.sqrt(fisher), "float32")]])
    here = np.array([0.5, -1.0, 7.0])
    w.assign(here)
    optimizer.apply([ops.zeros(3)], [w])
    slope = 0.5 * sum(f * (here - a) for f, a in zip(fishers, anchors, strict=True))
    np.testing.assert_allclose(ops.convert_to_numpy(w), here - slope, rtol=1e-6)


def test_consolidation_on_data():
    """F is the mean of squared gradients of single samples."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(ElasticWeightConsolidation(keras.optimizers.SGD(0.1)), "mse")
    model.optimizer.build(model.trainable_variables)
    x, y = np.array([[1.0, 0.0], [2.0, -1.0], [0.5, 0.5]], "float32"), np.array([[1.0], [0.0], [2.0]], "float32")
    model.optimizer.consolidate_on(model, x, y)
    expected = np.mean((-2 * y * x) ** 2, axis=0)
    np.testing.assert_allclose(ops.convert_to_numpy(model.optimizer._states[0]["fisher"])[:, 0], expected, rtol=1e-5)


def test_consolidation_that_is_refused():
    optimizer, w = ElasticWeightConsolidation(keras.optimizers.SGD(), fisher="rank_one"), keras.Variable([1.0])
    with pytest.raises(ValueError, match="call `build"):
        optimizer.consolidate([[ops.ones(1)]])
    optimizer.build([w])
    with pytest.raises(ValueError, match="of one sample at least"):
        optimizer.consolidate([])
    optimizer.consolidate([[ops.ones(1)]])
    with pytest.raises(ValueError, match="holds the weights of one task"):
        optimizer.consolidate([[ops.ones(1)]])


def test_tasks_of_tag():
    optimizer, w = TAG(tasks=2), keras.Variable([1.0])
    with pytest.raises(ValueError, match="no update yet"):
        optimizer.start_task()
    optimizer.apply([ops.ones(1)], [w])
    optimizer.start_task()
    with pytest.raises(ValueError, match="2 tasks already"):
        optimizer.start_task()


def test_entries_below_the_threshold_stay():
    w = keras.Variable([1.0, 1.0, 1.0])
    optimizer = CLASSP(0.1, threshold=0.25, power=2.0)
    optimizer.apply([ops.convert_to_tensor([0.5, -0.51, np.nan])], [w])
    values = ops.convert_to_numpy(w)
    assert values[0] == 1.0
    assert values[1] == pytest.approx(1.1, rel=1e-4)
    assert np.isnan(values[2])
