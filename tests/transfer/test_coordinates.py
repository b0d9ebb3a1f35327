"""Slopes of parameterizations, and what the check sees and refuses."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lrsched import transfer
from keras_lrsched.optimizers import Muon
from tests.nightly import nightly, some

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 10)).astype("float32")
Y = np.argmax(X @ RNG.normal(size=(10, 5)), axis=1)


def network(width):
    parts = [layers.Dense(width, "relu"), layers.Dense(width, "relu"), layers.Dense(5)]
    return keras.Sequential([keras.Input((10,)), *parts])


def adam():
    return keras.optimizers.Adam(0.01, beta_2=0.99, epsilon=1e-12)


def maker(rule, make_optimizer=adam):
    def make(width):
        model, optimizer = network(width), make_optimizer()
        if rule is not None:
            optimizer = transfer.apply(model, network(64), rule, optimizer).optimizer
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, run_eagerly=True)  # four updates are not worth a compiled step
        return model

    return make


def slopes(make, widths=(64, 256, 1024), seeds=(0, 1, 2)):
    return list(transfer.coordinate_check(make, widths, X, Y, seeds=seeds).slopes.values())


@pytest.mark.parametrize("widths", some([(64, 1024), (64, 128, 256, 512, 1024)]))
def test_mup_changes_as_fast_at_each_width(widths):
    assert np.abs(slopes(maker("mup"), widths)).max() <= 0.05


def test_the_standard_parameterization_does_not():
    *_, logits = slopes(maker(None), (64, 256), seeds=(0,))
    assert logits > 0.4


@nightly
@pytest.mark.parametrize("adjust_lr", ["original", "spectral_norm", "match_rms_adamw"])
def test_muon(adjust_lr):
    """With the factor m^-0.5 of the last one; 1 / m would give hidden layers a slope of -0.5."""

    def optimizer():
        return Muon(0.02, adjust_lr=adjust_lr, epsilon=1e-12, weight_decay=None, adam_weight_decay=None)

    hidden = slopes(maker("mup", optimizer), (64, 128, 256, 512))[:2]
    assert np.abs(hidden).max() <= 0.05


def test_the_change_is_that_of_the_layers():
    """One layer, whose change can be computed from its weights."""

    def make(width):
        model = keras.Sequential([keras.Input((10,)), layers.Dense(width, name="only")])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        made.append((model, keras.ops.convert_to_numpy(model.layers[0].kernel)))
        return model

    made = []
    result = transfer.coordinate_check(make, [2, 3], X, np.zeros((64, 1)), steps=2, seeds=[1])
    for column, (model, before) in enumerate(made):
        after, bias = (keras.ops.convert_to_numpy(each) for each in model.layers[0].weights)
        change = X @ (after - before) + bias
        [measured] = result.changes.values()
        assert measured[0, column] == pytest.approx(np.sqrt(np.mean(change**2)), rel=1e-5)
    assert "call" not in vars(made[0][0].layers[0])


def test_a_layer_that_does_not_change():
    def make(width):
        model = keras.Sequential([keras.Input((10,)), layers.Dense(width, trainable=False), layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    frozen, trained = slopes(make, (2, 3), seeds=(0,))
    assert np.isnan(frozen)
    assert np.isfinite(trained)


def test_plot():
    result = transfer.CoordinateCheck([1, 10], {"a": np.array([[1.0, 10.0]])}, {"a": 1.0})
    [line] = result.plot().get_lines()
    assert line.get_label() == "a (+1.00)"
    assert line.get_ydata() == pytest.approx([1, 10])


def test_arguments():
    make = maker(None)
    with pytest.raises(ValueError, match=r"`widths` must be strictly increasing"):
        transfer.coordinate_check(make, [8, 8], X, Y)
    with pytest.raises(ValueError, match=r"`widths` must be two or more, and `seeds` one or more"):
        transfer.coordinate_check(make, [8], X, Y)
    with pytest.raises(ValueError, match=r"`steps` must be a positive integer"):
        transfer.coordinate_check(make, [8, 16], X, Y, steps=0)
    deeper = {8: 1, 16: 2}

    def growing(width):
        model = keras.Sequential([keras.Input((10,)), *[layers.Dense(5) for _ in range(deeper[width])]])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    with pytest.raises(ValueError, match=r"Models must have as many layers at each width. Received: \[1, 2\]"):
        transfer.coordinate_check(growing, [8, 16], X, Y, steps=1, seeds=[0])
