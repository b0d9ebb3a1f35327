"""Compiled functions that have traced layers, whoever holds them: they are traced once more when the layers have changed."""

import gc
from collections.abc import Sequence

import keras

from keras_lrsched._core import backends, keras_private
from keras_lrsched._core.training_loop import step_hooks


def check_traces(layers: Sequence[keras.Layer]) -> None:
    """Raise an error if layers were traced by something that cannot be traced once more.

    Raises:
        ValueError: If a function of a `tf.data` pipeline calls one of the layers, or the layers are in the middle of a
            step of `fit` on JAX.
    """
    if not all(keras_private.has_value(variable) for layer in layers for variable in layer.variables):
        raise ValueError(
            "The layers are in a running `fit` of a model on JAX, which has their values: change them before it, or in a "
            f"callback of that model after `self.model` was read. Received: layers={[layer.name for layer in layers]}"
        )
    if keras.backend.backend() == "tensorflow" and keras_private.traced_datasets(_variables(layers)):
        gc.collect()
        if keras_private.traced_datasets(_variables(layers)):
            raise ValueError(
                "A `tf.data` pipeline calls the model, and would go on with the layers as they are now: make the pipeline "
                f"after the change. Received: layers={[layer.name for layer in layers]}"
            )


def forget_traces(model: keras.Model, layers: Sequence[keras.Layer]) -> None:
    """Let all compiled functions that have traced some layers be traced once more when they are called.

    On TensorFlow these are all `tf.function`s that read a variable of the layers; on JAX, all that `jax.jit` has compiled
    in the process; on PyTorch, the same of `torch.compile`. A concrete function of TensorFlow, which cannot be traced once
    more, raises an error. What `jax.jit(...).lower(...).compile()` and exporters have returned stays as it is.

    Args:
        model: The model that holds the layers; its functions are made anew even in the middle of `fit`.
        layers: The layers that have changed.
    """
    backends.forget_compiled(_variables(layers), _STALE)
    for each in [model, *step_hooks.models_with_reusable_steps()]:
        if isinstance(each, keras.Model) and (each is model or not set(layers).isdisjoint(keras_private.layers_of(each))):
            _make_functions_anew(each)


_STALE = (
    "This concrete function was traced before layers of its model were converted, and computes what they computed then: "
    "call `get_concrete_function` once more."
)


def _variables(layers: Sequence[keras.Layer]) -> list:
    return [variable for layer in layers for variable in layer.variables]


def _make_functions_anew(model: keras.Model) -> None:
    """The functions of `fit`, `evaluate` and `predict` that a model has; `fit` reads them before each step."""
    for name in ("train", "test", "predict"):
        if getattr(model, f"{name}_function", None) is not None:
            setattr(model, f"{name}_function", None)
            getattr(model, f"make_{name}_function")()
