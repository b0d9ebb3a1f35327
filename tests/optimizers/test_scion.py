"""The norms of Scion by the roles of variables, and convolutions."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import Scion
from tests.contract.optimizer_problem import RUNS

LAYERS = keras.layers


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


def test_a_convolution_as_the_authors():
    """Their kernel is (outputs, inputs, height, width)."""
    n = np.arange(24)
    kernel = built(LAYERS.Conv2D(2, 2, use_bias=False), 8, 8, 3).kernel

    def ours(values):
        return values.reshape(2, 3, 2, 2).transpose(2, 3, 1, 0).astype("float32")

    kernel.assign(ours(0.3 * np.sin(1 + 0.5 * n)))
    optimizer = Scion(0.01, momentum=0.1, scale=2.0, norms={"": "spectral_conv"})
    for t, expected in enumerate(RUNS["scion_spectralconv"]["traj"], start=1):
        optimizer.apply([ops.convert_to_tensor(ours(np.cos(0.7 * t + 0.3 * n) + 0.1 * np.sin(n * t**2)))], [kernel])
        np.testing.assert_allclose(kernel, ours(np.array(expected["K"])), rtol=1e-5, atol=2e-6)


def test_norms_by_role():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            LAYERS.Embedding(7, 4, name="words"),
            LAYERS.Conv1D(4, 3, name="conv"),
            LAYERS.DepthwiseConv1D(3, name="depthwise"),
            LAYERS.LayerNormalization(name="norm"),
            LAYERS.Conv1DTranspose(6, 2, name="up"),
            LAYERS.Dense(8, name="hidden"),
            LAYERS.Dense(5, name="logits"),
        ]
    )
    optimizer = Scion(scales={"role:head": 3.0})
    optimizer.build(model.trainable_variables)
    found = {"/".join(v.path.split("/")[-2:]): b for v, b in zip(model.trainable_variables, optimizer._balls, strict=True)}
    assert {path: b.name for path, b in found.items() if b.name != "bias_rms"} == {
        "words/embeddings": "column",
        "conv/kernel": "spectral_conv",
        "depthwise/kernel": "spectral_conv",
        "up/kernel": "spectral_conv",
        "hidden/kernel": "spectral",
        "logits/kernel": "sign",
    }
    assert (found["conv/kernel"].fans, found["conv/kernel"].taps) == ((4, 4), 3)
    assert (found["up/kernel"].fans, found["up/kernel"].taps) == ((4, 6), 2)
    assert (found["depthwise/kernel"].fans, found["depthwise/kernel"].view.stack) == ((1, 1), 4)
    assert optimizer._scales == [1.0] * 11 + [3.0] * 2


def test_a_constrained_network_stays_in_the_ball():
    """Each row of an embedding at an RMS of at most the scale, whatever the gradients."""
    table = built(LAYERS.Embedding(5, 4), 8).embeddings
    optimizer, rng = Scion(0.2, scale=2.0), np.random.default_rng(0)
    for _ in range(100):
        optimizer.apply([ops.convert_to_tensor(rng.normal(size=(5, 4)) + 0.5, "float32")], [table])
    rms = np.sqrt(np.mean(np.square(ops.convert_to_numpy(table)), axis=-1))
    assert np.all(rms < 2.0 + 1e-5)
    assert rms.max() > 0.5
    free = Scion(0.2, scale=2.0, constrained=False)
    for _ in range(20):
        free.apply([ops.ones((5, 4))], [table])
    assert np.all(np.sqrt(np.mean(np.square(ops.convert_to_numpy(table)), axis=-1)) > 2.0)


@pytest.mark.parametrize(
    ("norms", "message"),
    [
        ({"kernel": "nuclear"}, "must have norms among spectral, .* Received: 'nuclear'"),
        ({"kernel": {"norm": "sign", "transpose": True}}, "dictionaries with `norm`, `normalized` and `max`"),
        ({"kernel": 1.0}, "names of norms, or dictionaries .* Received: 1.0"),
    ],
)
def test_norms_that_are_none(norms, message):
    with pytest.raises(ValueError, match=message):
        Scion(norms=norms)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norms": {"bias": "spectral"}}, "'spectral' is for matrices, which bias is not"),
        ({"norms": {"role:head": "sign"}}, "none of 1 variables is what 'role:head' is for"),
        ({"scales": {"kernel": 2.0}}, "'kernel' is found in none of the 1 paths"),
    ],
)
def test_rules_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        Scion(**options).build([keras.Variable(np.zeros(3), dtype="float32", name="bias")])


def test_a_radius_is_positive():
    with pytest.raises(ValueError, match=r"`scales` must be a positive number\. Received: scales=-1.0"):
        Scion(scales={"kernel": -1.0})


def test_the_sign_of_a_vector():
    w = keras.Variable(np.zeros(3), dtype="float32", name="bias")
    Scion(1.0, norms={"bias": "sign"}).apply([ops.array([3.0, -0.1, 0.0])], [w])
    np.testing.assert_array_equal(w, [-1, 1, 0])
