"""Data of unknown length: TensorFlow finds their end by a step without a batch, which must be none."""

import keras
import numpy as np
import pytest

from keras_lrsched.optimizers import AdamW, LayerwiseLearningRate, Lookahead, SharpnessAware, Sophia, SophiaModel
from keras_lrsched.precision import LossScaleOptimizer
from keras_lrsched.schedules import LinearDecay
from tests.contract.backends import BACKEND
from tests.nightly import some

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="the others fetch a batch before its step")


def data(known):
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices((x, np.abs(x[:, :1]))).batch(2)
    return batches if known else batches.filter(lambda x, y: True)


def trained(make_optimizer, known, around=lambda model: model, callbacks=(), **options):
    """All variables after three epochs of six batches."""
    keras.utils.set_random_seed(0)
    model = around(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]))
    model.compile(make_optimizer(), "mse", jit_compile=False, **options)
    model.fit(data(known), epochs=3, verbose=0, callbacks=list(callbacks))
    return [np.asarray(variable) for variable in (*model.variables, *model.optimizer.variables)]


def sgd(**options):
    return keras.optimizers.SGD(LinearDecay(0.1, 20), momentum=0.9, **options)


OPTIMIZERS = {
    "AdamW, with an average": lambda: AdamW(LinearDecay(0.1, 20), use_ema=True),
    "AdamW, accumulating, scaled": lambda: keras.optimizers.LossScaleOptimizer(AdamW(0.1, gradient_accumulation_steps=2)),
    "Keras' SGD in Lookahead": lambda: Lookahead(sgd(), sync_period=2),
    "Keras' SGD by layers, with an average": lambda: LayerwiseLearningRate(sgd(), {"bias": 0.5}),
    "Keras' SGD, scaled as in fairseq": lambda: LossScaleOptimizer(sgd(use_ema=True), 128.0),
}


OF_EACH_KIND = ("AdamW, accumulating, scaled", "Keras' SGD in Lookahead")


@pytest.mark.parametrize("name", some(OPTIMIZERS, chosen=OF_EACH_KIND.__contains__))
def test_optimizers(name):
    for known, unknown in zip(*(trained(OPTIMIZERS[name], each) for each in (True, False)), strict=True):
        np.testing.assert_array_equal(unknown, known)


@pytest.mark.parametrize("kind", some([SharpnessAware, SophiaModel]))
def test_steps_of_our_own(kind):
    def optimizer():
        return Sophia(LinearDecay(0.1, 20), update_period=6, estimator="hutchinson", seed=1)

    for known, unknown in zip(*(trained(optimizer, each, kind) for each in (True, False)), strict=True):
        np.testing.assert_array_equal(unknown, known)
