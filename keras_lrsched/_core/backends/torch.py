"""PyTorch: `torch.distributed`, sparse tensors, autograd. `tensorflow.py` documents these functions."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import torch
import torch.distributed
from torch.nn.attention import SDPBackend, sdpa_kernel

from keras_lrsched._core import keras_private

# Replicas and processes


def replicas() -> int:
    return 1


def replicas_of(model: keras.Model) -> int:
    return 1


def processes() -> int:
    is_one_of_several = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if is_one_of_several else 1


def is_batch_sharded() -> bool:
    return processes() > 1


def is_first_worker(model: keras.Model) -> bool:
    return processes() == 1 or torch.distributed.get_rank() == 0


def all_gather(model: keras.Model, number: int) -> list[int]:
    if processes() == 1:
        return [number]
    numbers = [0] * processes()
    torch.distributed.all_gather_object(numbers, number)
    return numbers


def broadcast_from_first(values: dict[str, float]) -> dict[str, float]:
    return values


def require_replicas(name: str) -> None:
    number, distribution = processes(), keras.distribution.distribution()
    if number > 1 or distribution is not None:
        raise ValueError(
            f"{name} averages over the replicas of tf.distribute, on the TensorFlow backend. "
            f"Received: {number} processes, keras.distribution={distribution!r}"
        )


def strategy_scope(optimizer: keras.optimizers.Optimizer) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


def sum_over_replicas(optimizer: keras.optimizers.Optimizer, grads: Sequence) -> Sequence:
    return grads


def disable_all_reduce(optimizer: keras.optimizers.Optimizer) -> None:
    pass


def multiply_by_replicas(grads: Sequence) -> Sequence:
    return grads


def assign_on_each_replica(variable: Any, value: Any) -> None:
    variable.assign(value)


def run_on_replicas(optimizer: keras.optimizers.Optimizer, function: Callable[[], Any]) -> None:
    pass


def assign_mean_of_replicas(condition: Any, values: Sequence, places: Sequence[tuple]) -> None:
    pass


# Sparse gradients


def is_sparse(gradient: Any) -> bool:
    return False


def dense(gradient: Any, variable: Any) -> Any:
    return gradient.to_dense() if getattr(gradient, "is_sparse", False) else gradient


def used_rows(gradient: Any, variable: Any) -> tuple[Any, Any]:
    raise NotImplementedError


# Control flow


cond = keras.ops.cond


def after(tensors: Any) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


def assert_in_graph(condition: Any, message: str) -> None:
    pass


def asserted_in_graph(condition: Any, message: str) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


# Derivatives and compilation


def value_and_gradient(function: Callable, values: Sequence, missing: str = "zero") -> tuple[Any, list]:
    values = [value.detach().requires_grad_() for value in values]
    with torch.enable_grad():
        result = function(values)
    gradients = torch.autograd.grad(result[0], values, allow_unused=True, materialize_grads=missing == "zero")
    return keras.tree.map_structure(lambda x: x.detach() if torch.is_tensor(x) else x, result), list(gradients)


def hessian_product(function: Callable, values: Sequence, vectors: Sequence) -> list:
    values = [value.detach().requires_grad_() for value in values]
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        first = torch.autograd.grad(function(values), values, create_graph=True, materialize_grads=True)
    curved = [i for i, g in enumerate(first) if g.requires_grad]
    if not curved:
        return [torch.zeros_like(value) for value in values]
    ours, theirs = [first[i] for i in curved], [vectors[i] for i in curved]
    return list(torch.autograd.grad(ours, values, theirs, materialize_grads=True))


def no_gradient() -> contextlib.AbstractContextManager:
    return torch.no_grad()


def outside_of_traces() -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


def compile_function(function: Callable, jit_compile: bool) -> Callable:
    return function


def forget_compiled(variables: Sequence, message: str) -> None:
    keras_private.forget_torch_compiled()


def call_when_differentiated(x: Any, function: Callable[[Any], None]) -> Any:
    function(x)
    return x


# Residuals of a backward pass


def custom_gradient(function: Callable) -> Callable:
    return functools.partial(_Function.apply, function)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, function: Callable, *args: Any) -> Any:
        y, context.gradient = function(*args)
        return y

    @staticmethod
    def backward(context: Any, dy: Any) -> tuple:
        return None, *context.gradient(dy)


def barrier(x: Any, after: Any) -> Any:
    return x


# Values


def bitcast(x: Any, dtype: str) -> Any:
    return x.view(getattr(torch, dtype))


def count_not_above(ordered: Any, x: Any) -> Any:
    return keras.ops.searchsorted(ordered, x, side="right")


def host_value(variable: Any) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(variable))
