"""Restarts of weights and moments: shrink and perturb, reset of moments, balanced factors."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import AdamW, Lookahead, Prodigy, refactorize_low_rank, reset_moments, shrink_perturb
from tests.contract.optimizer_problem import RUNS, gradients, variables


def values(tensors):
    return [np.array(ops.convert_to_numpy(each)) for each in tensors]


@pytest.mark.parametrize(
    "build",
    [lambda: AdamW(0.1), lambda: Prodigy(1.0), lambda: Lookahead(AdamW(0.1)), lambda: keras.optimizers.Adam(0.1)],
    ids=["AdamW", "Prodigy", "Lookahead", "Keras"],
)
def test_state_is_that_of_a_new_optimizer(build):
    weights, others, optimizer = [*variables().values()], [*variables().values()], build()
    for t in range(1, 4):
        optimizer.apply(gradients(t), weights)
    reset_moments(optimizer)
    assert int(optimizer.iterations) == 3
    reset_moments(optimizer, reset_iterations=True)
    for weight, other in zip(weights, others, strict=True):
        weight.assign(other)
    new = build()
    for t in range(1, 4):
        optimizer.apply(gradients(t), weights)
        new.apply(gradients(t), others)
    for one, other in zip(values(weights), values(others), strict=True):
        np.testing.assert_array_equal(one, other)


def test_state_of_some_variables():
    weights, optimizer = [*variables().values()], AdamW(0.1)
    optimizer.apply(gradients(1), weights)
    reset_moments(optimizer, weights[:1])
    assert not np.any(ops.convert_to_numpy(optimizer._states[0]["m"]))
    assert np.any(ops.convert_to_numpy(optimizer._states[1]["m"]))
    with pytest.raises(ValueError, match="not built with this variable"):
        reset_moments(optimizer, [keras.Variable([1.0], name="other")])
    with pytest.raises(ValueError, match="no state yet"):
        reset_moments(AdamW())
    theirs = keras.optimizers.Adam()
    theirs.build(weights)
    with pytest.raises(ValueError, match="of this package's only"):
        reset_moments(theirs, weights[:1])


def test_shrink_and_perturb_to_its_reference():
    run = RUNS["shrink_perturb_own"]
    layer = keras.layers.Dense(4, use_bias=False)
    model = keras.Sequential([keras.Input((3,)), layer])
    layer.kernel.assign(variables()["kernel"])
    model.compile(AdamW(0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.apply([gradients(1)[0]])
    layer.kernel.assign(variables()["kernel"])
    shrink_perturb(model, 0.4, 0.1, fresh=[0.3 * np.cos(np.arange(12)).reshape(3, 4)])
    np.testing.assert_allclose(layer.get_weights()[0].ravel(), run["traj"][0]["W"], rtol=1e-6)
    assert not any(np.any(ops.convert_to_numpy(v)) for v in model.optimizer._states[0].values())


def test_normalizations_begin_anew():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization()])
    for variable in model.weights:
        variable.assign(variable + 1.0)
    before = values(model.layers[0].weights)
    shrink_perturb(model)
    gamma, beta, mean, variance = values(model.layers[1].weights)
    assert (np.all(gamma == 1), np.all(beta == 0), np.all(mean == 0), np.all(variance == 1)) == (True,) * 4
    kernel, bias = values(model.layers[0].weights)
    assert np.all(kernel != before[0])
    np.testing.assert_allclose(bias, 0.4 * before[1])
    with pytest.raises(ValueError, match="`fresh` must have weights of the shapes"):
        shrink_perturb(model, fresh=[np.ones(3)])
    with pytest.raises(ValueError, match="`shrink` must be"):
        shrink_perturb(model, shrink=1.5)
    with pytest.raises(ValueError, match="`model` must be built"):
        shrink_perturb(keras.Sequential([keras.layers.Dense(1)]))


def test_balanced_factors():
    """The function of the model stays, both factors have one norm, and their moments are gone."""
    layer = keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.enable_lora(2)
    model.compile(AdamW(0.1), "mse")
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    model.fit(x, np.ones((5, 3)), epochs=3, verbose=0)
    layer.lora_kernel_a.assign(10 * layer.lora_kernel_a)
    before = ops.convert_to_numpy(model(x))
    assert refactorize_low_rank(model) == 1
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), before, rtol=1e-4, atol=1e-5)
    lengths = [np.linalg.norm(each) for each in values([layer.lora_kernel_a, layer.lora_kernel_b])]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)
    factors = [i for i, v in enumerate(model.trainable_variables) if "lora" in v.name]
    for i in factors:
        assert not any(np.any(each) for each in values(model.optimizer._states[i].values()))


def test_factors_that_are_not_trained_or_not_there():
    layer = keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((4,)), layer])
    with pytest.raises(ValueError, match="No layer has two factors"):
        refactorize_low_rank(model)
    layer.enable_lora(2)
    before = values([layer.lora_kernel_a, layer.lora_kernel_b])
    assert refactorize_low_rank(model) == 0
    for one, other in zip(values([layer.lora_kernel_a, layer.lora_kernel_b]), before, strict=True):
        np.testing.assert_array_equal(one, other)
