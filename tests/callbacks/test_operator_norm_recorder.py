"""Operator norms of the matrices of a model."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import OperatorNormRecorder
from keras_lrsched.callbacks.operator_norm_recorder import operator_norms
from tests.contract.optimizer_problem import MORE


def test_norms_of_the_authors():
    w = 0.5 * np.sin(1 + 4 * np.arange(3)[:, None] + np.arange(4))  # three outputs, four inputs
    norms = operator_norms(w.T)
    for name, expected in MORE["norms"]["float64"].items():
        assert norms[name] == pytest.approx(expected, rel=1e-10)
    for name, expected in MORE["norms"]["official_float32_rakkit_disco"].items():
        assert norms[name] == pytest.approx(expected, rel=1e-6)
    assert operator_norms(np.diag([4.0, 1.0, 0.5]))["condition_number"] == pytest.approx(8.0)


def test_what_is_recorded_and_when():
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, name="convolution")(inputs)
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    model.compile("sgd", "mse")
    recorder = OperatorNormRecorder(every=2, singular_values=2)
    model.fit(np.ones((4, 6, 6, 2)), np.ones((4, 2)), epochs=4, verbose=0, callbacks=[recorder])
    assert recorder.epochs == [1, 3]
    assert set(recorder.norms) == {"convolution/kernel", "logits/kernel"}
    last = operator_norms(model.get_layer("convolution").get_weights()[0].reshape(18, 3).astype("float64"))
    for name, values in recorder.norms["convolution/kernel"].items():
        assert len(values) == 2
        assert values[1] == pytest.approx(last[name], rel=1e-6)
    singular = recorder.singular_values_of["logits/kernel"][1]
    assert singular == pytest.approx(np.linalg.svd(model.get_layer("logits").get_weights()[0], compute_uv=False), rel=1e-5)


def test_the_largest_of_several_experts():
    inputs = keras.Input((2, 3))
    layer = keras.layers.EinsumDense("bei,eio->beo", (2, 3), name="experts")
    model = keras.Model(inputs, layer(inputs))
    layer.kernel.assign(np.stack([np.eye(3), 2 * np.eye(3)]))
    model.compile("sgd", loss=lambda y, y_pred: 0.0 * y_pred)
    recorder = OperatorNormRecorder(singular_values=1)
    model.fit(np.ones((2, 2, 3)), np.ones((2, 2, 3)), verbose=0, callbacks=[recorder])
    assert recorder.norms["experts/kernel"]["rms_to_rms"] == pytest.approx([2.0])
    assert recorder.singular_values_of["experts/kernel"] == [pytest.approx([1.0])]


@pytest.mark.parametrize("bad", [{"every": 0}, {"singular_values": -1}])
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        OperatorNormRecorder(**bad)
