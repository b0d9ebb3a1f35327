"""Converted, trained, saved, loaded in a new process, exported, cloned, trained on: the same all the way."""

import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lrsched.precision import quantize_model
from tests.contract.backends import BACKEND
from tests.precision.lifecycle.structures import STRUCTURES, made, train, train_first

HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BACKEND != "tensorflow", reason="exports of TensorFlow")]
RECIPES = ("mxfp8", "fp8_delayed", "int8_jetfire")
"""Without state, with statistics of batches, with blocks that reach over tokens, and so over the samples of a batch."""


def run(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, HERE / script, *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr[-2000:]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", sorted(STRUCTURES))
def test_the_same_all_the_way(name, recipe, tmp_path):
    model, x, y = made(name)
    plain = model.predict(x, batch_size=16, verbose=0)
    convert = functools.partial(quantize_model, recipe=recipe, strict=False)
    convert(model)
    quantized = model.predict(x, batch_size=16, verbose=0)
    assert 0 < np.abs(quantized - plain).max() < 0.25 * np.abs(plain).max()
    train_first(name, model, x, y, convert)
    outputs = model.predict(x, batch_size=16, verbose=0)  # in one batch, as the exported model will
    model.save(tmp_path / "model.keras")
    model.export(tmp_path / "exported", verbose=False)
    (tmp_path / "x.pickle").write_bytes(pickle.dumps(x))

    clone = keras.models.clone_model(model)
    for variable, other in zip(clone.variables, model.variables, strict=True):
        variable.assign(other)
    np.testing.assert_array_equal(clone.predict(x, batch_size=16, verbose=0), outputs)

    train(model, x, y)
    run("next_process.py", tmp_path, name)
    with np.load(tmp_path / "next.npz") as arrays:
        loaded, *variables = arrays.values()
    np.testing.assert_array_equal(loaded, outputs)
    for variable, other in zip(model.variables, variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), other, err_msg=variable.path)

    run("without_package.py", tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "exported.npy"), outputs, rtol=1e-4, atol=1e-4 * np.abs(outputs).max())
