"""The problem of the reference runs: gradients that do not depend on the weights, so that a test needs no autodiff."""

import json
from pathlib import Path

import keras
import numpy as np
from keras import ops

MORE = json.loads(Path(__file__).with_name("optimizers_more_ref.json").read_text())
"""Reference values of the second part: `runs` and, beside them, matrices, norms and other single results."""

RUNS = json.loads(Path(__file__).with_name("optimizers_ref.json").read_text()) | MORE["runs"]
"""Weights after each update, row by row, from official code where there is any; `meta` says which, with what settings."""

_I, _J = np.indices((3, 4))
_K = np.arange(5)


def variables(dtype="float32"):
    return {
        "kernel": keras.Variable(0.5 * np.sin(1 + 4 * _I + _J), dtype=dtype, name="kernel"),
        "bias": keras.Variable(0.1 * (_K + 1) - 0.25, dtype=dtype, name="bias"),
    }


def gradients(t, dtype="float32"):
    """Those of update t = 1, 2, ...; the fourth has a spike."""
    scale = 10 if t == 4 else 1
    kernel = 0.3 * np.cos(0.7 * t + 0.3 * (4 * _I + _J)) + 0.1 * np.sin((_I + 1) * (_J + 2) * t)
    bias = 0.2 * np.sin(0.5 * t + 0.4 * _K)
    return [ops.convert_to_tensor(scale * kernel, dtype), ops.convert_to_tensor(scale * bias, dtype)]
