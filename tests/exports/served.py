"""A process without this package: `served.py FOLDER`. Runs what was exported as each format on the same inputs."""

import sys
from pathlib import Path

import numpy as np


def saved_model(path, x):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return np.asarray(loaded.serve(x))


def onnx(path, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def litert(path, x):
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(path)
    inputs, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(inputs["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(outputs["index"])


def torch(path, x):
    import torch

    return torch.export.load(path).module()(torch.tensor(x)).detach().numpy()


FORMATS = {"saved_model": saved_model, "model.onnx": onnx, "model.tflite": litert, "model.pt2": torch}

if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        x = np.load(folder / "x.npy")
        for name, run in FORMATS.items():
            if (folder / name).exists():
                np.save(folder / f"{name}.npy", run(str(folder / name), x))
    assert not any(name.startswith("keras_lrsched") for name in sys.modules)
