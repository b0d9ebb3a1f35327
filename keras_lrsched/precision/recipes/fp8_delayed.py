"""FP8 with scales from the past: those of a step come from the largest magnitudes of the steps before it."""

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.training_loop import is_exporting
from keras_lrsched.precision import _float_numerics
from keras_lrsched.precision._exact import FLOAT32_MAX, is_finite, magnitude
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._operands import Operand, QuantizedOperand, numbers
from keras_lrsched.precision._quantized import QuantizedTensor
from keras_lrsched.precision.formats import Format, get_format
from keras_lrsched.precision.recipe import LayerContext, Recipe

LARGEST = {"float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
FORMATS = {"float8_e4m3fn": "FP8_E4M3", "float8_e5m2": "FP8_E5M2"}
TENSORS = {"inputs": "float8_e4m3fn", "kernel": "float8_e4m3fn", "gradient": "float8_e5m2"}


@register(
    "fp8_delayed",
    title="FP8 with scales from the steps before",
    paper="arXiv:2209.05433",
    code=("NVIDIA/TransformerEngine",),
    checked="read",
    against=(
        "`DelayedScaling` of Transformer Engine with the format HYBRID; the sequence of scales was worked out from its code"
    ),
    deviations="a step whose amax is 0 or not finite leaves history and scale as they are",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class FP8Delayed(Recipe):
    """FP8 with delayed scaling: inputs and kernel in E4M3, the gradient by the outputs in E5M2, one scale for each tensor.

        scale = largest element 2^-margin / max(amax of the last steps)

    The scale of step t knows the largest magnitudes (amax) up to step t - 1; Keras' float8 knows those up to t - 2. The
    first step has the scale 1. Numbers beyond the largest element become it; what is not finite becomes NaN, so that an
    optimizer that leaves out such batches finds out. A step whose amax is 0 or not finite changes nothing (Transformer
    Engine has it in the history, and keeps the scale until it has left). Both backward products use the numbers of the
    forward product and the gradient in E5M2. Casts are the backend's own, so that XLA may compute such products on FP8
    units.

    Only the backward pass sees the amax of the gradient. It becomes the "gradient" of a variable, `gradient_amax`, which
    Keras' optimizers and those of this package overwrite with it, also within `LossScaleOptimizer`, and with the largest one
    under gradient accumulation, where the histories of inputs and kernel count micro-batches. Where gradients are applied in
    another way, call `take_amaxes`. A layer that is called more than once in a step gets the sum of the amaxes of its
    gradients, which is never too small. A layer that is not trainable keeps the scale of its gradient.

    Args:
        amax_history_length: How many steps count. Defaults to `1024`.
        amax_algorithm: `"max"` over these, or the `"most_recent"` step. Defaults to `"max"`.
        margin: How many powers of two the scale stays below the largest that fits. Defaults to `0`.
        head: Whether heads compute in FP8, too. Defaults to `False`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Transformer Engine, `DelayedScaling` with the format HYBRID; its code was read, and the sequence of scales worked out
        from it. Micikevicius et al., FP8 Formats for Deep Learning, arXiv:2209.05433.

    Example:

    >>> FP8Delayed(amax_history_length=16).name
    'fp8_delayed'
    """

    amax_history_length: int = 1024
    amax_algorithm: str = "max"
    margin: int = 0
    head: bool = False

    def __post_init__(self) -> None:
        validation.positive_int("amax_history_length", self.amax_history_length)
        validation.one_of("amax_algorithm", self.amax_algorithm, ("max", "most_recent"))
        validation.non_negative_int("margin", self.margin)

    def rule(self, context: LayerContext) -> Rule | None:
        if context.role == "head" and not self.head:
            return None
        return DelayedScaling(int(self.amax_history_length), self.amax_algorithm, int(self.margin))

    @staticmethod
    def take_amaxes(gradients: Any, variables: Any) -> list[tuple[Any, Any]]:
        """For training loops with an optimizer that is not Keras': sets the variables that a gradient overwrites.

        Args:
            gradients: Of all trainable variables of a model.
            variables: These variables.

        Returns:
            A list of the other pairs of gradient and variable, for the optimizer.
        """
        rest = []
        for gradient, variable in zip(gradients, variables, strict=True):
            if not getattr(variable, "overwrite_with_gradient", False):
                rest.append((gradient, variable))
            elif gradient is not None:
                variable.assign(gradient)
        return rest


@dataclasses.dataclass(frozen=True)
class DelayedScaling(Rule):
    """The product of `FP8Delayed`, whose settings it has."""

    length: int
    algorithm: str
    margin: int

    def variables(self, layer: keras.layers.Layer) -> dict[str, dict[str, Any]]:
        fixed = {"dtype": "float32", "trainable": False, "autocast": False}
        scales = {f"{name}_scale": {"shape": (), "initializer": "ones", **fixed} for name in TENSORS}
        histories = {f"{name}_amax_history": {"shape": (self.length,), "initializer": "zeros", **fixed} for name in TENSORS}
        overwritten = {"trainable": True, "overwrite_with_gradient": True}
        amax = {"shape": (), "initializer": "zeros", **fixed, **overwritten}
        return {**scales, **histories, "gradient_amax": amax}

    def __call__(self, x: Any, w: Any, variables: Any, seed: Any, training: bool) -> Any:
        # Copies: assigning to a variable may change what was read from it before.
        scales = {name: ops.copy(ops.convert_to_tensor(variables[f"{name}_scale"])) for name in TENSORS}
        amax = ops.copy(ops.convert_to_tensor(variables["gradient_amax"]))
        if training:
            self._update("inputs", _amax(x), variables)
            self._update("kernel", _amax(w), variables)
            # Of the step before: the backward pass of this one is still to come.
            scales["gradient"] = self._update("gradient", ops.stop_gradient(amax), variables)
        inputs, kernel, gradient = (Scaled(TENSORS[name], scales[name]) for name in ("inputs", "kernel", "gradient"))
        y = LinearGemms(GemmSpec(inputs, kernel), GemmSpec(gradient), GemmSpec(right=gradient), residuals="quantized")(x, w)
        return y if is_exporting() else _with_amax(y, amax)

    def _update(self, name: str, amax: Any, variables: Any) -> Any:
        """The scale of a tensor after a step with this `amax`."""
        scale, history = variables[f"{name}_scale"], variables[f"{name}_amax_history"]
        new_scale, new_history = self.updated(
            ops.convert_to_tensor(scale), ops.convert_to_tensor(history), amax, LARGEST[TENSORS[name]]
        )
        scale.assign(new_scale)
        history.assign(new_history)
        return new_scale

    def updated(self, scale: Any, history: Any, amax: Any, largest: Any) -> Any:
        """-> scale and history after a step, from those before it."""
        rolled = ops.concatenate([history[1:], ops.reshape(amax, (1,))])
        past = ops.max(rolled) if self.algorithm == "max" else amax
        seen = ops.logical_and(magnitude(amax) > 0, is_finite(magnitude(amax)))
        fitted = largest * 2.0**-self.margin / ops.where(seen, past, 1.0)
        new_scale = ops.where(seen, ops.minimum(fitted, FLOAT32_MAX), scale)
        return new_scale, ops.where(seen, rolled, history)


@dataclasses.dataclass(frozen=True)
class Scaled(Operand):
    """An operand in an FP8 dtype of the backend, with a given scale."""

    dtype: str
    scale: Any

    @property
    def code_format(self) -> Format:
        return get_format(FORMATS[self.dtype])

    def encode(self, x: Any, axis: int, seed: Any) -> QuantizedTensor:
        largest = LARGEST[self.dtype]
        x = ops.stop_gradient(x)
        inside = ops.where(is_finite(magnitude(x)), ops.clip(x * self.scale, -largest, largest), float("nan"))
        codes = ops.cast(inside, self.dtype)
        return QuantizedTensor(codes, 1 / self.scale, self.code_format, tuple(ops.shape(x)))

    def quantize(self, x: Any, axis: int, seed: Any) -> QuantizedOperand:
        if not is_exporting():
            return QuantizedOperand(numbers(self.encode(x, axis, seed)))
        values = _float_numerics.encode(self.code_format.element, x * self.scale)
        return QuantizedOperand(ops.where(ops.absolute(x) <= FLOAT32_MAX, values, float("nan")) * (1 / self.scale))


@ops.custom_gradient
def _with_amax(y: Any, amax: Any) -> Any:
    """`y`; the gradient of `amax` is the largest magnitude of that by `y`."""

    def grad(*args: Any, upstream: Any = None) -> Any:
        dy = args[0] if upstream is None else upstream
        return dy, _amax(dy)

    return y, grad


def _amax(x: Any) -> Any:
    return ops.max(ops.absolute(ops.stop_gradient(x)))
