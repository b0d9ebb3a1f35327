"""JAX: `keras.distribution`, automatic differentiation by transformations. `tensorflow.py` documents these functions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import keras
import numpy as np
from jax.core import Tracer

# Replicas and processes


def replicas() -> int:
    return 1


def replicas_of(model: keras.Model) -> int:
    return 1


def processes() -> int:
    return jax.process_count()


def is_batch_sharded() -> bool:
    return False  # a compiled function has all of it


def is_first_worker(model: keras.Model) -> bool:
    return not _is_distributed() or jax.process_index() == 0


def all_gather(model: keras.Model, number: int) -> list[int]:
    if not _is_distributed():
        return [number]
    from jax.experimental import multihost_utils  # slow to import

    return multihost_utils.process_allgather(np.array([number])).ravel().tolist()


def broadcast_from_first(values: dict[str, float]) -> dict[str, float]:
    if not _is_distributed():
        return values
    from jax.experimental import multihost_utils

    bits = np.array([float(value) for value in values.values()]).view("uint32")
    received = np.asarray(multihost_utils.broadcast_one_to_all(bits)).view("float64")
    return dict(zip(values, received.tolist(), strict=True))


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


def _is_distributed() -> bool:
    return processes() > 1 and keras.distribution.distribution() is not None


# Sparse gradients


def is_sparse(gradient: Any) -> bool:
    return False


def dense(gradient: Any, variable: Any) -> Any:
    return gradient.todense() if hasattr(gradient, "todense") else gradient  # BCOO


def used_rows(gradient: Any, variable: Any) -> tuple[Any, Any]:
    raise NotImplementedError


# Control flow


def cond(condition: Any, if_true: Callable, if_false: Callable) -> Any:
    if isinstance(condition, Tracer):
        return keras.ops.cond(condition, if_true, if_false)
    return if_true() if condition else if_false()  # `ops.cond` would compile both in each step that is not compiled itself


def after(tensors: Any) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


def assert_in_graph(condition: Any, message: str) -> None:
    pass


def asserted_in_graph(condition: Any, message: str) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


# Derivatives and compilation


def value_and_gradient(function: Callable, values: Sequence, missing: str = "zero") -> tuple[Any, list]:
    def scalar_first(at: Any) -> tuple:
        result = function(at)
        return result[0], result

    (_, result), gradients = jax.value_and_grad(scalar_first, has_aux=True)(list(values))
    return result, gradients


def hessian_product(function: Callable, values: Sequence, vectors: Sequence) -> list:
    return jax.jvp(jax.grad(function), (list(values),), (list(vectors),))[1]


def no_gradient() -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


def outside_of_traces() -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


def compile_function(function: Callable, jit_compile: bool) -> Callable:
    return jax.jit(function)


def forget_compiled(variables: Sequence, message: str) -> None:
    jax.clear_caches()


def call_when_differentiated(x: Any, function: Callable[[Any], None]) -> Any:
    @jax.custom_vjp
    def identity(x: Any) -> Any:
        return x

    def forward(x: Any) -> tuple:
        return x, x

    def backward(x: Any, gradient: Any) -> tuple:
        function(x)
        return (gradient,)

    identity.defvjp(forward, backward)
    return identity(x)


# Residuals of a backward pass


def custom_gradient(function: Callable) -> Callable:
    return keras.ops.custom_gradient(function)


def barrier(x: Any, after: Any) -> Any:
    return jax.lax.optimization_barrier((x, after))[0]


# Values


def bitcast(x: Any, dtype: str) -> Any:
    return jax.lax.bitcast_convert_type(x, dtype)


def count_not_above(ordered: Any, x: Any) -> Any:
    return keras.ops.searchsorted(ordered, x, side="right")


def host_value(variable: Any) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(variable))
