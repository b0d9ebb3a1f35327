"""TensorFlow: `tf.distribute`, sparse gradients, control dependencies, gradient tapes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_lrsched._core import keras_private
from keras_lrsched._core.backends.variables import raw_variable

# Replicas and processes


def replicas() -> int:
    """Return the number of replicas that run the current step, 1 outside of a strategy of `tf.distribute`."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replicas_of(model: keras.Model) -> int:
    """Return the number of replicas that train a model."""
    return model.distribute_strategy.num_replicas_in_sync


def processes() -> int:
    """Return the number of processes that need what the first one has read: 1, since all workers read the same sums."""
    return 1


def is_batch_sharded() -> bool:
    """Return `True` if the code that runs now has a part of the batch, of which other replicas have the rest."""
    return replicas() > 1


def is_first_worker(model: keras.Model) -> bool:
    """Return `True` in the process that writes files."""
    return model.distribute_strategy.extended.should_checkpoint


def all_gather(model: keras.Model, number: int) -> list[int]:
    """Return the integers that the processes which train a model together have passed."""
    strategy = model.distribute_strategy
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return [number]
    gathered = tf.function(lambda: strategy.gather(strategy.run(lambda: tf.constant([number])), axis=0), autograph=False)
    return gathered().numpy().tolist()


def broadcast_from_first(values: dict[str, float]) -> dict[str, float]:
    """Return numbers as the first process has them, bit for bit, so that all that train together decide alike."""
    return values


def require_replicas(name: str) -> None:
    """Raise a `ValueError` where workers are no replicas of `tf.distribute`; on TensorFlow they are."""


def strategy_scope(optimizer: keras.optimizers.Optimizer) -> contextlib.AbstractContextManager:
    """A context in which each replica of the optimizer gets its part of a new variable."""
    return keras_private.distribution_strategy(optimizer).scope()


def sum_over_replicas(optimizer: keras.optimizers.Optimizer, grads: Sequence) -> Sequence:
    """Return the sums of gradients over all replicas, in a list."""
    return grads if replicas() == 1 else keras_private.all_reduced(optimizer, grads)


def disable_all_reduce(optimizer: keras.optimizers.Optimizer) -> None:
    """Let each replica update its part of the variables with its own gradients from now on."""
    keras_private.disable_all_reduce(optimizer)


def multiply_by_replicas(grads: Sequence) -> Sequence:
    """Return the gradients of a loss that was divided by the number of replicas as if there was one replica."""
    factor = replicas()
    return grads if factor == 1 else [None if each is None else tf.math.scalar_mul(factor, each) for each in grads]


def assign_on_each_replica(variable: Any, value: Any) -> None:
    """Assign a value that each replica has computed alike, which replicas may do only together."""

    def assign(strategy: Any, value: Any) -> None:
        strategy.extended.update(raw_variable(variable), lambda part, x: part.assign(x), args=(value,), group=False)

    keras_private.merge_call(assign, tf.distribute.get_strategy(), value)


def run_on_replicas(optimizer: keras.optimizers.Optimizer, function: Callable[[], Any]) -> None:
    """Run a function on all replicas of an optimizer, if there are several."""
    strategy = keras_private.distribution_strategy(optimizer)
    if strategy.num_replicas_in_sync > 1:
        tf.function(lambda: strategy.run(function), autograph=False)()


def assign_mean_of_replicas(condition: Any, values: Sequence, places: Sequence[tuple]) -> None:
    """Assign the means of `values` if the condition holds; replicas communicate only then.

    Args:
        condition: A tensor, the same on all replicas.
        values: Tensors, each replica its own.
        places: For each of them the variables to assign to, and a function to apply before, or `None`.
    """

    def average(strategy: Any, condition: Any, values: Any) -> None:
        replica = tf.distribute.get_replica_context()

        def assign_means() -> bool:
            if replica is None:
                targets = [raw_variable(variables[0]) for variables, _ in places]
                pairs = list(zip(values, targets, strict=True))
                means = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.MEAN, pairs)
            else:
                means = replica.all_reduce(tf.distribute.ReduceOp.MEAN, values)
            for mean, (variables, function) in zip(means, places, strict=True):
                for variable in variables:
                    strategy.extended.update(raw_variable(variable), assign, args=(mean, function), group=False)
            return True

        tf.cond(strategy.experimental_local_results(condition)[0], assign_means, lambda: False)

    def assign(part: Any, mean: Any, function: Callable) -> None:
        part.assign(tf.cast(mean if function is None else function(mean), part.dtype))

    keras_private.merge_call(average, tf.distribute.get_strategy(), condition, values)


# Sparse gradients


def is_sparse(gradient: Any) -> bool:
    """Return `True` for a gradient of some rows of a variable, which `used_rows` reads."""
    return isinstance(gradient, tf.IndexedSlices)


def dense(gradient: Any, variable: Any) -> Any:
    """Return a gradient as a dense tensor, with the static shape of the variable, which that of a slice may lack."""
    dense = tf.convert_to_tensor(gradient)
    known = dense.shape.is_fully_defined() or isinstance(variable, Rows)
    return dense if known else tf.ensure_shape(dense, variable.shape)


def used_rows(gradient: Any, variable: Any) -> tuple[Any, Any]:
    """Return a sparse gradient as a dense one of the rows that it has, and these rows of the variable."""
    indices, positions = tf.unique(gradient.indices)
    return tf.math.unsorted_segment_sum(gradient.values, positions, tf.size(indices)), Rows(variable, indices)


class Rows:
    """Some rows of a variable, with the interface of a variable."""

    def __init__(self, whole: Any, indices: tf.Tensor) -> None:
        self.whole, self.indices = whole, indices
        self.dtype, self.name = whole.dtype, getattr(whole, "path", whole.name)

    def of(self, variables: dict) -> dict:
        """Return the same rows of other variables, by name."""
        return {name: Rows(variable, self.indices) for name, variable in variables.items()}

    def assign(self, value: Any) -> None:
        raw_variable(self.whole).scatter_update(tf.IndexedSlices(value, self.indices))

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        return tf.gather(raw_variable(self.whole), self.indices)


# Control flow


cond = keras.ops.cond
"""One of two functions, of which only one runs."""


def after(tensors: Any) -> contextlib.AbstractContextManager:
    """A context whose operations wait for all of `tensors`, which may be nested and hold `None`.

    Without XLA, TensorFlow finds the end of data of unknown length by running the compiled step once more: fetching the
    batch fails, and by then all that does not depend on it has run, such as a counter of updates. In a context that
    waits for the gradients or for the batch, nothing does. JAX and PyTorch fetch a batch before its step.
    """
    if tf.executing_eagerly():
        return contextlib.nullcontext()
    values = [each.value if isinstance(each, keras.Variable) else each for each in tf.nest.flatten(tensors)]
    present = [each for each in values if tf.is_tensor(each)]
    return tf.control_dependencies([tf.group(*present)])  # one operation, for there may be many of both kinds


def assert_in_graph(condition: Any, message: str) -> None:
    """Raise an error with a message when a step runs in which the condition does not hold; nothing on JAX and PyTorch."""
    tf.debugging.Assert(condition, [message])


def asserted_in_graph(condition: Any, message: str) -> contextlib.AbstractContextManager:
    """A context whose operations run only if the condition holds, or where XLA compiles, which cannot raise.

    It changes nothing on JAX and PyTorch.
    """
    return tf.control_dependencies([tf.debugging.Assert(condition, [message])])


# Derivatives and compilation


def value_and_gradient(function: Callable, values: Sequence, missing: str = "zero") -> tuple[Any, list]:
    """Return `function(values)`, which is a scalar and more, and the gradient of the scalar: a tensor for each value.

    With `missing="none"` it is `None` where the scalar does not depend on a value; JAX has zeros there also in Keras.
    """
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    gradients = tape.gradient(result[0], values, unconnected_gradients=missing)
    return result, [None if g is None else tf.convert_to_tensor(g) for g in gradients]


def hessian_product(function: Callable, values: Sequence, vectors: Sequence) -> list:
    """Return the Hessian of the scalar `function(values)` times `vectors`, which have the shapes of the values."""
    with tf.GradientTape() as tape:
        tape.watch(values)
        _, first = value_and_gradient(lambda at: (function(at),), values)
    second = tape.gradient(first, values, output_gradients=vectors, unconnected_gradients="zero")
    return [tf.convert_to_tensor(g) for g in second]


def no_gradient() -> contextlib.AbstractContextManager:
    """A context in which variables are assigned and PyTorch records no gradients."""
    return contextlib.nullcontext()


def outside_of_traces() -> contextlib.AbstractContextManager:
    """A context outside of all functions that are being traced, in which variables that exist have values."""
    return tf.init_scope()


def compile_function(function: Callable, jit_compile: bool) -> Callable:
    """Return a function of tensors, compiled by `tf.function` or `jax.jit`; as it is on PyTorch."""
    return tf.function(function, jit_compile=jit_compile)


def forget_compiled(variables: Sequence, message: str) -> None:
    """Let all compiled functions that have read one of some variables be traced again when they are called.

    On TensorFlow these are all `tf.function`s that read one of the variables; on JAX, all that `jax.jit` has compiled in
    the process; on PyTorch, the same of `torch.compile`. A concrete function of TensorFlow, which cannot be traced again,
    raises an error with this message.
    """
    keras_private.forget_tensorflow_traces(variables, message)


def call_when_differentiated(x: Any, function: Callable[[Any], None]) -> Any:
    """Return `x`, and call a function with it: at once; on JAX in the backward pass.

    Within `jax.grad`, where a loss is scaled, its value cannot be stored for later; in the backward pass it is a value of
    the function outside.
    """
    function(x)
    return x


# Residuals of a backward pass


def custom_gradient(function: Callable) -> Callable:
    """Return `keras.ops.custom_gradient(function)`, which stores no arguments for the backward pass, on PyTorch neither."""
    return keras.ops.custom_gradient(function)


def barrier(x: Any, after: Any) -> Any:
    """Return `x`, read again in a backward pass when `after` is computed.

    Compilers would find that both passes decode the same codes, decode once, and store the result.
    """
    if keras_private.is_compiled_by_xla():
        return keras_private.xla_optimization_barrier([x, after])[0]
    with tf.control_dependencies([after]):
        return tf.identity(x)


# Values


def bitcast(x: Any, dtype: str) -> Any:
    """Return a tensor of any shape with its bits read as another dtype of the same size."""
    return tf.bitcast(x, dtype)


def count_not_above(ordered: Any, x: Any) -> Any:
    """Return for each element of `x` how many of the ordered values are not above it: `keras.ops.searchsorted` to the right.

    That of Keras 3.10 takes no symbolic tensors of TensorFlow.
    """
    return tf.searchsorted(ordered, x, side="right")


def host_value(variable: Any) -> Any:
    """Return a variable or tensor as a NumPy array; that of TensorFlow in a fifth of the time of `convert_to_numpy`."""
    if isinstance(variable, keras.Variable):
        return variable.value.value().numpy()
    return keras.ops.convert_to_numpy(variable)
