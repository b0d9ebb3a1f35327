"""A model in few bits, and back."""

import dataclasses
import re
import warnings

import keras

from keras_lrsched.precision.layers import QUANTIZED, Quantized, become, matrix_form
from keras_lrsched.precision.recipe import Place, get_recipe
from keras_lrsched.schedules import checks

ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
HARMLESS = (keras.layers.Embedding, keras.layers.RNN)  # no product of ours to write in few bits, or reported by its cell


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What `quantize_model` did: paths of layers.

    Attributes:
        recipe: The `Recipe`.
        quantized: Layers that compute by it.
        kept: Layers that it, or the argument `keep`, leaves as they are.
        unsupported: Layers with a product that has no form in few bits here.
    """

    recipe: object
    quantized: tuple = ()
    kept: tuple = ()
    unsupported: tuple = ()


def quantize_model(model, recipe, keep=(), strict=True, seed=0):
    """Lets the layers of a model compute by a recipe, in training and in inference. Weights stay as they are.

    `Dense`, `EinsumDense`, `Conv1D`, `Conv2D`, `MultiHeadAttention`, `GroupQueryAttention` (their projections) and the head
    of a `ReversibleEmbedding` become quantized layers in place, also inside of other layers and models. A saved model has
    them again when it is loaded; in layers that make their sublayers themselves, other than attention, call this function
    again. A model that was compiled stays so, and its functions are made anew.

    Args:
        model: A Keras model that is built.
        recipe: A `Recipe` or its name.
        keep: Regular expressions; a layer in whose path one is found stays as it is. Defaults to `()`.
        strict: Whether layers with a product that cannot be written in few bits (recurrent, separable, depthwise, transposed
            and grouped convolutions, subclasses that are not ours) raise an error; else they stay, with a warning.
            Defaults to `True`.
        seed: Of random numbers. Defaults to `0`.

    Returns:
        A `Conversion`.

    Raises:
        ValueError: If the model is not built or quantized already, by this package or by Keras; if `keep` finds no layer; if
            there are unsupported layers and `strict` is set, with all of them by name; or if the recipe needs new trainable
            variables and the optimizer is built already.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32), keras.layers.Dense(10)])
    >>> len(quantize_model(model, "mxfp8").quantized)  # not the head
    1
    """
    recipe = get_recipe(recipe)
    if not model.built:
        raise ValueError(f"The model has no weights yet: build it first. Received: model={model.name}")
    found, unsupported = _survey(model)
    kept = _matching(keep, [*found, *unsupported])
    found = [layer for layer in found if layer not in kept]
    unsupported = [layer for layer in unsupported if layer not in kept]
    if unsupported and strict:
        raise ValueError(
            "These layers cannot compute in few bits: "
            + ", ".join(map(_described, unsupported))
            + ". Name them in `keep`, or "
            "pass strict=False."
        )
    if unsupported:
        warnings.warn("These layers stay as they are: " + ", ".join(map(_described, unsupported)) + ".", stacklevel=2)
    places = _places(model, found, seed)
    used = [layer for layer, place in zip(found, places, strict=True) if recipe.rule(place) is not None]
    _check_optimizer(model, recipe, dict(zip(found, places, strict=True)))
    for layer, place in zip(found, places, strict=True):
        become(layer, QUANTIZED[type(layer)])
        layer.use(recipe, place)
    make_functions_anew(model)
    kept = [*kept, *(layer for layer in found if layer not in used)]
    return Conversion(recipe, *(tuple(map(_path, each)) for each in (used, kept, unsupported)))


def switch_recipe(model, recipe):
    """Lets a quantized model compute by another recipe, or with `None` in the precision of its dtype policies.

    What recipes remember, such as scales, is kept for the next switch.

    Args:
        model: A model that `quantize_model` has converted.
        recipe: A `Recipe`, its name, or `None`.

    Raises:
        ValueError: If the model has no quantized layers, or as `quantize_model`.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
    >>> conversion = quantize_model(model, "mxfp8")
    >>> switch_recipe(model, None)
    >>> model.layers[0].recipe is None
    True
    """
    recipe = None if recipe is None else get_recipe(recipe)
    prepare_recipe(model, recipe)
    for layer in quantized_layers(model):
        layer.use(recipe, layer.place)
    make_functions_anew(model)


def prepare_recipe(model, recipe):
    """Adds the variables of a recipe to a quantized model, which goes on with its own; see `switch_recipe`."""
    found = quantized_layers(model)
    if not found:
        raise ValueError(f"The model has no quantized layers: call `quantize_model` first. Received: model={model.name}")
    if recipe is not None:
        _check_optimizer(model, recipe, {layer: layer.place for layer in found})
        for layer in found:
            layer.prepare(recipe)


def restore_model(model):
    """Undoes `quantize_model`: layers are again what they were, with the weights that they have now.

    Args:
        model: A model that `quantize_model` has converted.

    Raises:
        ValueError: If the model has no quantized layers.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
    >>> conversion = quantize_model(model, "mxfp8")
    >>> restore_model(model)
    >>> type(model.layers[0]).__name__
    'Dense'
    """
    found = quantized_layers(model)
    if not found:
        raise ValueError(f"The model has no quantized layers. Received: model={model.name}")
    for layer in found:
        layer.forget()
        become(layer, layer.plain)
    make_functions_anew(model)


def quantized_layers(model):
    """The quantized layers of a model; those in an attention layer are its own business."""
    return [layer for layer in _walk(model) if isinstance(layer, Quantized)]


def make_functions_anew(model):
    """Lets Keras trace the model's steps once more, also within `fit`."""
    if model.compiled:
        model.train_function = model.test_function = model.predict_function = None
        model.make_train_function()


def _survey(model):
    """Layers that have a quantized form, and those with a product that has none."""
    layers, unsupported = [], []
    for layer in _walk(model):
        if isinstance(layer, Quantized) or getattr(layer, "quantization_mode", None):
            raise ValueError(f"The model is quantized already: {_described(layer)}. Use `switch_recipe` or `restore_model`.")
        if _has_form(layer):
            layers.append(layer)
        elif _has_product(layer):
            unsupported.append(layer)
    return layers, unsupported


def _walk(layer):
    """All layers within one, but not what lies within attention and quantized layers; each once."""
    seen = {}
    for inner in layer._layers:
        if isinstance(inner, keras.layers.Layer):
            leaf = isinstance(inner, (*ATTENTION, Quantized))
            seen.update(dict.fromkeys([inner] if leaf else [inner, *_walk(inner)]))
    return list(seen)


def _has_form(layer):
    if type(layer) not in QUANTIZED or getattr(layer, "groups", 1) != 1:
        return False
    if isinstance(layer, keras.layers.EinsumDense):
        try:
            matrix_form(layer.equation, 8)
        except ValueError:
            return False
    return True


def _has_product(layer):
    """Whether a layer has weights of its own that look like a kernel."""
    return not isinstance(layer, HARMLESS) and any(len(weight.shape) > 1 for weight in layer._trainable_variables)


def _matching(keep, layers):
    rules = [keep] if isinstance(keep, str) else list(keep)
    for rule in rules:
        if not any(re.search(rule, _path(layer)) for layer in layers):
            raise ValueError(f"`keep`: {rule!r} is found in none of the paths {', '.join(map(_path, layers))}.")
    return [layer for layer in layers if any(re.search(rule, _path(layer)) for rule in rules)]


def _places(model, layers, seed):
    heads = _heads(model, layers)
    return [
        Place(_role(layer, heads), index, len(layers), checks.non_negative_int("seed", seed) * 0x1000 + index)
        for index, layer in enumerate(layers)
    ]


def _role(layer, heads):
    if layer in heads or isinstance(layer, keras.layers.ReversibleEmbedding):
        return "head"
    if isinstance(layer, ATTENTION):
        return "attention"
    return "convolution" if hasattr(layer, "kernel_size") else "linear"


def _heads(model, layers):
    """The last of `layers` before each output of the model, if the model knows how it is connected."""
    heads = []
    for output in keras.tree.flatten(getattr(model, "outputs", None) or []):
        while output is not None:
            operation, node, _ = output._keras_history
            inner = [layer for layer in layers if layer is operation or layer in _walk_if_layer(operation)]
            heads += inner[-1:]
            inputs = operation._inbound_nodes[node].input_tensors
            output = inputs[0] if inputs and not inner else None
    return heads


def _walk_if_layer(operation):
    return _walk(operation) if isinstance(operation, keras.layers.Layer) else []


def _check_optimizer(model, recipe, places):
    """An optimizer that is built knows its variables; it can learn of no others."""
    if not (model.compiled and model.optimizer is not None and model.optimizer.built):
        return
    for layer, place in [(part, place) for each, place in places.items() for part in _with_kernels(each)]:
        rule = recipe.rule(place)
        new = {} if rule is None else rule.variables(layer)
        known = getattr(layer, f"product_of_{recipe.name}", None) is not None
        if not known and any(spec.get("trainable", True) for spec in new.values()):
            raise ValueError(
                f"{recipe.name} has trainable variables, and the optimizer is built already: convert the model before "
                f"training. Received: layer={_path(layer)}"
            )


def _with_kernels(layer):
    """The layers that multiply with a kernel: the projections of an attention layer, or the layer."""
    if isinstance(layer, ATTENTION):
        return [inner for inner in layer._flatten_layers(include_self=False) if hasattr(inner, "equation")]
    return [layer]


def _path(layer):
    return layer.path or layer.name


def _described(layer):
    return f"{_path(layer)} ({type(layer).__name__})"
