"""Conversion of a model to low precision, and back."""

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_lrsched._core import keras_private
from keras_lrsched._core.training_loop.traces import check_traces, forget_traces
from keras_lrsched.precision import layers as quantized
from keras_lrsched.precision._survey import (
    check_built,
    contexts_of,
    described,
    matching,
    path_of,
    paths,
    survey,
    with_kernels,
)
from keras_lrsched.precision.layers import Quantized
from keras_lrsched.precision.recipe import LayerContext, Recipe, get_recipe


@dataclasses.dataclass(frozen=True)
class QuantizationReport:
    """The result of `quantize_model`: paths of layers. Every matrix that is trained lies in a layer of one of the three.

    Attributes:
        recipe: The `Recipe`.
        quantized: Layers that compute by it.
        kept: Layers that it, or the argument `keep`, leaves as they are, and those with a table only, such as `Embedding`.
        unsupported: Layers with a product that has no quantized form here.
    """

    recipe: Recipe
    quantized: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()


def quantize_model(
    model: keras.Model,
    recipe: str | Mapping[str, Any] | Recipe,
    keep: str | Iterable[str] = (),
    strict: bool = True,
    seed: int = 0,
    head: str | Iterable[str] | None = None,
) -> QuantizationReport:
    """Let the layers of a model compute by a recipe, in training and in inference. Weights stay as they are.

    `Dense`, `EinsumDense`, `Conv1D`, `Conv2D`, `MultiHeadAttention`, `GroupQueryAttention` (their projections) and the head
    of a `ReversibleEmbedding` become quantized layers in place, also inside of other layers and models. So do the layers of
    their subclasses that have no computation of their own, and the projections of subclasses of the two attention layers.
    Variables of recipes are among `model.variables`, not among `model.weights`. A layer that multiplies with the `kernel` of
    one of its layers itself, and does not call it, computes as before, with a warning.

    Compiled functions that have traced these layers are traced once more at their next call: those of `fit`, `evaluate` and
    `predict` of this model and of others that contain it, and every `tf.function` or `jax.jit`. A concrete function of
    TensorFlow that was traced before raises an error. What was compiled ahead of time, as with
    `jax.jit(...).lower(...).compile()`, and what was exported does not follow.

    A saved model has its quantized layers again when it is loaded, also in layers and models that make their sublayers
    themselves. Files of weights load into the float model and back, and between recipes: kernels and biases are the same,
    and what a file does not have of a recipe keeps its start.

    A quantized layer is never rematerialized (`keras.RematScope`), nor is a layer or model that has one in it as a whole: a
    second forward pass would count twice and draw other random numbers. Other layers made in the scope still are.

    Args:
        model: A Keras model that is built.
        recipe: A `Recipe` or its name.
        keep: Regular expressions; a layer in whose path one is found stays as it is. One that is found in the path of a
            layer with a product of its own keeps that product, and not those of the layers within. Defaults to `()`.
        strict: Whether layers with a product that cannot be quantized (recurrent, separable, depthwise, transposed
            and grouped convolutions, subclasses with a computation of their own) raise an error; else they stay, with a
            warning. Defaults to `True`.
        seed: Of random numbers. Defaults to `0`.
        head: Regular expressions for the paths of the heads, which make the model's outputs and which most recipes keep;
            `()` for none. Defaults to `None`: from the graph of a functional or sequential model, at any depth. Where there
            is none, as in a subclassed model, a recipe that treats heads in another way raises an error.

    Returns:
        A `QuantizationReport`.

    Raises:
        ValueError: If the model is not built or quantized already, by this package or by Keras; if `keep` or `head` finds no
            layer, or the heads cannot be found; if there are unsupported layers and `strict` is set, with all of them by
            name; if no layer would compute by the recipe; if the recipe needs new trainable variables and the optimizer has
            made a step already; or if a `tf.data` pipeline calls the model.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32), keras.layers.Dense(10)])
    >>> len(quantize_model(model, "mxfp8").quantized)  # not the head
    1
    """
    recipe = get_recipe(recipe)
    if not model.built and type(model).call is not keras.Model.call:  # else its layers alone are called, in a step
        raise ValueError(f"The model has no weights yet: build it first. Received: model={model.name}")
    found, unsupported, tables = survey(model)
    kept = matching("keep", keep, [*found, *unsupported, *tables])
    kept = [*kept, *(layer for layer in tables if layer not in kept)]
    found = [layer for layer in found if layer not in kept]
    unsupported = [layer for layer in unsupported if layer not in kept]
    if unsupported and strict:
        raise ValueError(
            "These layers cannot be quantized: " + ", ".join(map(described, unsupported)) + ". Name them in `keep`, or "
            "pass strict=False."
        )
    check_built(found)
    contexts = contexts_of(model, found, seed, recipe, head)
    used = [layer for layer in found if recipe.rule(contexts[layer]) is not None]
    kept = [*kept, *(layer for layer in found if layer not in used)]
    if not used:
        raise ValueError(
            f"No layer of the model would compute by {recipe.name}: it has no product that can be quantized, or "
            f"all are kept, such as the head; see `keep` and `head`. Received: model={model.name}, "
            f"kept={paths(kept)}, unsupported={paths(unsupported)}"
        )
    _prepare_change(model, found)
    build = _needs_another_build(model, recipe, contexts)
    if unsupported:
        warnings.warn("These layers stay as they are: " + ", ".join(map(described, unsupported)) + ".", stacklevel=2)
    for layer, context in contexts.items():
        quantized.convert(layer, recipe, context)
    quantized.stop_rematerialization(model)
    quantized.keep_in_configuration(model)
    if build:
        keras_private.build_optimizer_anew(model.optimizer, model.trainable_variables)
    forget_traces(model, found)
    return QuantizationReport(recipe, *(tuple(map(path_of, each)) for each in (used, kept, unsupported)))


def switch_recipe(model: keras.Model, recipe: str | Mapping[str, Any] | Recipe | None) -> None:
    """Let a quantized model compute by another recipe, or with `None` in the precision of its dtype policies.

    Variables of recipes, such as scales, are kept for the next switch. The same recipe with other settings goes on with what
    has the same shape; a history of another length starts anew. Compiled functions follow as with `quantize_model`.

    Args:
        model: A model that `quantize_model` has converted.
        recipe: A `Recipe`, its name, or `None`.

    Raises:
        ValueError: If the model has no quantized layers, or as `quantize_model`.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32), keras.layers.Dense(10)])
    >>> conversion = quantize_model(model, "mxfp8")
    >>> switch_recipe(model, None)
    >>> model.layers[0].recipe is None
    True
    """
    recipe = None if recipe is None else get_recipe(recipe)
    prepare_recipe(model, recipe)
    found = quantized_layers(model)
    for layer in found:
        layer.use(recipe, layer.context)
    forget_traces(model, found)


def prepare_recipe(model: keras.Model, recipe: Recipe | None) -> None:
    """Add the variables of a recipe to a quantized model, which goes on with its own; see `switch_recipe`."""
    found = quantized_layers(model)
    if not found:
        raise ValueError(f"The model has no quantized layers: call `quantize_model` first. Received: model={model.name}")
    _prepare_change(model, found)
    if recipe is None:
        return
    build = _needs_another_build(model, recipe, {layer: layer.context for layer in found})
    for layer in found:
        layer.prepare(recipe)
    if build:
        keras_private.build_optimizer_anew(model.optimizer, model.trainable_variables)


def restore_model(model: keras.Model) -> None:
    """Undo `quantize_model`: layers are again what they were, with the weights that they have now.

    Args:
        model: A model that `quantize_model` has converted.

    Raises:
        ValueError: If the model has no quantized layers, or as `quantize_model`.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32), keras.layers.Dense(10)])
    >>> conversion = quantize_model(model, "mxfp8")
    >>> restore_model(model)
    >>> type(model.layers[0]) is keras.layers.Dense
    True
    """
    found = quantized_layers(model)
    if not found:
        raise ValueError(f"The model has no quantized layers. Received: model={model.name}")
    _prepare_change(model, found)
    quantized.forget_in_configuration(model)
    quantized.resume_rematerialization(model)
    for layer in found:
        layer.forget()
        quantized.convert_in_place(layer, layer.plain)
    forget_traces(model, found)


def quantized_layers(model: keras.Model) -> list[Quantized]:
    """The quantized layers of a model, without those in a quantized attention layer."""
    return [layer for layer in quantized.flattened(model) if isinstance(layer, Quantized)]


def _prepare_change(model: keras.Model, layers: list[keras.layers.Layer]) -> None:
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
    check_traces(layers)


def _needs_another_build(model: keras.Model, recipe: Recipe, contexts: Mapping[keras.layers.Layer, LayerContext]) -> bool:
    """Whether the optimizer is built already, and not for the variables that a recipe adds.

    It can be built anew while it has made no step, as on JAX, where `fit` builds it before callbacks are called.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return False
    for layer, context in [(part, context) for each, context in contexts.items() for part in with_kernels(each)]:
        rule = recipe.rule(context)
        new = {} if rule is None else rule.variables(layer)
        gemm = layer.gemm_of(recipe) if isinstance(layer, Quantized) else None
        known = {} if gemm is None else gemm.named_variables
        if any(spec.get("trainable", True) and not quantized.fits(known.get(name), spec) for name, spec in new.items()):
            if int(optimizer.iterations) > 0:
                raise ValueError(
                    f"{recipe.name} has trainable variables, and the optimizer has made steps without them already: convert "
                    f"the model before training. Received: layer={path_of(layer)}, recipe={recipe}"
                )
            return True
    return False
