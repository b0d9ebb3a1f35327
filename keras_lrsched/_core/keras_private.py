"""Every private name of Keras and TensorFlow that the package relies on, one function each.

Each docstring names what is relied on. `tests/core/test_keras_private.py` has a test for each.
"""

import functools
import gc
import sys
import warnings
import weakref

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.models import functional
from keras.src.random import seed_generator
from keras.src.saving import serialization_lib
from keras.src.trainers.data_adapters import array_slicing, data_adapter_utils
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from keras.src.utils import rng_utils, tracking


def global_seed_generator():
    """The `SeedGenerator` behind `keras.random` calls without a seed, which is made if there is none.

    Relies on `keras.src.random.seed_generator.global_seed_generator`. Seen in Keras 3.10 to 3.15.
    """
    return seed_generator.global_seed_generator()


def existing_global_seed_generator():
    """The same; `None` if nothing has drawn from it yet.

    Relies on `keras.src.backend.common.global_state` and its attribute "global_seed_generator". Seen in Keras 3.10 to 3.15.
    """
    return global_state.get_global_attribute("global_seed_generator")


def forget_global_seed_generator():
    """Lets the next draw make a new generator. Relies on the same names as `existing_global_seed_generator`."""
    global_state.set_global_attribute("global_seed_generator", None)


def existing(module, *names):
    """The classes of these names in a public module of Keras, for `isinstance`, as far as the installed version has them.

    `ReversibleEmbedding` came with Keras 3.12, `ScheduleFreeAdamW` with 3.14, `MultiOptimizer` with 3.15.
    """
    return tuple(vars(module)[name] for name in names if name in vars(module))


def functional_model():
    """The class of functional models. Relies on `keras.src.models.functional.Functional`. Seen in Keras 3.10 to 3.15."""
    return functional.Functional


def trains_by_own_step(model):
    """Whether the class of a model overrides `train_step`.

    Relies on the trainer of each backend being a base class of `keras.Model` that defines `train_step`. Seen in Keras 3.10
    to 3.15.
    """
    return type(model).train_step is not keras.Model.train_step


def layers_of(model):
    """All layers of a model at any depth, itself first. Relies on `Layer._flatten_layers`. Seen in Keras 3.10 to 3.15."""
    return list(model._flatten_layers())


def is_compiled_part_built(model):
    """Whether losses and metrics given to `compile` have their variables.

    Relies on `_compile_loss` and `_compile_metrics` of the trainer. Seen in Keras 3.10 to 3.15.
    """
    parts = (model._compile_loss, model._compile_metrics)
    return all(part is None or part.built for part in parts)


def build_symbolically(model, batch):
    """Create all variables of a model, its metrics and its optimizer from the shapes of a batch.

    Relies on `Trainer._symbolic_build(data_batch=...)`, which looks at shapes and dtypes only. Seen in Keras 3.10 to 3.15.
    """
    model._symbolic_build(data_batch=batch)


def element_spec(iterator):
    """TensorFlow's specification of the batches of an `EpochIterator`.

    Relies on `TFEpochIterator._distributed_dataset`. Seen in Keras 3.10 to 3.15.
    """
    return iterator._distributed_dataset.element_spec


def compiled_loop(model):
    """The `tf.function` in a model's `train_function` that takes an iterator; `None` if there is none.

    Relies on `train_function` being a Python function that has it in its closure (Keras 3.11 to 3.15), or being it.
    """
    function = model.train_function
    candidates = [function, *(cell.cell_contents for cell in getattr(function, "__closure__", None) or ())]
    return next((it for it in candidates if hasattr(it, "get_concrete_function")), None)


def packed_arrays(x, y=None, sample_weight=None):
    """What `fit` makes of its arguments: x, (x,), (x, y) or (x, y, sample_weight), with one weight for each output.

    Relies on `ArrayDataAdapter` and its `_inputs`. Seen in Keras 3.10 to 3.15.

    Raises:
        ValueError: If they are no arrays, differ in length, or `sample_weight` does not fit to `y`.
    """
    return ArrayDataAdapter(x, y, sample_weight)._inputs


def sliceable(array):
    """An array of any kind that `fit` takes, of the dtype in which `fit` hands it over, for `rows_of`.

    Relies on `array_slicing`: `convert_to_sliceable` and its classes for sparse tensors. Seen in Keras 3.10 to 3.15.
    """
    array = array_slicing.convert_to_sliceable(array, target_backend=keras.backend.backend())
    if isinstance(array, array_slicing.TensorflowSparseWrapper):  # which has several arrays
        return array_slicing.TensorflowSparseSliceable(array.sparse)
    return array


def rows_of(array, rows):
    """The rows of what `sliceable` returned, of the kind in which the array adapter hands them over.

    Relies on `array_slicing.TensorflowSliceable` and the methods of `Sliceable`. Seen in Keras 3.10 to 3.15.
    """
    if isinstance(array, np.ndarray):
        return array[rows]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        array = array if isinstance(array, array_slicing.Sliceable) else array_slicing.TensorflowSliceable(array)
        return array[rows]
    return getattr(array, f"convert_to_{backend}_compatible")(array[rows])


def hand_over_unchanged(adapter):
    """Let a `PyDatasetAdapter` hand over batches as its dataset returns them: x by itself, and tuples as tuples.

    Class weights are added as before, and refused where they would have no effect or a wrong one.

    Relies on `PyDatasetAdapter._standardize_batch`, `get_torch_dataloader` and `class_weight`, and on PyTorch's
    `DataLoader.collate_fn`, whose default turns tuples into lists. Seen in Keras 3.10 to 3.15.
    """
    if "_standardize_batch" in vars(adapter):
        return
    with_class_weights, make_loader = adapter._standardize_batch, adapter.get_torch_dataloader

    def standardized(batch):
        if adapter.class_weight is None:
            return batch
        if not isinstance(batch, tuple) or len(batch) == 1 or keras.tree.is_nested(batch[1]):
            raise ValueError(
                f"`class_weight` needs data with targets of a single output. Received: class_weight={adapter.class_weight}"
            )
        return with_class_weights(batch)

    def loader():
        made = make_loader()
        made.collate_fn = lambda batch: batch
        return made

    adapter._standardize_batch, adapter.get_torch_dataloader = standardized, loader


def has_value(variable):
    """Whether a variable has its value, which Keras takes out before a step on JAX, and does not put back after an error.

    Relies on `Variable._value`, which `Trainer._purge_model_variables` sets to `None`. Seen in Keras 3.10 to 3.15.
    """
    return variable._value is not None


def watch_batches(iterator, function):
    """Call a function with each batch that an `EpochIterator` of JAX or PyTorch takes from its data, right before its step.

    Relies on `EpochIterator._get_iterator`, which is called at the beginning of each epoch. Seen in Keras 3.10 to 3.15.
    """
    original = iterator._get_iterator

    def get_iterator():
        for batch in original():
            function(batch)
            yield batch

    vars(get_iterator)["watcher"] = function
    iterator._get_iterator = get_iterator


def batch_watcher(iterator):
    """The function that `watch_batches` has been called with; `None` if it has not."""
    return getattr(getattr(iterator, "_get_iterator", None), "watcher", None)


def state_between_steps(model, kind):
    """Return the state after the last step of a running `fit` on JAX; `None` while the variables of the model hold it.

    Relies on `_jax_state_synced` and `_jax_state` of JAX' trainer. Seen in Keras 3.10 to 3.15.

    Args:
        model: A model.
        kind: `"trainable_variables"`, `"non_trainable_variables"`, `"optimizer_variables"` or `"metrics_variables"`: the
            values are in the order of these variables.
    """
    return None if getattr(model, "_jax_state_synced", True) else model._jax_state[kind]


def is_differentiated(tensors):
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


def is_recomputed():
    """Return `True` within a backward pass that runs a forward pass again, as `torch.utils.checkpoint` does on PyTorch.

    Relies on `torch._C._current_graph_task_id`. Seen in PyTorch 2.13.
    """
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch._C._current_graph_task_id() != -1


def is_calling():
    """Return `True` while a layer is called.

    Relies on the global attribute `current_call_ctx`. Seen in Keras 3.10 to 3.15.
    """
    from keras.src.backend.common import global_state

    return global_state.get_global_attribute("current_call_ctx") is not None


def value_of(variable):
    """The backend's variable or tensor in a `keras.Variable`. Relies on `Variable._value`. Seen in Keras 3.10 to 3.15."""
    return variable._value


def trained_by(optimizer):
    """The variables that an optimizer was built for.

    Relies on `Optimizer._trainable_variables`. Seen in Keras 3.10 to 3.15.
    """
    return list(getattr(optimizer, "_trainable_variables", None) or [])


def parts_of_dataset(dataset):
    """The data sets that a `tf.data.Dataset` draws from; its functions, each as Python function, graph and variables.

    Relies on `DatasetV2._inputs` and `_functions`, and on `StructuredFunctionWrapper._func` and `function`. Seen in
    TensorFlow 2.18 to 2.21.
    """
    wrappers = [(wrapper._func, wrapper.function.graph) for wrapper in dataset._functions()]
    return list(dataset._inputs()), [(function, graph, list(graph.variables)) for function, graph in wrappers]


def shuffles_anew(dataset):
    """Whether a `tf.data.Dataset` is a `shuffle` whose order is another one in each pass.

    Relies on the class name `_ShuffleDataset` and its `_reshuffle_each_iteration`. Seen in TensorFlow 2.18 to 2.21.
    """
    return "Shuffle" in type(dataset).__name__ and bool(getattr(dataset, "_reshuffle_each_iteration", True))


def repeats_for_ever(dataset):
    """Whether a `tf.data.Dataset` is a `repeat` without an end.

    Relies on the class name `_RepeatDataset` and its `_count`. Seen in TensorFlow 2.18 to 2.21.
    """
    return type(dataset).__name__ == "_RepeatDataset" and int(dataset._count) < 0


def compile_arguments(model):
    """What `compile` was given, by name. Relies on `Trainer._compile_config.config`. Seen in Keras 3.10 to 3.15."""
    config = getattr(model, "_compile_config", None)
    return {} if config is None else dict(config.config)


def random_seed():
    """What `keras.utils.set_random_seed` was given last, or `None`.

    Relies on `keras.src.utils.rng_utils.get_random_seed`. Seen in Keras 3.10 to 3.15.
    """
    return rng_utils.get_random_seed()


def data_of_adapter(adapter):
    """What `fit` was given, as its data adapter keeps it: its kind, and the object or the arrays.

    The kinds are `"arrays"`, `"PyDataset"`, `"generator"` (with the batches that Keras has drawn ahead), `"tf.data"`,
    `"DataLoader"`, and `"other"`. Relies on the attributes `_inputs`, `py_dataset`, `_first_batches`, `_dataset` and
    `_dataloader` of the adapters. Seen in Keras 3.10 to 3.15.
    """
    names = {
        "arrays": "_inputs",
        "PyDataset": "py_dataset",
        "generator": "_first_batches",
        "tf.data": "_dataset",
        "DataLoader": "_dataloader",
    }
    for kind, name in names.items():
        if hasattr(adapter, name) and not (kind == "tf.data" and not hasattr(adapter._dataset, "element_spec")):
            return kind, getattr(adapter, name)
    return "other", None


def shuffle_of_adapter(adapter):
    """The `shuffle` of `fit`, as far as a data adapter uses it; relies on `_shuffle` and `shuffle`. Keras 3.10 to 3.15."""
    return getattr(adapter, "_shuffle", getattr(adapter, "shuffle", None))


def graphs_of_step(model):
    """The TensorFlow graphs of the compiled training step, nested functions included; none for other backends.

    Relies on `compiled_loop` and on `PolymorphicFunction._list_all_concrete_functions`. Seen in TensorFlow 2.18 to 2.21.
    """
    loop = compiled_loop(model)
    if not hasattr(loop, "_list_all_concrete_functions"):
        return []
    return [function.graph for function in loop._list_all_concrete_functions()]


def eager_random_generator():
    """The `random.Random` that TensorFlow draws the seeds of eager operations from; `None` without TensorFlow or a seed.

    Relies on `tensorflow.python.eager.context.context()._rng`, which `tf.random.set_seed` makes. TensorFlow 2.18 to 2.21.
    """
    context = sys.modules.get("tensorflow.python.eager.context")
    return None if context is None else getattr(context.context(), "_rng", None)


def set_initial_epoch(model, epoch):
    """Let the running `fit` begin with an epoch; `None` for what it was given.

    Relies on `Trainer._initial_epoch`, which `BackupAndRestore` sets. Seen in Keras 3.10 to 3.15.
    """
    model._initial_epoch = epoch


def set_optimizer_variables(optimizer, variables):
    """Make these the variables that an optimizer has by itself, in this order.

    They lie in a new list each time, since TensorFlow saves no list that something was removed from. Relies on `_variables`,
    `_untrack_variable`, `_track_variable` and `_tracker.config` of `BaseOptimizer`, and `tracking.DotNotTrackScope`. Seen in
    Keras 3.10 to 3.15.
    """
    variables = list(variables)
    for each in list(optimizer._variables):
        optimizer._untrack_variable(each)
    with tracking.DotNotTrackScope():
        optimizer._variables = []
    condition, _ = optimizer._tracker.config["variables"]
    optimizer._tracker.config["variables"] = (condition, optimizer._variables)
    for each in variables:
        optimizer._track_variable(each)


def own_optimizer_variables(optimizer):
    """The variables that an optimizer has by itself, without those of one inside. Relies on `_variables`, as above."""
    return list(optimizer._variables)


def remove_optimizer_variables(optimizer, variables):
    """Remove some of them. Relies on the same."""
    gone = {id(variable) for variable in variables}
    set_optimizer_variables(optimizer, [each for each in optimizer._variables if id(each) not in gone])


def tensor_spec(batch):
    """TensorFlow's specification of batches like this one, of any number of samples.

    Relies on `data_adapter_utils.get_tensor_spec`. Seen in Keras 3.10 to 3.15.
    """
    return data_adapter_utils.get_tensor_spec([batch])


def at_epoch_begin(adapter, function):
    """Let a data adapter call a function when an `EpochIterator` begins an epoch, before it looks for its number of batches.

    Relies on `EpochIterator._enumerate_iterator` calling `data_adapter.on_epoch_begin` first. Seen in Keras 3.10 to 3.15.
    """
    adapter.on_epoch_begin = function


def end_epoch_after(iterator, batches, at_end):
    """Let the epoch of an `EpochIterator` that is running end after some batches, and call `at_end` then, once an epoch.

    `at_end` returns the number of batches in the next epoch.

    Relies on `EpochIterator._num_batches`, which each epoch reads at its begin and, if there is a number, before each step;
    and on `data_adapter.on_epoch_end` being called at its end. Seen in Keras 3.10 to 3.15.
    """
    adapter = iterator.data_adapter
    iterator._num_batches = batches
    if "on_epoch_end" not in vars(adapter):

        def on_epoch_end():
            iterator._num_batches = at_end()

        adapter.on_epoch_end = on_epoch_end


def forget_tensorflow_traces(variables, message):
    """Let each `tf.function` that has read one of some variables trace anew, and each of its traces raise an error.

    The functions are those that Python's garbage collector has. Relies on the classes `polymorphic_function.Function`, with
    its `_function_cache`, and `ConcreteFunction`, with its `_call_impl` and `_call_flat`, which all calls go through. Seen
    in TensorFlow 2.18 to 2.21.
    """
    from tensorflow.python.eager.polymorphic_function import concrete_function, polymorphic_function

    def refuse(*args, **kwargs):
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


def traced_datasets(variables):
    """Functions of `tf.data` pipelines that read one of some variables.

    Relies on the class `StructuredFunctionWrapper` and its `function`. Seen in TensorFlow 2.18 to 2.21.
    """
    from tensorflow.python.data.ops.structured_function import StructuredFunctionWrapper

    handles = _handles(variables)
    found = [each for each in gc.get_objects() if type(each) is StructuredFunctionWrapper]
    return [each for each in found if _reads(each.function, handles)]


def _handles(variables):
    """The ids of the tensors that functions capture of variables; several with `MirroredStrategy`."""
    values = [variable._value for variable in variables]
    return {id(part.handle) for value in values for part in getattr(value, "values", [value]) if hasattr(part, "handle")}


def _reads(trace, handles):
    return any(id(tensor) in handles for tensor in trace.captured_inputs)


def list_last(variable):
    """Let a variable stand after all others in the `weights` and `variables` of every layer and model that has it.

    Relies on `Layer.weights` and `Layer.variables` being properties that no class of Keras' own overrides; they are replaced
    once. Seen in Keras 3.10 to 3.15.
    """
    vars(variable)["_listed_last"] = True
    for name in ("weights", "variables"):
        original = vars(keras.layers.Layer)[name]
        if not hasattr(original.fget, "lists_last"):
            setattr(keras.layers.Layer, name, property(_listing_last(original.fget), doc=original.__doc__))


def _listing_last(listed):
    @functools.wraps(listed)
    def variables(self):
        found = listed(self)
        last = [each for each in found if getattr(each, "_listed_last", False)]
        return [each for each in found if not getattr(each, "_listed_last", False)] + last if last else found

    vars(variables)["lists_last"] = True
    return variables


def serialized_objects(model):
    """The ids of the objects that the configuration of a model has configurations of; none if it has no configuration.

    Relies on `ObjectSharingScope`, which collects them in the global attribute "shared_objects/id_to_config_map". Seen in
    Keras 3.10 to 3.15.
    """
    with serialization_lib.ObjectSharingScope(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            keras.saving.serialize_keras_object(model)
        except Exception:  # of any kind, from any class of the user
            return set()
        return set(global_state.get_global_attribute("shared_objects/id_to_config_map", {}))


def build_optimizer_anew(optimizer, variables):
    """Build an optimizer that has made no step yet for other variables. Its rate, and what else it had before, stay.

    Relies on `build` adding to `_variables` and doing nothing while `built` is set. Seen in Keras 3.10 to 3.15.
    """
    within = [each for each in vars(optimizer).values() if isinstance(each, keras.optimizers.Optimizer)]
    for each in [optimizer, *within]:
        unbuilt = type(each).from_config(each.get_config())
        set_optimizer_variables(each, each._variables[: len(unbuilt._variables)])
        each._trainable_variables = []
        each.built = False
    optimizer.build(variables)


def children(layer):
    """The layers that are directly in a layer. Relies on `Layer._layers`. Seen in Keras 3.10 to 3.15."""
    return list(layer._layers)


def is_graph(layer):
    """Return `True` for functional and sequential models. Relies on `functional_model`."""
    return isinstance(layer, (keras.Sequential, functional_model()))


def own_trainable_variables(layer):
    """The trainable variables that a layer has itself, also while it is frozen.

    Relies on `Layer._trainable_variables`. Seen in Keras 3.10 to 3.15.
    """
    return list(layer._trainable_variables)


def producer(tensor):
    """The operation that a symbolic tensor comes from, and the tensors that went into it.

    Relies on `KerasTensor._keras_history` and `Operation._inbound_nodes`. Seen in Keras 3.10 to 3.15.
    """
    operation, node, _ = tensor._keras_history
    return operation, list(operation._inbound_nodes[node].input_tensors)


_layers: weakref.WeakValueDictionary = weakref.WeakValueDictionary()
_is_complete = False


def record_layers():
    """Let each layer that is made from now on be in `recorded_layers`, as long as it lives.

    Relies on `Layer._initialize_tracker`, which each layer calls as its first attribute is set. Seen in Keras 3.10 to 3.15.
    """
    original = keras.layers.Layer._initialize_tracker
    if hasattr(original, "records"):
        return

    @functools.wraps(original)
    def initialize(self):
        _layers.setdefault(id(self), self)
        original(self)

    vars(initialize)["records"] = True
    keras.layers.Layer._initialize_tracker = initialize


def recorded_layers():
    """All layers that live, in the order in which they were made, but for those from before `record_layers`."""
    return list(_layers.values())


def record_earlier_layers():
    """Record the layers from before `record_layers`, too; return `False` if this has been done.

    They are found once in a process, among the objects of Python's garbage collector. Relies on `Layer._tracker`, which
    each layer has that was made.
    """
    global _is_complete
    if _is_complete:
        return False
    _is_complete = True
    kinds = _subclasses(keras.layers.Layer)
    for each in gc.get_objects():
        if type(each) in kinds and "_tracker" in vars(each):
            _layers.setdefault(id(each), each)
    return True


def _subclasses(kind):
    return {kind}.union(*map(_subclasses, kind.__subclasses__()))


def distribution_strategy(optimizer):
    """The strategy of `tf.distribute` that an optimizer was made in.

    Relies on `TFOptimizer._distribution_strategy`. Seen in Keras 3.10 to 3.15.
    """
    return optimizer._distribution_strategy


def all_reduced(optimizer, grads):
    """The sums of gradients over all replicas, in a list.

    Relies on `TFOptimizer._all_reduce_sum_gradients`, which takes and returns pairs. Seen in Keras 3.10 to 3.15.
    """
    return [gradient for gradient, _ in optimizer._all_reduce_sum_gradients([(each, None) for each in grads])]


def disable_all_reduce(optimizer):
    """Let an optimizer take the gradients of each replica as they are. Relies on the same name as `all_reduced`."""
    vars(optimizer)["_all_reduce_sum_gradients"] = list


def merge_call(function, strategy, *args):
    """Call a function of a strategy and values of all replicas, from within a replica or from outside of all.

    Relies on `tf.__internal__.distribute.interim.maybe_merge_call`. Seen in TensorFlow 2.18 to 2.21.
    """
    import tensorflow as tf

    return tf.__internal__.distribute.interim.maybe_merge_call(function, strategy, *args)


def is_compiled_by_xla():
    """Return `True` within what TensorFlow traces for XLA.

    Relies on `GraphOrParentsInXlaContext` of `tensorflow.python.ops.control_flow_util`. Seen in TensorFlow 2.18 to 2.21.
    """
    import tensorflow as tf
    from tensorflow.python.framework import ops
    from tensorflow.python.ops import control_flow_util

    return not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(ops.get_default_graph())


def xla_optimization_barrier(tensors):
    """The same tensors, which XLA computes all before it goes on with one of them.

    Relies on `gen_xla_ops.xla_optimization_barrier` of `tensorflow.compiler.tf2xla.ops`. Seen in TensorFlow 2.18 to 2.21.
    """
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    return gen_xla_ops.xla_optimization_barrier(tensors)
