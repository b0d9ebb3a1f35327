"""Operator norms and singular values of the matrices of a model, as it trains."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.roles import Role, Roles, path_of, roles

NORMS = ("rms_to_rms", "l1_to_rms", "rms_to_inf", "supremum", "condition_number")


@register(
    title="Operator norms by layer",
    paper="arXiv:2510.03871",
    code=("rakkit/disco",),
    checked="vectors",
    against="the authors' code",
    kind="recorder",
)
class OperatorNormRecorder(keras.callbacks.Callback):
    """Record of the operator norms and the largest singular values of each matrix, at the end of epochs.

    With a matrix W from n inputs to m outputs, of singular values s_1 >= s_2 >= ...,

        rms_to_rms       = sqrt(n / m) s_1                          what a hidden layer does to root mean squares
        l1_to_rms        = largest norm of an input's column / sqrt(m)          of an embedding: its largest row
        rms_to_inf       = largest norm of an output's row * sqrt(n)             of an output layer
        supremum         = largest |w|
        condition_number = s_1 / s_min

    The output layer's `rms_to_inf` is the norm that is the same at the best scales of rate and batch size. Inputs
    and outputs are those of the roles of variables, `keras_lrsched.optimizers.roles(model)`: the kernel of a convolution is
    the matrix (height x width x inputs, outputs); of several matrices in one variable, such as experts, the largest norm is
    recorded. Vectors, biases and scales are left out. Norms are computed in float64, by a singular value decomposition on
    the host, which takes as long as some steps of training.

    Args:
        every: Epochs between two records. Defaults to `1`.
        singular_values: The number of largest singular values, of the first matrix of a variable. Defaults to `4`.
        roles: The table of roles, corrected. Defaults to `None`, for that of the model.

    Attributes:
        epochs: A list of the numbers of the epochs.
        norms: A dictionary from paths of variables to dictionaries of the five norms, each a list.
        singular_values_of: A dictionary from paths to lists of singular values.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Optimal Scaling Needs Optimal Norm, arXiv:2510.03871, whose code, rakkit/disco, has the same values.

    Example:

    >>> dense = keras.layers.Dense(2, kernel_initializer="identity", name="out")
    >>> model = keras.Sequential([keras.Input((2,)), dense], name="net")
    >>> model.compile("sgd", loss=lambda y, y_pred: 0.0 * y_pred)
    >>> recorder = OperatorNormRecorder()
    >>> history = model.fit(np.ones((2, 2)), np.ones((2, 2)), verbose=0, callbacks=[recorder])
    >>> recorder.norms["net/out/kernel"]["rms_to_rms"], recorder.singular_values_of["net/out/kernel"]
    ([1.0], [[1.0, 1.0]])
    """

    def __init__(self, every: int = 1, singular_values: int = 4, roles: Roles | None = None) -> None:
        super().__init__()
        self.every = validation.positive_int("every", every)
        self.singular_values = validation.non_negative_int("singular_values", singular_values)
        self.roles = roles
        self.epochs: list[int] = []
        self.norms: dict[str, dict[str, list[float]]] = {}
        self.singular_values_of: dict[str, list[list[float]]] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every:
            return
        self.epochs.append(epoch)
        variables = self.model.trainable_variables
        table = self.roles or roles(self.model)
        for variable, role in zip(variables, table.of(variables), strict=True):
            if role.inputs and role.outputs:
                self._record(path_of(variable), matrices(ops.convert_to_numpy(ops.cast(variable, "float32")), role))

    def _record(self, path: str, stack: np.ndarray) -> None:
        each = [operator_norms(matrix) for matrix in stack]
        values = self.norms.setdefault(path, {name: [] for name in NORMS})
        for name in NORMS:
            values[name].append(max(norms[name] for norms in each))
        singular = np.linalg.svd(stack[0], compute_uv=False)[: self.singular_values]
        self.singular_values_of.setdefault(path, []).append(singular.tolist())

    def state(self) -> dict[str, Any]:
        """The records so far, for `TrainingState`."""
        return {"epochs": self.epochs, "norms": self.norms, "singular_values_of": self.singular_values_of}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Take the records of a run that is resumed."""
        for name, value in state.items():
            setattr(self, name, value)


def matrices(w: np.ndarray, role: Role) -> np.ndarray:
    """A variable as an array (matrices, inputs, outputs) in float64."""
    w = np.transpose(w, (*role.stack, *role.inputs, *role.outputs))
    return w.reshape(-1, role.size(role.inputs), role.size(role.outputs)).astype("float64")


def operator_norms(w: np.ndarray) -> dict[str, float]:
    """The norms of a matrix (inputs, outputs)."""
    inputs, outputs = w.shape
    s = np.linalg.svd(w, compute_uv=False)
    return {
        "rms_to_rms": float(np.sqrt(inputs / outputs) * s[0]),
        "l1_to_rms": float(np.sqrt(np.sum(w**2, axis=1)).max() / np.sqrt(outputs)),
        "rms_to_inf": float(np.sqrt(np.sum(w**2, axis=0)).max() * np.sqrt(inputs)),
        "supremum": float(np.abs(w).max()),
        "condition_number": float(s[0] / s[-1]) if s[-1] > 0 else float("inf"),
    }
