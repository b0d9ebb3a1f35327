"""Layers, variables and models."""

import functools
import gc
import warnings
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.models import functional
from keras.src.saving import serialization_lib


def existing(module: ModuleType, *names: str) -> tuple:
    """The classes of these names in a public module of Keras, for `isinstance`, as far as the installed version has them.

    `ReversibleEmbedding` came with Keras 3.12, `ScheduleFreeAdamW` with 3.14, `MultiOptimizer` with 3.15.
    """
    return tuple(vars(module)[name] for name in names if name in vars(module))


def functional_model() -> Any:
    """The class of functional models. Relies on `keras.src.models.functional.Functional`. Seen in Keras 3.10 to 3.15."""
    return functional.Functional


def layers_of(model: keras.Model) -> list:
    """All layers of a model at any depth, itself first. Relies on `Layer._flatten_layers`. Seen in Keras 3.10 to 3.15."""
    return list(model._flatten_layers())


def has_value(variable: Any) -> bool:
    """Return `True` if a variable has its value, which Keras removes before a step on JAX until its end, or an error.

    Relies on `Variable._value`, which `Trainer._purge_model_variables` sets to `None`. Seen in Keras 3.10 to 3.15.
    """
    return variable._value is not None


def is_calling() -> bool:
    """Return `True` while a layer is called.

    Relies on the global attribute `current_call_ctx`. Seen in Keras 3.10 to 3.15.
    """
    return global_state.get_global_attribute("current_call_ctx") is not None


def value_of(variable: Any) -> Any:
    """The backend's variable or tensor in a `keras.Variable`. Relies on `Variable._value`. Seen in Keras 3.10 to 3.15."""
    return variable._value


def list_last(variable: Any) -> None:
    """Let a variable stand after all others in the `weights` and `variables` of every layer and model that has it.

    Relies on `Layer.weights` and `Layer.variables` being properties that no class of Keras' own overrides; they are replaced
    once. Seen in Keras 3.10 to 3.15.
    """
    vars(variable)["_listed_last"] = True
    for name in ("weights", "variables"):
        original = vars(keras.layers.Layer)[name]
        if not hasattr(original.fget, "lists_last"):
            setattr(keras.layers.Layer, name, property(_listing_last(original.fget), doc=original.__doc__))


def _listing_last(listed: Callable) -> Callable:
    @functools.wraps(listed)
    def variables(self: keras.Layer) -> list:
        found = listed(self)
        last = [each for each in found if getattr(each, "_listed_last", False)]
        return [each for each in found if not getattr(each, "_listed_last", False)] + last if last else found

    vars(variables)["lists_last"] = True
    return variables


def serialized_objects(model: keras.Model) -> set[int]:
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


def children(layer: keras.Layer) -> list[keras.Layer]:
    """The layers that are directly in a layer. Relies on `Layer._layers`. Seen in Keras 3.10 to 3.15."""
    return list(layer._layers)


def is_graph(layer: keras.Layer) -> bool:
    """Return `True` for functional and sequential models. Relies on `functional_model`."""
    return isinstance(layer, (keras.Sequential, functional_model()))


def own_trainable_variables(layer: keras.Layer) -> list:
    """The trainable variables that a layer has itself, also while it is frozen.

    Relies on `Layer._trainable_variables`. Seen in Keras 3.10 to 3.15.
    """
    return list(layer._trainable_variables)


def producer(tensor: Any) -> tuple:
    """The operation that a symbolic tensor comes from, and the tensors that went into it.

    Relies on `KerasTensor._keras_history` and `Operation._inbound_nodes`. Seen in Keras 3.10 to 3.15.
    """
    operation, node, _ = tensor._keras_history
    return operation, list(operation._inbound_nodes[node].input_tensors)


_layers: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


_is_complete = False


def record_layers() -> None:
    """Let each layer that is made from now on be in `recorded_layers`, as long as it lives.

    Relies on `Layer._initialize_tracker`, which each layer calls as its first attribute is set. Seen in Keras 3.10 to 3.15.
    """
    original = keras.layers.Layer._initialize_tracker
    if hasattr(original, "records"):
        return

    @functools.wraps(original)
    def initialize(self: keras.Layer) -> None:
        _layers.setdefault(id(self), self)
        original(self)

    vars(initialize)["records"] = True
    keras.layers.Layer._initialize_tracker = initialize


def recorded_layers() -> list:
    """All layers that live, in the order in which they were made, but for those from before `record_layers`."""
    return list(_layers.values())


def record_earlier_layers() -> bool:
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


def _subclasses(kind: type) -> set[type]:
    return {kind}.union(*map(_subclasses, kind.__subclasses__()))


def layout(variable: Any) -> Any:
    """The layout of a variable on several devices, or `None`. Relies on `Variable._layout`. Seen in Keras 3.10 to 3.15."""
    return getattr(variable, "_layout", None)


def autocast(variable: Any, tensor: Any) -> Any:
    """A tensor in the dtype that the value of a variable has where a layer reads it.

    Relies on `Variable._maybe_autocast`. Seen in Keras 3.10 to 3.15.
    """
    return variable._maybe_autocast(tensor)


def layers_within(layer: keras.Layer) -> list:
    """All layers in a layer at any depth, without itself. Relies on the same as `layers_of`."""
    return list(layer._flatten_layers(include_self=False))


def kernel_without_adapter(layer: keras.Layer) -> Any:
    """The kernel of a layer without what LoRA adds.

    Relies on `BaseConv._kernel` and `Dense._kernel`. Seen in Keras 3.10 to 3.15.
    """
    return layer._kernel


def embeddings_without_adapter(layer: keras.Layer) -> Any:
    """The embeddings of a layer without what LoRA adds. Relies on `Embedding._embeddings`. Seen in Keras 3.10 to 3.15."""
    return layer._embeddings


def function_arguments(loss_or_metric: Any) -> dict:
    """The dictionary of keyword arguments of the function in a loss or metric; an empty one for others.

    Relies on `LossFunctionWrapper._fn_kwargs` and `MeanMetricWrapper._fn_kwargs`. Seen in Keras 3.10 to 3.15.
    """
    return getattr(loss_or_metric, "_fn_kwargs", {})


MANAGED_ATTRIBUTES = ("_jax_state", "_tracker")
"""Attributes of layers and models that Keras alone manages."""

TRACKED_LISTS = frozenset({"_trainable_variables", "_non_trainable_variables", "_layers", "_metrics", "_seed_generators"})
"""Attributes of layers in which Keras lists what it tracks; it assigns them by computed names."""


def attention_layers(model: keras.Model) -> list:
    """The layers of a model that have heads with queries and keys, of `MultiHeadAttention` or `GroupQueryAttention`."""
    return [each for each in layers_of(model) if isinstance(each, ATTENTION)]


ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def projections(layer: Any) -> tuple[list, list, bool]:
    """The variables of queries and of keys, each with its heads in the last axis but one, and whether heads share keys.

    Relies on `_query_dense` and `_key_dense` of both classes, and on `num_key_value_heads` of the second. Seen in Keras 3.10
    to 3.15.
    """
    query, key = layer._query_dense, layer._key_dense
    shares = isinstance(layer, keras.layers.GroupQueryAttention) and layer.num_key_value_heads < layer.num_query_heads
    return list(query.trainable_weights), list(key.trainable_weights), shares


def watch_outputs(layer: keras.Layer, watch: Callable[[Any], None]) -> Callable[[], None]:
    """Call a function with what a layer returns, wherever it is called; return a function that ends this.

    Relies on `Layer.__call__` reading `call` from the layer, and on `Layer.__setattr__` as the only thing that tracks
    attributes. Seen in Keras 3.10 to 3.15.
    """
    call = layer.call

    @functools.wraps(call)
    def watching(*args: Any, **options: Any) -> Any:
        result = call(*args, **options)
        watch(result)
        return result

    object.__setattr__(layer, "call", watching)
    return lambda: object.__delattr__(layer, "call")


def watch_attention(layer: Any, heads: int, watch: Callable) -> tuple[Any, Callable[[], None]]:
    """Call a function with queries, keys, their scale, and masks, wherever an attention layer computes its logits.

    Args:
        layer: One of `attention_layers`.
        heads: The number of its heads.
        watch: A function of the variable that is returned, queries, keys, scale, mask (or `None`), and whether it is causal.

    Returns:
        A variable with a number for each head, which is part of the layer's state, so that the function may assign it within
        a compiled step; and a function that removes it.

    Relies on `_compute_attention` of both classes, `_inverse_sqrt_key_dim` and `_inverse_sqrt_head_dim`, and on the lock of
    `Layer._tracker`. Seen in Keras 3.10 to 3.15.
    """
    earlier = vars(layer).get("_compute_attention")
    if hasattr(earlier, "restore"):  # of a `fit` that has raised an error
        earlier.restore()
    original = layer._compute_attention
    scale = getattr(layer, "_inverse_sqrt_key_dim", None) or getattr(layer, "_inverse_sqrt_head_dim", None)
    layer._tracker.unlock()
    variable = layer.add_weight(shape=(heads,), initializer="zeros", dtype="float32", trainable=False, name="max_logits")
    layer._tracker.lock()

    @functools.wraps(original)
    def compute(query: Any, key: Any, value: Any, *args: Any, **options: Any) -> Any:
        mask = options.get("attention_mask", args[0] if args else None)
        watch(variable, query, key, scale, mask, bool(options.get("use_causal_mask")))
        return original(query, key, value, *args, **options)

    def restore() -> None:
        object.__delattr__(layer, "_compute_attention")
        layer._tracker.unlock()
        layer._non_trainable_variables.remove(variable)
        layer._tracker.lock()

    vars(compute)["restore"] = restore
    object.__setattr__(layer, "_compute_attention", compute)
    return variable, restore
