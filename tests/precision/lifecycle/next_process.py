"""A new process: `next_process.py FOLDER STRUCTURE`. Loads the model, predicts, goes on, and writes what it got."""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_lrsched.precision  # noqa: F401 - registers the layers
from tests.precision.lifecycle.structures import made, train

folder, name = Path(sys.argv[1]), sys.argv[2]
_, x, y = made(name)
model = keras.saving.load_model(folder / "model.keras")
outputs = model.predict(x, batch_size=16, verbose=0)
train(model, x, y)
np.savez(folder / "next.npz", outputs, *(np.array(variable.numpy()) for variable in model.variables))
