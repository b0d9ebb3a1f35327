"""The layers of a model that a recipe can quantize, and the context of each."""

import re
from collections.abc import Iterable
from typing import Any

import keras
from keras.layers import Layer

from keras_lrsched._core import keras_private, validation
from keras_lrsched.precision import layers as quantized
from keras_lrsched.precision.layers import QUANTIZED, Quantized
from keras_lrsched.precision.recipe import LayerContext, Recipe

ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
TABLES = re.compile(
    r"(embeddings?|tokens?|table)$"
)  # names of matrices that are looked up or added, and multiplied with nothing


def survey(model: Layer) -> tuple[list[Layer], list[Layer], list[Layer]]:
    """Layers that have a quantized form, those with a product that has none, and those with tables only."""
    layers: list = []
    unsupported: list = []
    tables: list = []
    for layer in quantized.flattened(model):
        if isinstance(layer, Quantized) or getattr(layer, "quantization_mode", None):
            raise ValueError(f"The model is quantized already: {described(layer)}. Use `switch_recipe` or `restore_model`.")
        if _has_form(layer):
            layers.append(layer)
        elif _matrices(layer):
            (tables if _has_tables_only(layer) else unsupported).append(layer)
    return layers, unsupported, tables


def _has_form(layer: Layer) -> bool:
    if not (type(layer) in QUANTIZED or quantized.quantized_base(type(layer))) or getattr(layer, "groups", 1) != 1:
        return False
    if isinstance(layer, keras.layers.EinsumDense):
        try:
            quantized.matrix_form(layer.equation, 8)
        except ValueError:
            return False
    return True


def _matrices(layer: Layer) -> list[keras.Variable]:
    """The trained variables of a layer itself with more than one axis that is longer than 1."""
    return [weight for weight in keras_private.own_trainable_variables(layer) if sum(size != 1 for size in weight.shape) > 1]


def _has_tables_only(layer: Layer) -> bool:
    """Whether the matrices of a layer are looked up or added: those of `Embedding`, or so called."""
    if isinstance(layer, keras.layers.Embedding):
        return type(layer).call is keras.layers.Embedding.call
    return all(TABLES.search(weight.name) for weight in _matrices(layer))


def check_built(layers: list[Layer]) -> None:
    missing = [layer for layer in layers if not layer.built]
    if missing:
        raise ValueError(
            "These layers have no weights yet: call the model once, or its `build`; and name what it never calls in `keep`. "
            "Received: " + ", ".join(map(described, missing))
        )


def matching(argument: str, rules: str | Iterable[str], layers: list[Layer]) -> list[Layer]:
    """The layers in whose paths one of the rules is found."""
    rules = [rules] if isinstance(rules, str) else list(rules)
    matched = {}
    for rule in rules:
        found = [layer for layer in layers if re.search(rule, path_of(layer))]
        if not found:
            raise ValueError(f"`{argument}`: {rule!r} is found in none of the paths {', '.join(map(path_of, layers))}.")
        matched.update(dict.fromkeys(layer for layer in found if not _is_meant_by_another(layer, found, rule)))
    return [layer for layer in layers if layer in matched]


def _is_meant_by_another(layer: Layer, found: list[Layer], rule: str) -> bool:
    """Whether a rule is found in the path of a layer only because it is found in that of a layer around it."""
    path = path_of(layer)
    around = [path_of(each) for each in found if path.startswith(f"{path_of(each)}/")]
    return bool(around) and not re.search(rule, path[len(max(around, key=len)) + 1 :])


def contexts_of(
    model: keras.Model, layers: list[Layer], seed: int, recipe: Recipe, head: str | Iterable[str] | None
) -> dict[Layer, LayerContext]:
    """layer -> its `LayerContext`."""
    first_seed = validation.non_negative_int("seed", seed) * 0x1000

    def context(index: int, role: str) -> LayerContext:
        return LayerContext(role, index, len(layers), first_seed + index)

    projections = _projections_of_subclasses(model)
    roles = [_role(layer, projections) for layer in layers]
    if head is not None:
        heads = matching("head", head, layers)
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
                f"with the layers {', '.join(map(path_of, differs))}"
            )
    roles = ["head" if layer in heads else role for layer, role in zip(layers, roles, strict=True)]
    return {layer: context(index, role) for index, (layer, role) in enumerate(zip(layers, roles, strict=True))}


def _role(layer: Layer, projections: set[Layer]) -> str:
    if isinstance(layer, keras_private.existing(keras.layers, "ReversibleEmbedding")):
        return "head"
    if isinstance(layer, ATTENTION) or layer in projections:
        return "attention"
    return "convolution" if hasattr(layer, "kernel_size") else "linear"


def _projections_of_subclasses(model: Layer) -> set[Layer]:
    """The layers within attention layers that have no quantized form as a whole."""
    attention = [layer for layer in quantized.flattened(model) if isinstance(layer, ATTENTION)]
    return {inner for layer in attention for inner in quantized.flattened(layer)[1:]}


def _last_layers(part: Layer, layers: list[Layer]) -> tuple[list[Layer], list[Layer]]:
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


def _last_before(output: Any, layers: list[Layer]) -> tuple[list[Layer], list[Layer]]:
    """The same for a symbolic tensor. Of an operation with several inputs, the first counts."""
    while output is not None:
        operation, inputs = keras_private.producer(output)
        found = _last_layers(operation, layers) if isinstance(operation, keras.layers.Layer) else ([], [])
        if any(found):
            return found
        output = inputs[0] if inputs else None
    return [], []


def _outputs(part: Layer) -> list[Any]:
    """The symbolic outputs of a functional or sequential model; none of others."""
    return keras.tree.flatten(getattr(part, "outputs", None) or []) if isinstance(part, keras.Model) else []


def with_kernels(layer: Layer) -> list[Layer]:
    """The layers that multiply with a kernel: the projections of an attention layer, or the layer."""
    return quantized.projections(layer) if isinstance(layer, ATTENTION) else [layer]


def paths(layers: Iterable[Layer]) -> tuple[str, ...]:
    return tuple(map(path_of, layers))


def path_of(layer: Layer) -> str:
    return layer.path or layer.name


def described(layer: Layer) -> str:
    return f"{path_of(layer)} ({'Quantized' * isinstance(layer, Quantized)}{type(layer).__name__})"
