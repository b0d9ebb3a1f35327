"""TensorFlow, JAX and PyTorch."""

import gc
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras


def is_differentiated(tensors: Sequence) -> bool:
    """Return `True` if a gradient with respect to one of some tensors may be taken of what is computed with them now.

    Always `False` on PyTorch, which records gradients by default, so that recording shows nothing. Relies on
    `record.should_record_backprop` of TensorFlow (2.18 to 2.21), and on the module `interpreters.ad` of JAX' tracers of
    gradients (JAX 0.10).
    """
    tensors = [each.value if isinstance(each, keras.Variable) else each for each in tensors]
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf
            from tensorflow.python.eager import record

            return bool(record.should_record_backprop(list(map(tf.convert_to_tensor, tensors))))
        case "jax":
            return any(type(each).__module__.endswith("interpreters.ad") for each in tensors)
    return False


def is_recomputed() -> bool:
    """Return `True` within a backward pass that runs a forward pass again, as `torch.utils.checkpoint` does on PyTorch.

    Relies on `torch._C._current_graph_task_id`. Seen in PyTorch 2.13.
    """
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch._C._current_graph_task_id() != -1


def parts_of_dataset(dataset: Any) -> tuple:
    """The data sets that a `tf.data.Dataset` draws from; its functions, each as Python function, graph and variables.

    Relies on `DatasetV2._inputs` and `_functions`, and on `StructuredFunctionWrapper._func` and `function`. Seen in
    TensorFlow 2.18 to 2.21.
    """
    wrappers = [(wrapper._func, wrapper.function.graph) for wrapper in dataset._functions()]
    return list(dataset._inputs()), [(function, graph, list(graph.variables)) for function, graph in wrappers]


def shuffles_anew(dataset: Any) -> bool:
    """Return `True` if a `tf.data.Dataset` is a `shuffle` whose order is another one in each pass.

    Relies on the class name `_ShuffleDataset` and its `_reshuffle_each_iteration`. Seen in TensorFlow 2.18 to 2.21.
    """
    return "Shuffle" in type(dataset).__name__ and bool(getattr(dataset, "_reshuffle_each_iteration", True))


def repeats_for_ever(dataset: Any) -> bool:
    """Return `True` if a `tf.data.Dataset` is a `repeat` without an end.

    Relies on the class name `_RepeatDataset` and its `_count`. Seen in TensorFlow 2.18 to 2.21.
    """
    return type(dataset).__name__ == "_RepeatDataset" and int(dataset._count) < 0


def forget_tensorflow_traces(variables: Iterable, message: str) -> None:
    """Let each `tf.function` that has read one of some variables trace anew, and each of its traces raise an error.

    The functions are those that Python's garbage collector has. Relies on the classes `polymorphic_function.Function`, with
    its `_function_cache`, and `ConcreteFunction`, with its `_call_impl` and `_call_flat`, which all calls go through. Seen
    in TensorFlow 2.18 to 2.21.
    """
    from tensorflow.python.eager.polymorphic_function import concrete_function, polymorphic_function

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ValueError(message)

    handles = _handles(variables)
    kinds = (polymorphic_function.Function, concrete_function.ConcreteFunction)
    found = [each for each in gc.get_objects() if type(each) in kinds]
    for each in found:
        if type(each) is kinds[0] and any(_reads(trace, handles) for trace in each._function_cache.values()):
            each._function_cache.clear()
    for each in found:
        if type(each) is kinds[1] and _reads(each, handles):
            each._call_impl = each._call_flat = refuse


def traced_datasets(variables: Iterable) -> list:
    """Functions of `tf.data` pipelines that read one of some variables.

    Relies on the class `StructuredFunctionWrapper` and its `function`. Seen in TensorFlow 2.18 to 2.21.
    """
    from tensorflow.python.data.ops.structured_function import StructuredFunctionWrapper

    handles = _handles(variables)
    found = [each for each in gc.get_objects() if type(each) is StructuredFunctionWrapper]
    return [each for each in found if _reads(each.function, handles)]


def _handles(variables: Iterable) -> set:
    """The ids of the tensors that functions capture of variables; several with `MirroredStrategy`."""
    values = [variable._value for variable in variables]
    return {id(part.handle) for value in values for part in getattr(value, "values", [value]) if hasattr(part, "handle")}


def _reads(trace: Any, handles: set[int]) -> bool:
    return any(id(tensor) in handles for tensor in trace.captured_inputs)


def merge_call(function: Callable, strategy: Any, *args: Any) -> Any:
    """Call a function of a strategy and values of all replicas, from within a replica or from outside of all.

    Relies on `tf.__internal__.distribute.interim.maybe_merge_call`. Seen in TensorFlow 2.18 to 2.21.
    """
    import tensorflow as tf

    return tf.__internal__.distribute.interim.maybe_merge_call(function, strategy, *args)


def is_compiled_by_xla() -> bool:
    """Return `True` within what TensorFlow traces for XLA.

    Relies on `GraphOrParentsInXlaContext` of `tensorflow.python.ops.control_flow_util`. Seen in TensorFlow 2.18 to 2.21.
    """
    import tensorflow as tf
    from tensorflow.python.framework import ops
    from tensorflow.python.ops import control_flow_util

    return not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(ops.get_default_graph())


def xla_optimization_barrier(tensors: Sequence) -> Any:
    """Return tensors, all of which XLA computes before it uses one of them.

    Relies on `gen_xla_ops.xla_optimization_barrier` of `tensorflow.compiler.tf2xla.ops`. Seen in TensorFlow 2.18 to 2.21.
    """
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    return gen_xla_ops.xla_optimization_barrier(tensors)


def forget_torch_compiled() -> None:
    """Let what `torch.compile` has compiled be compiled again; nothing has been where `torch._dynamo` is not imported."""
    if "torch._dynamo" in sys.modules:
        import torch

        torch.compiler.reset()
