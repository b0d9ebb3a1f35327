"""Exported models have operations of their framework only, and load in a process without the package."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import quantize_model
from tests.contract.backends import BACKEND

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")

X = np.random.default_rng(0).normal(size=(4, 32)).astype("float32")
SERVE = """
import sys, numpy as np, tensorflow as tf
for path in sys.argv[2:]:
    served = tf.saved_model.load(path)
    np.save(path + ".npy", served.serve(np.load(sys.argv[1])))
assert not any(name.startswith("keras_lrsched") for name in sys.modules)
"""


def test_exports_load_without_the_package(tmp_path):
    models = {}
    for recipe in ("mxfp8", "int8_switchback"):
        model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32), keras.layers.Dense(2)])
        quantize_model(model, recipe)
        outer = keras.Sequential([keras.Input((32,)), model])
        outer.export(tmp_path / recipe, verbose=False)
        models[tmp_path / recipe] = model
    np.save(tmp_path / "x.npy", X)
    command = [sys.executable, "-c", SERVE, tmp_path / "x.npy", *models]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert result.returncode == 0, result.stderr
    for path, model in models.items():
        np.testing.assert_allclose(np.load(f"{path}.npy"), ops.convert_to_numpy(model(X)), rtol=1e-5, atol=1e-6)
