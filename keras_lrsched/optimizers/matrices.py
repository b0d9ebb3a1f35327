"""Which variables are matrices to a low-rank method, and how."""

import math
import re
from dataclasses import dataclass

from keras import ops

from keras_lrsched.optimizers import paths


@dataclass(frozen=True)
class Matrix:
    """A variable as a matrix that is not higher than wide."""

    shape: tuple[int, ...]
    inputs: int
    outputs: int

    @property
    def is_transposed(self):
        return self.inputs > self.outputs

    @property
    def rows(self):
        return min(self.inputs, self.outputs)

    @property
    def columns(self):
        return max(self.inputs, self.outputs)

    def wide(self, x):
        x = ops.reshape(x, (self.inputs, self.outputs))
        return ops.transpose(x) if self.is_transposed else x

    def back(self, x):
        return ops.reshape(ops.transpose(x) if self.is_transposed else x, self.shape)


def matrix_of(variable, input_axes):
    """What a variable is that is not excluded by a rule; `None` if Adam updates it as it is."""
    path, shape = paths.path(variable), tuple(variable.shape)
    if input_axes is None:
        input_axes = _default_input_axes(path, shape)
        if input_axes is None:
            return None
    if input_axes >= len(shape):
        raise ValueError(f"`input_axes` must leave an axis for outputs. Received: {input_axes} for {path} of shape {shape}")
    return Matrix(shape, math.prod(shape[:input_axes]), math.prod(shape[input_axes:]))


def _default_input_axes(path, shape):
    """1 for what has two axes, unless it is a bias; 1 or 2 for the kernels of `MultiHeadAttention`; else `None`."""
    if len(shape) == 2:
        return None if re.search(r"(^|/)bias$", path) else 1
    if len(shape) == 3 and re.search(r"(^|/)(query|key|value)/kernel$", path):
        return 1
    if len(shape) == 3 and re.search(r"(^|/)attention_output/kernel$", path):
        return 2
    return None
