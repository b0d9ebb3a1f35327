"""Muon: momentum, orthogonalized."""

import math
import re

import keras
from keras import ops

from keras_lrsched.optimizers import paths
from keras_lrsched.optimizers.base import Optimizer
from keras_lrsched.optimizers.maths import average, bias_correction
from keras_lrsched.optimizers.newton_schulz import orthogonalized
from keras_lrsched.schedules import checks


@keras.saving.register_keras_serializable(package="keras_lrsched")
class Muon(Optimizer):
    """Momentum with all its singular values set to about 1, for matrices of hidden layers; AdamW for all else.

        m = momentum m + (1 - momentum) g
        u = momentum m + (1 - momentum) g         if nesterov, else m
        w = (1 - lr weight_decay) w - lr q orthogonalized(u)
        q = sqrt(max(1, outputs / inputs)), or 0.2 sqrt(max(outputs, inputs)) to match the length of AdamW's steps

    AdamW, with `adam_lr_ratio` lr, updates variables with less than two axes, those called `embeddings` or `bias`, and those
    that `exclude_from_muon` lists: the last layer should be among them, which no rule can tell from a hidden one. A kernel
    with more axes is a matrix (inputs, outputs): all axes but the last are inputs, as in convolutions, but only the first is
    in `query`, `key` and `value` of an attention layer, (features, heads, size); `input_axes` says so for others, and
    brings them under Muon whatever they are called.

    - The authors' code: `ns_dtype="bfloat16"`. For convolutions it takes q from the last two axes of (out, in, height,
      width), so 1; here it is that of the matrix.
    - `torch.optim.Muon`: `ns_dtype="bfloat16", learning_rate=1e-3, weight_decay=0.1`, and `adjust_lr` as its `adjust_lr_fn`.
    - Moonlight: `adjust_lr="match_rms_adamw"`. Its momentum is a sum, which orthogonalization makes the same.
    - `keras.optimizers.Muon`: `adjust_lr="match_rms_adamw"`, with its `rms_rate=0.2`; it takes variables of two axes only.

    optax mixes m and g in another way in the first updates, which is not offered. State: one float32 number for each
    parameter under Muon, two under AdamW.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `0.02`.
        momentum: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.95`.
        nesterov: Whether to look one gradient ahead. Defaults to `True`.
        ns_steps: The number of Newton-Schulz iterations. Defaults to `5`.
        ns_dtype: The precision of these. `"bfloat16"` is faster on GPUs and TPUs, and right to 2 or 3 digits. Defaults to
            `"float32"`.
        adjust_lr: The factor q: `"original"` or `"match_rms_adamw"`. Defaults to `"original"`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        exclude_from_muon: Regular expressions; AdamW updates a variable if one is found in its path. Defaults to `None`, for
            none.
        input_axes: A dictionary from regular expressions to how many of the first axes of a kernel are inputs. Defaults to
            `None`, as above.
        adam_lr_ratio: The learning rate of AdamW, divided by that of Muon. Defaults to `0.015`, so 3e-4 beside 0.02.
        adam_beta_1: As in AdamW. Defaults to `0.9`.
        adam_beta_2: As in AdamW. Defaults to `0.95`.
        adam_epsilon: As in AdamW. Defaults to `1e-10`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if a variable has no more axes than
            `input_axes` says.

    Reference:
        Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024,
        https://kellerjordan.github.io/posts/muon. Trajectories agree with the authors' code, KellerJordan/Muon, exactly if
        its bfloat16 is removed, and with PyTorch and Keras. Moonlight was read, not run.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((3, 3)))
    >>> Muon(learning_rate=1.0).apply([keras.ops.diag([4.0, 0.1, 2.0])], [w])
    >>> (-w.numpy().diagonal()).round(1)
    array([0.7, 0.8, 1.1], dtype=float32)
    """

    def __init__(
        self,
        learning_rate=0.02,
        momentum=0.95,
        nesterov=True,
        ns_steps=5,
        ns_dtype="float32",
        adjust_lr="original",
        weight_decay=None,
        exclude_from_muon=None,
        input_axes=None,
        adam_lr_ratio=0.015,
        adam_beta_1=0.9,
        adam_beta_2=0.95,
        adam_epsilon=1e-10,
        **options,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.momentum = checks.beta("momentum", momentum)
        self.nesterov = nesterov
        self.ns_steps = checks.positive_int("ns_steps", ns_steps)
        self.ns_dtype = checks.one_of("ns_dtype", ns_dtype, ("float32", "bfloat16"))
        self.adjust_lr = checks.one_of("adjust_lr", adjust_lr, ("original", "match_rms_adamw"))
        self.exclude_from_muon = paths.patterns("exclude_from_muon", exclude_from_muon)
        self.input_axes = paths.numbers("input_axes", input_axes, checks.positive_int)
        self.adam_lr_ratio = checks.positive_float("adam_lr_ratio", adam_lr_ratio)
        self.adam_beta_1 = checks.beta("adam_beta_1", adam_beta_1)
        self.adam_beta_2 = checks.beta("adam_beta_2", adam_beta_2)
        self.adam_epsilon = checks.non_negative_float("adam_epsilon", adam_epsilon)

    def resolve_paths(self, variables):
        super().resolve_paths(variables)
        taken = paths.included("exclude_from_muon", self.exclude_from_muon, variables)
        rules = paths.first_match("input_axes", self.input_axes, variables)
        axes = [self.input_axes.get(rule) for rule in rules]
        self._matrix_shapes = [
            _matrix_shape(variable, n) if is_taken else None
            for variable, n, is_taken in zip(variables, axes, taken, strict=True)
        ]

    def matrix_shape(self, variable):
        """How many inputs and outputs a variable has; `None` if AdamW updates it."""
        return self._matrix_shapes[self._get_variable_index(variable)]

    def make_slots(self, variable):
        names = ("m", "v") if self.matrix_shape(variable) is None else ("momentum",)
        return {name: self.add_slot(variable, name) for name in names}

    def step(self, w, g, slots, now):
        shape = self._matrix_shapes[now.index]
        if shape is None:
            rate, direction = self.adam_lr_ratio * now.learning_rate, self._adam(g, slots, now.t)
        else:
            rate, direction = now.learning_rate, ops.reshape(self.matrix_step(g, slots, shape), w.shape)
        return w - rate * (direction + now.weight_decay * w)

    def matrix_step(self, g, slots, shape):
        """By what a matrix (inputs, outputs) moves at a learning rate of 1."""
        return self._scale(shape) * self._orthogonal(g, slots, shape)

    def _orthogonal(self, g, slots, shape):
        m = slots.momentum = average(self.momentum, slots.momentum, g)
        u = average(self.momentum, m, g) if self.nesterov else m
        return orthogonalized(ops.reshape(u, shape), self.ns_steps, self.ns_dtype)

    def _scale(self, shape):
        inputs, outputs = shape
        if self.adjust_lr == "original":
            return math.sqrt(max(1, outputs / inputs))
        return 0.2 * math.sqrt(max(inputs, outputs))

    def _adam(self, g, slots, t):
        slots.m = average(self.adam_beta_1, slots.m, g)
        slots.v = average(self.adam_beta_2, slots.v, ops.square(g))
        v = slots.v / bias_correction(self.adam_beta_2, t)
        return slots.m / bias_correction(self.adam_beta_1, t) / (ops.sqrt(v) + self.adam_epsilon)


def _matrix_shape(variable, input_axes):
    """(inputs, outputs) of a variable that is not excluded by a rule; `None` if it is no matrix."""
    path, shape = paths.path(variable), tuple(variable.shape)
    if input_axes is None:
        if len(shape) < 2 or re.search(r"(embeddings|bias)$", path):
            return None
        attention = len(shape) == 3 and re.search(r"(^|/)(query|key|value)/kernel$", path)
        input_axes = 1 if attention else len(shape) - 1
    if input_axes >= len(shape):
        raise ValueError(f"`input_axes` must leave an axis for outputs. Received: {input_axes} for {path} of shape {shape}")
    return math.prod(shape[:input_axes]), math.prod(shape[input_axes:])
