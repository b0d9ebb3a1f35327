"""Exported models have operations of their framework only, and load in a process without the package."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core.training_loop import is_exporting
from keras_lrsched.precision import LayerContext
from keras_lrsched.precision.layers import QuantizedDense
from tests.contract.backends import BACKEND
from tests.nightly import nightly

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")

X = np.random.default_rng(0).normal(size=(4, 32)).astype("float32")
SERVE = """
import sys, numpy as np, tensorflow as tf
for path in sys.argv[2:]:
    served = tf.saved_model.load(path)
    np.save(path + ".npy", served.serve(np.load(sys.argv[1])))
assert not any(name.startswith("keras_lrsched") for name in sys.modules)
"""


ON_BITS = {"Bitcast", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "LeftShift", "RightShift"}
"""TensorFlow's operations that the converters of ONNX and LiteRT do not have."""
RECIPES = ("fp4_dge", "fp8_delayed", "int8_switchback", "mxfp8", "nvfp4", "quartet_mxfp4")
"""Those that quantize each in a way of its own; `make test-exports` has all."""


def with_recipes():
    """A model with a layer for each of these recipes, none of which is the first or the last of those that recipes count."""
    inputs = keras.Input((32,))
    context = LayerContext("linear", index=1, count=20)
    return keras.Model(
        inputs, keras.layers.concatenate([QuantizedDense(4, recipe=r, context=context)(inputs) for r in RECIPES])
    )


def operations(path):
    """The names of all operations in a SavedModel."""
    from tensorflow.core.protobuf import saved_model_pb2

    graph = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    return {node.op for function in graph.library.function for node in function.node_def} | {node.op for node in graph.node}


@nightly
def test_exports_load_without_the_package(tmp_path):
    model = with_recipes()
    outer = keras.Sequential([keras.Input((32,)), model])
    outer.export(tmp_path / "exported", verbose=False)
    assert "MatMul" in operations(tmp_path / "exported")
    assert not operations(tmp_path / "exported") & ON_BITS
    np.save(tmp_path / "x.npy", X)
    command = [sys.executable, "-c", SERVE, tmp_path / "x.npy", tmp_path / "exported"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert result.returncode == 0, result.stderr
    served = np.load(tmp_path / "exported.npy")
    np.testing.assert_allclose(served, ops.convert_to_numpy(model(X, training=False)), rtol=1e-5, atol=1e-6)


def test_exporters_are_found():
    """Also those that are called without `model.export`."""
    import tensorflow as tf

    seen = []

    class Seen(keras.layers.Layer):
        def call(self, x):
            seen.append(is_exporting())
            return x + 1

    model = keras.Sequential([keras.Input((2,)), Seen()])
    model(X[:, :2])
    assert not any(seen)
    seen.clear()
    tf.lite.TFLiteConverter.from_keras_model(model).convert()
    assert seen
    assert all(seen)
