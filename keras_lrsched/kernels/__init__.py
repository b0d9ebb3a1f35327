"""Compiled code: it is found or built, loaded and called here, or there is a reason why not.

`KERAS_LRSCHED_FUSED` is `auto` (the default: compiled code where it can be had, else plain Keras operations, with a warning
if the compiler is what is missing), `1` (an error where it cannot be had) or `0` (never).
"""

from collections.abc import Mapping, Sequence

import keras
from keras import ops

from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.kernels import _loading
from keras_lrsched.kernels._build import BuildError, mode
from keras_lrsched.kernels._lists import state_codes, update_parameters, updates_of_codes
from keras_lrsched.kernels._loading import binding, cannot_call
from keras_lrsched.kernels._status import build_all, status

__all__ = ["DTYPES", "BuildError", "build_all", "mode", "reason_against", "status", "takes_codes", "update"]

DTYPES = ("float32", "bfloat16")
"""Those of variables and gradients that `update` takes."""


def reason_against(variables: Sequence[Variable]) -> str | None:
    """Reason why `update` cannot be called on these variables, where it would be called; `None` if it can."""
    if mode() == "0":
        return "KERAS_LRSCHED_FUSED is 0."
    dtypes = set(map(keras.backend.standardize_dtype, {variable.dtype for variable in variables})) - set(DTYPES)
    if dtypes:
        return f"There is no kernel for variables in {', '.join(sorted(dtypes))}."
    return cannot_call("update", "update", variables)


def takes_codes(method: str, kind: str, block_size: int) -> bool:
    """Whether `update` can have the state of a method in 8 bits, in blocks of that many neighbors, where it has float32."""
    if kind not in state_codes() or method not in updates_of_codes() or _loading.has_gpu():
        return False
    return 128 <= block_size <= 4096 and block_size & (block_size - 1) == 0


def update(
    method: str,
    variables: Sequence[Variable],
    slots: Sequence[Sequence[Variable]],
    gradients: Sequence[Tensor],
    rates: Tensor,
    parameters: Mapping[str, Tensor],
    seed: Tensor,
    stochastic_rounding: bool = False,
    blocks: Sequence[int] = (),
) -> None:
    """Update all variables of an optimizer and their state.

    Args:
        method: The name of an update in ops/kernels/update_rules.h.
        variables: Keras variables in float32 or bfloat16.
        slots: For each variable a list of its state, in float32 and of its shape (but see `blocks`). For state in 8 bits,
            codes and what belongs to them, as `keras_lrsched.precision.QuantizedState` has them.
        gradients: A tensor for each variable, in float32 or bfloat16.
        rates: A float32 tensor of shape `(len(variables), 3)`: learning rate, weight decay, whether a trust ratio applies.
        parameters: A dictionary of numbers: `"gradient_scale"` and the parameters of the method, see `update_parameters`.
        seed: A uint32 tensor of shape `(2,)`.
        stochastic_rounding: Whether variables in bfloat16 are rounded up or down at random. Defaults to `False`.
        blocks: Of Adam-mini, two numbers for each variable: how many blocks it has, and how many neighbors in a row belong
            to one. Its second slot has one number a block. For state in 8 bits, two numbers: one of `state_codes()`, and
            how many neighbors share a scale. Defaults to `()`.

    Raises:
        ValueError: If a gradient is in another dtype, or the method has other parameters.
    """
    others = set(map(keras.backend.standardize_dtype, {gradient.dtype for gradient in gradients})) - set(DTYPES)
    if others:
        raise ValueError(f"Gradients must be in {' or '.join(DTYPES)}. Received: {', '.join(sorted(others))}")
    ordered = ops.stack([ops.cast(value, "float32") for value in parameters_in_order(method, parameters)])
    binding("update").update(method, variables, slots, gradients, rates, ordered, seed, stochastic_rounding, blocks)


def parameters_in_order(method: str, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """The values of named parameters in the order of the kernel."""
    known = update_parameters()
    if method not in known:
        raise ValueError(f"There is no compiled update {method!r}. Available: {', '.join(known)}")
    if set(parameters) != set(known[method]):
        names = ", ".join(known[method])
        raise ValueError(f"The parameters of the compiled update {method!r} are {names}. Received: {', '.join(parameters)}")
    return [parameters[name] for name in known[method]]
