"""Gradients that are infinite or NaN."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_lrsched._core import backends, keras_private, path_rules
from keras_lrsched._core.types import Tensor, Variable


def skip_unless_finite(optimizer: Any, grads: Sequence[Tensor], variables: Sequence[Variable]) -> Tensor:
    """Return whether an update is to be done, as a tensor, and count it if not.

    Raises:
        FloatingPointError: See `all_finite`.
    """
    finite = all_finite(grads, variables, raises=optimizer.nonfinite == "raise")
    counter = keras_private.iterations(optimizer)
    skipped = ops.cast(ops.logical_not(finite), counter.dtype)
    optimizer.skipped_updates.assign_add(skipped)
    # Keras will count this update although it is left out.
    counter.assign_sub(skipped * (optimizer.gradient_accumulation_steps or 1))
    return finite


def all_finite(grads: Sequence[Tensor], variables: Sequence[Variable], raises: bool) -> Tensor:
    """Return whether all gradients are finite, as a tensor.

    Raises:
        FloatingPointError: If one is not and it should raise, in eager code. In a graph of TensorFlow it will be
            `InvalidArgumentError`; a function that is compiled by XLA cannot raise.
    """
    each = ops.stack([ops.all(ops.isfinite(gradient)) for gradient in grads])
    finite = ops.all(each)
    if raises:
        _raise_unless(finite, each, [path_rules.path(variable) for variable in variables])
    return finite


def _raise_unless(finite: Any, each: Tensor, names: Sequence[str]) -> None:
    try:
        bad = [name for name, good in zip(names, ops.convert_to_numpy(each), strict=True) if not good]
    except (TypeError, NotImplementedError):  # the update is being traced
        backends.assert_in_graph(finite, f"A gradient of {', '.join(names)} is not finite.")
        return
    if bad:
        raise FloatingPointError(f"The gradient of {', '.join(bad)} is not finite.")
