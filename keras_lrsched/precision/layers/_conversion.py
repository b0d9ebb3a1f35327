"""Layers and models whose configuration does not have their converted layers: how they are saved and come back."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_lrsched._core import keras_private, training_loop
from keras_lrsched.precision.layers._base import QUANTIZED, Quantized, convert_in_place
from keras_lrsched.precision.layers.attention import QuantizedAttention
from keras_lrsched.precision.recipe import LayerContext, Recipe, get_recipe


class Converted(keras.layers.Layer):
    """Mixed into the class of a layer or model that makes layers itself, of which some have been converted.

    Its configuration is that of the class without it, and for each converted layer the recipe and the context.
    """

    plain: type

    def get_config(self) -> dict[str, Any]:
        with training_loop.as_class(self, self.plain):
            config = keras.saving.serialize_keras_object(self)
        config.pop("compile_config", None)  # which the configuration around this one has
        return {"plain": config, "names": _names_within(self), "layers": _records(self)}

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None) -> Any:
        layer = keras.saving.deserialize_keras_object(config["plain"], custom_objects=custom_objects)
        _convert_again(layer, config["names"], config["layers"])
        return layer


keras.saving.register_keras_serializable(package="keras_lrsched")(Converted)


_FORMS: dict[type, type] = {}


def saved_form(plain: type) -> type:
    """The class of layers of the class `plain` that have converted layers, or are converted themselves."""
    if plain in _FORMS:
        return _FORMS[plain]
    quantized = quantized_base(plain)
    bases = (Converted, plain) if quantized is None else (Converted, quantized, plain)
    kind = _FORMS[plain] = type(plain.__name__, bases, {"plain": plain, "__module__": __name__, "__doc__": plain.__doc__})
    # All have one name in files, and the class of that name makes each of them.
    for each in (kind, Converted):
        keras.saving.register_keras_serializable(package="keras_lrsched", name="Converted")(each)
    return kind


def quantized_base(plain: type) -> type | None:
    """The quantized form of the class that `plain` is a subclass of, if it computes as that does; else `None`.

    Of subclasses of attention, the projections are converted.
    """
    for base, quantized in QUANTIZED.items():
        if issubclass(quantized, QuantizedAttention):
            continue
        if plain is not base and issubclass(plain, base):
            return quantized if all(getattr(plain, name) is getattr(base, name) for name in _names(base)) else None
    return None


def _names(base: type) -> list[str]:
    """Names that a subclass may not define: its computation, and where its weights are."""
    return [name for name in ("__call__", "call", "build", "kernel", "embeddings", "quantized_call") if hasattr(base, name)]


def flattened(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and all layers within it, but not what lies within those that have a quantized form; each once, no inputs."""
    found = {layer: None}
    if not isinstance(layer, Quantized) and type(layer) not in QUANTIZED:
        for inner in layer._layers:
            if isinstance(inner, keras.layers.Layer) and not isinstance(inner, keras.layers.InputLayer):
                found.update(dict.fromkeys(flattened(inner)))
    return list(found)


def keep_in_configuration(model: keras.Model) -> None:
    """Let the configuration of a model and of each layer in it have the converted layers within, also where it makes them.

    Whatever does not have them in its configuration gets their recipes and contexts into it. What Keras cannot save at all
    stays as it is.
    """
    for part in reversed(flattened(model)):
        if not isinstance(part, (Quantized, Converted)) and not _has_in_configuration(part):
            convert_in_place(part, saved_form(type(part)))


def _has_in_configuration(part: keras.layers.Layer) -> bool:
    """Whether all converted layers in a layer or model are in its configuration; or no configuration can be made."""
    inside = flattened(part)
    converted = {layer for layer in inside if isinstance(layer, Quantized)}
    if not converted or type(part) in (keras.Sequential, keras_private.functional_model()):
        return True
    known = keras_private.serialized_objects(part)
    for layer in inside:
        if id(layer) in known and isinstance(layer, (Quantized, Converted)):
            converted.difference_update(flattened(layer))
    return not converted or not known


def forget_in_configuration(model: keras.Model) -> None:
    """Undo `keep_in_configuration`."""
    for part in flattened(model):
        if isinstance(part, Converted) and not isinstance(part, Quantized):
            convert_in_place(part, part.plain)


def _records(part: keras.layers.Layer) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            "recipe": None if layer.recipe is None else keras.saving.serialize_keras_object(layer.recipe),
            "context": dataclasses.asdict(layer.context),
        }
        for index, layer in enumerate(flattened(part))
        if isinstance(layer, Quantized)
    ]


def _convert_again(part: keras.layers.Layer, names: Any, records: Any) -> None:
    """Converts the layers that were converted when the configuration was made; once they are there."""
    if _names_within(part) != names and not part.built:
        after_build(part, functools.partial(_convert_again, part, names, records))
        return
    layers = flattened(part)
    if _names_within(part) != names:
        recipes = sorted({get_recipe(record["recipe"]).name for record in records if record["recipe"] is not None})
        raise ValueError(
            f"The layers of {part.name} ({type(part).__name__}) are not those that it was saved with. Make the model as "
            f"before, convert it with `quantize_model` ({', '.join(recipes)}), and load the file with its `load_weights`. "
            f"Received: layers={_names_within(part)}, saved with {names}"
        )
    for record in records:
        layer = layers[record["index"]]
        if not isinstance(layer, Quantized):
            recipe = None if record["recipe"] is None else get_recipe(record["recipe"])
            convert(layer, recipe, LayerContext(**record["context"]))
    if not isinstance(part, (Quantized, Converted)):
        convert_in_place(part, saved_form(type(part)))


def _names_within(part: keras.layers.Layer) -> list[str]:
    return [type(layer).__name__ for layer in flattened(part)]


def convert(layer: keras.layers.Layer, recipe: Recipe | None, context: LayerContext) -> None:
    """Converts one layer, which computes by a recipe from now on or, if it has no weights yet, from when it is built."""
    convert_in_place(layer, QUANTIZED[type(layer)] if type(layer) in QUANTIZED else saved_form(type(layer)))
    if layer.built:
        layer.use(recipe, context)
    else:
        layer.context = context
        after_build(layer, functools.partial(layer.use, recipe, context))


def after_build(layer: keras.layers.Layer, function: Callable[[], None]) -> None:
    """Call a function after a layer has been built."""
    build = layer.build

    @functools.wraps(build)
    def build_first(*args: Any, **kwargs: Any) -> None:
        layer.build = build
        build(*args, **kwargs)
        function()

    layer.build = build_first


def stop_rematerialization(model: keras.Model) -> None:
    """Let no layer that has quantized layers in it be rematerialized as a whole; those beside them still are."""
    for layer in keras_private.layers_of(model):
        if any(isinstance(inner, Quantized) for inner in keras_private.layers_of(layer)):
            vars(layer)["rematerialized_call"] = _called_once


def resume_rematerialization(model: keras.Model) -> None:
    """Undo `stop_rematerialization`."""
    for layer in keras_private.layers_of(model):
        if vars(layer).get("rematerialized_call") is _called_once:
            del vars(layer)["rematerialized_call"]


def _called_once(layer_call: Any, *args: Any, **kwargs: Any) -> Any:
    return layer_call
