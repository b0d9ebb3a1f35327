"""Exported models compute the same in a process without this package, in the runtimes of TensorFlow, ONNX and LiteRT.

docs/guides/low_precision.md has a table of what was exported as what, which says what is tested here.
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import fake_quantize
from tests.contract.backends import BACKEND
from tests.exports.models import NAMES, X, trained
from tests.precision.vectors import assert_same_bits

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "guides" / "low_precision.md"
COLUMNS = {
    ("tensorflow", "saved_model"): "SavedModel",
    ("tensorflow", "model.onnx"): "ONNX",
    ("tensorflow", "model.tflite"): "LiteRT",
    ("torch", "model.onnx"): "ONNX, from PyTorch",
    ("torch", "model.pt2"): "ExportedProgram, from PyTorch",
}
KINDS = {"saved_model": "tf_saved_model", "model.onnx": "onnx", "model.tflite": "litert", "model.pt2": "torch"}
FORMATS = ("FP8_E4M3", "FP8_E5M2_ROW", "FP8_E4M3_BLOCK128", "MXFP8_E4M3", "MXFP6_E3M2", "MXFP4", "MXINT8", "NVFP4")
FORMATS += ("NVFP4_FOUR_OVER_SIX", "INT8_CHANNEL", "INT4_GROUP128", "INT8_BLOCK32X32")


def table():
    """recipe -> column -> cell, of the table of exports."""
    lines = iter(DOCUMENT.read_text().splitlines())
    header = next(line for line in lines if line.startswith("| exported with |"))
    columns = [cell.strip() for cell in header.strip("|").split("|")][1:]
    next(lines)
    rows = {}
    for line in lines:
        if not line.startswith("|"):
            return rows
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows[name.strip("`")] = dict(zip(columns, cells, strict=True))
    return rows


def files(name):
    """The formats that a recipe can be exported to with this backend, by the table."""
    return [file for (backend, file), column in COLUMNS.items() if backend == BACKEND and table()[name][column] == "yes"]


def export(model, folder, file):
    options = {}
    if file == "model.tflite":
        import tensorflow as tf

        options = {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}
    if BACKEND == "torch":  # which knows no unknown sizes
        options["input_signature"] = [keras.InputSpec(shape=X.shape, dtype="float32")]
    model.export(str(folder / file), format=KINDS[file], verbose=False, **options)


def serve(folder):
    """The outputs of all files in a folder, from a process without this package."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, HERE / "served.py", folder]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, cwd=folder)
    assert not done.returncode, done.stderr[-2000:]
    return {path.stem: np.load(path) for path in folder.glob("*.npy") if path.stem != "x"}


def test_the_table_has_every_recipe():
    assert sorted(table()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_recipes(name, tmp_path):
    wanted = files(name)
    if not wanted:
        pytest.skip("not exported with this backend")
    model = trained(name)
    expected = ops.convert_to_numpy(model(X, training=False))
    np.save(tmp_path / "x.npy", X)
    for file in wanted:
        export(model, tmp_path, file)
    served = serve(tmp_path)
    assert sorted(served) == sorted(wanted)
    for file, outputs in served.items():
        errors = np.abs(outputs - expected).max(axis=1) / np.abs(expected).max()
        # Sums in another order are rounded otherwise, which in rare cases moves a number of the next layer to the next code.
        assert np.median(errors) < 1e-5, (file, errors)
        assert errors.max() < 0.01, (file, errors)


class InFormats(keras.layers.Layer):
    """Its input in each of the formats."""

    def call(self, x):
        return ops.stack([fake_quantize(x, format) for format in FORMATS])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
def test_runtimes_quantize_to_the_same_bits(tmp_path):
    random = np.random.default_rng(0)
    x = (
        random.standard_normal((96, 256))
        * 2.0 ** random.integers(-10, 10, (96, 1))
        * 2.0 ** random.integers(-5, 1, (96, 256))
    )
    x[::5, ::3] = 2.0 ** random.integers(-8, 8, x[::5, ::3].shape)
    x[7] = 0
    inputs = keras.Input(x.shape[1:], batch_size=len(x))
    model = keras.Model(inputs, InFormats()(inputs))
    x = x.astype("float32")
    np.save(tmp_path / "x.npy", x)
    for file in ("saved_model", "model.onnx", "model.tflite"):
        export(model, tmp_path, file)
    expected = ops.convert_to_numpy(model(x))
    for file, outputs in serve(tmp_path).items():
        for name, ours, theirs in zip(FORMATS, outputs, expected, strict=True):
            zero = np.float32(0)  # whose sign is of no account
            assert_same_bits(ours + zero, theirs + zero), (file, name)
