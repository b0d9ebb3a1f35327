"""Functions that differ between the backends of Keras, from the module of the running one.

The three modules define the same functions; `tensorflow.py` documents them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_lrsched._core.backends.variables import raw_variable

if TYPE_CHECKING or keras.backend.backend() == "tensorflow":
    from keras_lrsched._core.backends.tensorflow import (
        after,
        all_gather,
        assert_in_graph,
        asserted_in_graph,
        assign_mean_of_replicas,
        assign_on_each_replica,
        barrier,
        bitcast,
        broadcast_from_first,
        call_when_differentiated,
        compile_function,
        cond,
        count_not_above,
        custom_gradient,
        dense,
        disable_all_reduce,
        forget_compiled,
        hessian_product,
        host_value,
        is_batch_sharded,
        is_first_worker,
        is_sparse,
        multiply_by_replicas,
        no_gradient,
        processes,
        replicas,
        replicas_of,
        require_replicas,
        run_on_replicas,
        strategy_scope,
        sum_over_replicas,
        used_rows,
        value_and_gradient,
    )
elif keras.backend.backend() == "jax":
    from keras_lrsched._core.backends.jax import (
        after,
        all_gather,
        assert_in_graph,
        asserted_in_graph,
        assign_mean_of_replicas,
        assign_on_each_replica,
        barrier,
        bitcast,
        broadcast_from_first,
        call_when_differentiated,
        compile_function,
        cond,
        count_not_above,
        custom_gradient,
        dense,
        disable_all_reduce,
        forget_compiled,
        hessian_product,
        host_value,
        is_batch_sharded,
        is_first_worker,
        is_sparse,
        multiply_by_replicas,
        no_gradient,
        processes,
        replicas,
        replicas_of,
        require_replicas,
        run_on_replicas,
        strategy_scope,
        sum_over_replicas,
        used_rows,
        value_and_gradient,
    )
else:
    from keras_lrsched._core.backends.torch import (
        after,
        all_gather,
        assert_in_graph,
        asserted_in_graph,
        assign_mean_of_replicas,
        assign_on_each_replica,
        barrier,
        bitcast,
        broadcast_from_first,
        call_when_differentiated,
        compile_function,
        cond,
        count_not_above,
        custom_gradient,
        dense,
        disable_all_reduce,
        forget_compiled,
        hessian_product,
        host_value,
        is_batch_sharded,
        is_first_worker,
        is_sparse,
        multiply_by_replicas,
        no_gradient,
        processes,
        replicas,
        replicas_of,
        require_replicas,
        run_on_replicas,
        strategy_scope,
        sum_over_replicas,
        used_rows,
        value_and_gradient,
    )


def gradient(function: Callable, values: list) -> list:
    """Return the gradient of the scalar `function(values)`: a tensor for each of the values."""
    return value_and_gradient(lambda at: (function(at),), values)[1]


def view(x: Any, dtype: str) -> Any:
    """Return `x` with its bits read as another dtype of the same size, whatever its shape.

    That is `ops.view` since Keras 3.12, which needs a last axis of known size, and before 3.15 an axis at all.
    """
    if not hasattr(ops, "view"):
        return bitcast(x, dtype)
    if not len(x.shape) or x.shape[-1] is None:
        return ops.squeeze(ops.view(ops.expand_dims(x, -1), dtype), -1)
    return ops.view(x, dtype)
