"""Estimates of the diagonal of the Hessian in the training step of a model: what Sophia and OASIS share."""

from collections.abc import Sequence
from typing import Any, TypeVar

import keras
from keras import ops

from keras_lrsched._core import keras_private
from keras_lrsched._core.backends import hessian_product
from keras_lrsched._core.types import Tensor
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._multi_pass_model import MultiPassModel, State, loss_scale

Kind = TypeVar("Kind", bound=keras.optimizers.Optimizer)


def hutchinson(
    model: MultiPassModel, values: Sequence[Tensor], state: State, batch: Any, sampling: Any
) -> tuple[list[Tensor], Tensor]:
    """z (H z) of each weight with random signs z from a `SeedGenerator`, and its seed afterwards."""
    with keras.StatelessScope(state) as scope:
        scale = ops.convert_to_tensor(loss_scale(model.optimizer))
        uniform = [keras.random.uniform(value.shape, seed=sampling, dtype="float32") for value in values]
        seed = scope.get_current_value(sampling.state)
    z = [ops.cast(ops.where(u < 0.5, -1.0, 1.0), value.dtype) for u, value in zip(uniform, values, strict=True)]
    products = hessian_product(lambda at: scale * model.outputs_and_loss(at, state, batch)[1], values, z)
    return [wide(a) * wide(b) / ops.cast(scale, wide(b).dtype) for a, b in zip(z, products, strict=True)], seed


def of_all(model: keras.Model, optimizer: Any, tensors: Sequence[Tensor], gradients: Sequence[Any]) -> list[Tensor | None]:
    """The tensors in the order of the optimizer, with `None` for what is frozen or has no gradient."""
    every: list[Tensor | None] = [None] * len(optimizer._states)
    for variable, tensor, gradient in zip(model.trainable_variables, tensors, gradients, strict=True):
        if gradient is not None:
            every[keras_private.variable_index(optimizer, variable)] = tensor
    return every


def optimizer_of(model: keras.Model, kind: type[Kind]) -> Kind:
    """The optimizer of a class, alone or inside wrappers."""
    optimizer = model.optimizer
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    if not isinstance(optimizer, kind):
        raise ValueError(
            f"{type(model).__name__} needs the optimizer {kind.__name__} of keras_lrsched. Received: optimizer={optimizer!r}"
        )
    return optimizer
