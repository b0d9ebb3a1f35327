"""Schedules in Keras' wrappers for scikit-learn, which copies and pickles what it is given."""

import pickle

import keras
import numpy as np
import pytest

from keras_lrsched import optimizers
from keras_lrsched.schedules import LinearDecay, Warmup


def build(X, y, schedule, optimizer):  # noqa: N803 - the names with which Keras calls it
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2, "softmax")])
    model.compile(optimizer(schedule), "categorical_crossentropy")
    return model


@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, optimizers.AdamW], ids=["keras", "ours"])
def test_a_classifier_that_is_cloned_fitted_and_pickled(optimizer):
    sklearn = pytest.importorskip("sklearn")
    options = {"schedule": Warmup(LinearDecay(0.1, 10), 2), "optimizer": optimizer}
    classifier = sklearn.base.clone(keras.wrappers.SKLearnClassifier(build, model_kwargs=options, fit_kwargs={"verbose": 0}))
    x = np.eye(2, dtype="float32")
    classifier.fit(x, np.array([0, 1]))
    loaded = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(loaded.predict(x), classifier.predict(x))
