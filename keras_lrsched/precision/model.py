"""Conversion of a model to low precision, and back."""

import dataclasses
import re
import warnings

import keras

from keras_lrsched._core import keras_private, validation
from keras_lrsched._core.training_loop.traces import check_traces, forget_traces
from keras_lrsched.precision import _rematerialization
from keras_lrsched.precision import layers as quantized
from keras_lrsched.precision.layers import QUANTIZED, Quantized
from keras_lrsched.precision.recipe import LayerContext, get_recipe

ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
TABLES = re.compile(
    r"(embeddings?|tokens?|table)$"
)  # names of matrices that are looked up or added, and multiplied with nothing


@dataclasses.dataclass(frozen=True)
class QuantizationReport:
    """The result of `quantize_model`: paths of layers. Every matrix that is trained lies in a layer of one of the three.

    Attributes:
        recipe: The `Recipe`.
        quantized: Layers that compute by it.
        kept: Layers that it, or the argument `keep`, leaves as they are, and those with a table only, such as `Embedding`.
        unsupported: Layers with a product that has no quantized form here.
    """

    recipe: object
    quantized: tuple = ()
    kept: tuple = ()
    unsupported: tuple = ()


def quantize_model(model, recipe, keep=(), strict=True, seed=0, head=None):
    """Lets the layers of a model compute by a recipe, in training and in inference. Weights stay as they are.

    `Dense`, `EinsumDense`, `Conv1D`, `Conv2D`, `MultiHeadAttention`, `GroupQueryAttention` (their projections) and the head
    of a `ReversibleEmbedding` become quantized layers in place, also inside of other layers and models. So do the layers of
    their subclasses that have no computation of their own, and the projections of subclasses of the two attention layers.
    What recipes remember is among `model.variables`, not among `model.weights`. A layer that multiplies with the `kernel` of
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
    found, unsupported, tables = _survey(model)
    kept = _matching("keep", keep, [*found, *unsupported, *tables])
    kept = [*kept, *(layer for layer in tables if layer not in kept)]
    found = [layer for layer in found if layer not in kept]
    unsupported = [layer for layer in unsupported if layer not in kept]
    if unsupported and strict:
        raise ValueError(
            "These layers cannot be quantized: " + ", ".join(map(_described, unsupported)) + ". Name them in `keep`, or "
            "pass strict=False."
        )
    _check_built(found)
    contexts = _contexts(model, found, seed, recipe, head)
    used = [layer for layer in found if recipe.rule(contexts[layer]) is not None]
    kept = [*kept, *(layer for layer in found if layer not in used)]
    if not used:
        raise ValueError(
            f"No layer of the model would compute by {recipe.name}: it has no product that can be quantized, or "
            f"all are kept, such as the head; see `keep` and `head`. Received: model={model.name}, "
            f"kept={_paths(kept)}, unsupported={_paths(unsupported)}"
        )
    _prepare_change(model, found)
    build = _needs_another_build(model, recipe, contexts)
    if unsupported:
        warnings.warn("These layers stay as they are: " + ", ".join(map(_described, unsupported)) + ".", stacklevel=2)
    for layer, context in contexts.items():
        quantized.convert(layer, recipe, context)
    _rematerialization.leave_out(model)
    quantized.keep_in_configuration(model)
    if build:
        keras_private.build_optimizer_anew(model.optimizer, model.trainable_variables)
    forget_traces(model, found)
    return QuantizationReport(recipe, *(tuple(map(_path, each)) for each in (used, kept, unsupported)))


def switch_recipe(model, recipe):
    """Lets a quantized model compute by another recipe, or with `None` in the precision of its dtype policies.

    What recipes remember, such as scales, is kept for the next switch. The same recipe with other settings goes on with what
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


def prepare_recipe(model, recipe):
    """Adds the variables of a recipe to a quantized model, which goes on with its own; see `switch_recipe`."""
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


def restore_model(model):
    """Undoes `quantize_model`: layers are again what they were, with the weights that they have now.

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
    _rematerialization.put_back(model)
    for layer in found:
        layer.forget()
        quantized.convert_in_place(layer, layer.plain)
    forget_traces(model, found)


def quantized_layers(model):
    """The quantized layers of a model; those in an attention layer are its own business."""
    return [layer for layer in quantized.flattened(model) if isinstance(layer, Quantized)]


def _prepare_change(model, layers):
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
    check_traces(layers)


def _survey(model):
    """Layers that have a quantized form, those with a product that has none, and those with tables only."""
    layers: list = []
    unsupported: list = []
    tables: list = []
    for layer in quantized.flattened(model):
        if isinstance(layer, Quantized) or getattr(layer, "quantization_mode", None):
            raise ValueError(f"The model is quantized already: {_described(layer)}. Use `switch_recipe` or `restore_model`.")
        if _has_form(layer):
            layers.append(layer)
        elif _matrices(layer):
            (tables if _has_tables_only(layer) else unsupported).append(layer)
    return layers, unsupported, tables


def _has_form(layer):
    if not (type(layer) in QUANTIZED or quantized.quantized_base(type(layer))) or getattr(layer, "groups", 1) != 1:
        return False
    if isinstance(layer, keras.layers.EinsumDense):
        try:
            quantized.matrix_form(layer.equation, 8)
        except ValueError:
            return False
    return True


def _matrices(layer):
    """The trained variables of a layer itself with more than one axis that is longer than 1."""
    return [weight for weight in keras_private.own_trainable_variables(layer) if sum(size != 1 for size in weight.shape) > 1]


def _has_tables_only(layer):
    """Whether the matrices of a layer are looked up or added: those of `Embedding`, or so called."""
    if isinstance(layer, keras.layers.Embedding):
        return type(layer).call is keras.layers.Embedding.call
    return all(TABLES.search(weight.name) for weight in _matrices(layer))


def _check_built(layers):
    missing = [layer for layer in layers if not layer.built]
    if missing:
        raise ValueError(
            "These layers have no weights yet: call the model once, or its `build`; and name what it never calls in `keep`. "
            "Received: " + ", ".join(map(_described, missing))
        )


def _matching(argument, rules, layers):
    """The layers in whose paths one of the rules is found."""
    rules = [rules] if isinstance(rules, str) else list(rules)
    matched = {}
    for rule in rules:
        found = [layer for layer in layers if re.search(rule, _path(layer))]
        if not found:
            raise ValueError(f"`{argument}`: {rule!r} is found in none of the paths {', '.join(map(_path, layers))}.")
        matched.update(dict.fromkeys(layer for layer in found if not _is_meant_by_another(layer, found, rule)))
    return [layer for layer in layers if layer in matched]


def _is_meant_by_another(layer, found, rule):
    """Whether a rule is found in the path of a layer only because it is found in that of a layer around it."""
    path = _path(layer)
    around = [_path(each) for each in found if path.startswith(f"{_path(each)}/")]
    return bool(around) and not re.search(rule, path[len(max(around, key=len)) + 1 :])


def _contexts(model, layers, seed, recipe, head):
    """layer -> its `LayerContext`."""
    first_seed = validation.non_negative_int("seed", seed) * 0x1000

    def context(index, role):
        return LayerContext(role, index, len(layers), first_seed + index)

    projections = _projections_of_subclasses(model)
    roles = [_role(layer, projections) for layer in layers]
    if head is not None:
        heads = _matching("head", head, layers)
    else:
        heads, unclear = _last_layers(model, layers)
        unclear = [] if "head" in roles else unclear
        differs = [
            layer
            for index, (layer, role) in enumerate(zip(layers, roles, strict=True))
            if layer in unclear and recipe.rule(context(index, role)) != recipe.rule(context(index, "head"))
        ]
        if differs:
            raise ValueError(
                f"{recipe.name} computes heads in another way than other layers, and which layers make the outputs cannot "
                f"be read from this model. Name them in `head`, or pass head=() for none. Received: model={model.name}, "
                f"with the layers {', '.join(map(_path, differs))}"
            )
    roles = ["head" if layer in heads else role for layer, role in zip(layers, roles, strict=True)]
    return {layer: context(index, role) for index, (layer, role) in enumerate(zip(layers, roles, strict=True))}


def _role(layer, projections):
    if isinstance(layer, keras_private.existing(keras.layers, "ReversibleEmbedding")):
        return "head"
    if isinstance(layer, ATTENTION) or layer in projections:
        return "attention"
    return "convolution" if hasattr(layer, "kernel_size") else "linear"


def _projections_of_subclasses(model):
    """The layers within attention layers that have no quantized form as a whole."""
    attention = [layer for layer in quantized.flattened(model) if isinstance(layer, ATTENTION)]
    return {inner for layer in attention for inner in quantized.flattened(layer)[1:]}


def _last_layers(part, layers):
    """-> those of `layers` that make the outputs of a layer or model; and those that may, where it has no graph."""
    inside = [layer for layer in layers if layer in quantized.flattened(part)]
    outputs = _outputs(part)
    if part in inside or (not outputs and len(inside) < 2):
        return inside, []
    if not outputs:
        return [], inside
    heads, unclear = [], []
    for output in outputs:
        last, unclear_last = _last_before(output, layers)
        heads += last
        unclear += unclear_last
    return heads, unclear


def _last_before(output, layers):
    """The same for a symbolic tensor. Of an operation with several inputs, the first counts."""
    while output is not None:
        operation, inputs = keras_private.producer(output)
        found = _last_layers(operation, layers) if isinstance(operation, keras.layers.Layer) else ([], [])
        if any(found):
            return found
        output = inputs[0] if inputs else None
    return [], []


def _outputs(part):
    """The symbolic outputs of a functional or sequential model; none of others."""
    return keras.tree.flatten(getattr(part, "outputs", None) or []) if isinstance(part, keras.Model) else []


def _needs_another_build(model, recipe, contexts):
    """Whether the optimizer is built already, and not for the variables that a recipe adds.

    It can be built anew while it has made no step, as on JAX, where `fit` builds it before callbacks are called.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return False
    for layer, context in [(part, context) for each, context in contexts.items() for part in _with_kernels(each)]:
        rule = recipe.rule(context)
        new = {} if rule is None else rule.variables(layer)
        known = layer.gemm_of(recipe) if isinstance(layer, Quantized) else None
        known = {} if known is None else known.named_variables
        if any(spec.get("trainable", True) and not quantized.fits(known.get(name), spec) for name, spec in new.items()):
            if int(optimizer.iterations) > 0:
                raise ValueError(
                    f"{recipe.name} has trainable variables, and the optimizer has made steps without them already: convert "
                    f"the model before training. Received: layer={_path(layer)}, recipe={recipe}"
                )
            return True
    return False


def _with_kernels(layer):
    """The layers that multiply with a kernel: the projections of an attention layer, or the layer."""
    return quantized.projections(layer) if isinstance(layer, ATTENTION) else [layer]


def _paths(layers):
    return tuple(map(_path, layers))


def _path(layer):
    return layer.path or layer.name


def _described(layer):
    return f"{_path(layer)} ({'Quantized' * isinstance(layer, Quantized)}{type(layer).__name__})"
