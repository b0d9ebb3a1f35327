"""The base of quantized layers: a recipe, and a product for it."""

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from keras_lrsched._core import keras_private, training_loop
from keras_lrsched.precision._gemms import Rule
from keras_lrsched.precision.layers._gemm_layer import GemmLayer
from keras_lrsched.precision.recipe import LayerContext, Recipe, get_recipe

QUANTIZED: dict[type, type] = {}
"""The quantized form of each class of layers."""


def quantizes(plain: Any) -> Callable[[Any], Any]:
    """A decorator of the quantized form of the class `plain`.

    The form has the `__name__` of the class, since files of weights are laid out by it: those of either load into the other.
    """

    def register(kind: Any) -> Any:
        QUANTIZED[plain] = kind
        kind.plain = plain
        kind.__signature__ = _with_recipe(inspect.signature(plain))
        kind.build = _building(plain.build)
        if hasattr(plain, "kernel"):
            kind.kernel = _read_in_calls(plain.kernel)
        name, kind.__name__ = kind.__name__, plain.__name__
        return keras.saving.register_keras_serializable(package="keras_lrsched", name=name)(kind)

    return register


def _with_recipe(signature: inspect.Signature) -> inspect.Signature:
    """The signature of a plain layer, with the arguments of `Quantized`."""
    own = [inspect.signature(Quantized.__init__).parameters[name] for name in ("recipe", "context")]
    parameters = list(signature.parameters.values())
    end = len(parameters) - (parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
    return signature.replace(parameters=[*parameters[:end], *own, *parameters[end:]])


def _building(build: Any) -> Any:
    """`build` of a plain layer with its signature, which Keras looks at, and then the recipe that the layer was made
    with."""

    @functools.wraps(build)
    def build_and_use(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        self.use(*self._first)

    return build_and_use


def _read_in_calls(kernel: Any) -> Any:
    """The property `kernel` of a plain layer, with a warning where the call of a layer around reads it."""

    def read(self: Any) -> Any:
        if self.gemm is not None and keras_private.is_calling():
            warnings.warn(
                f"A layer around {self.path} reads its kernel. A product that it takes itself does not follow "
                f"{self.recipe.name}: if so, name it in `keep` of `quantize_model`.",
                stacklevel=2,
            )
        return kernel.fget(self)

    return property(read, doc=kernel.__doc__)


class Quantized(keras.layers.Layer):
    """Mixed into a class of Keras layers, before it.

    What recipes remember is not among the `weights` of a layer, but among its `variables`, as seeds of random numbers are.
    Variables that a recipe trains are among both, after the weights of the whole model.

    Args:
        recipe: A `Recipe` or its name. Defaults to `None`: computes as the layer without it.
        context: Where the layer stands in its model, a `LayerContext`.
        *args: As for the layer without it.
        **kwargs: The same.
    """

    plain: type

    def __init__(
        self,
        *args: Any,
        recipe: str | Mapping[str, Any] | Recipe | None = None,
        context: LayerContext | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.recipe: Recipe | None = None
        self._first = (None if recipe is None else get_recipe(recipe), _context(context))
        self.context = self._first[1]

    def use(self, recipe: Recipe | None, context: LayerContext) -> None:
        """Switch to a recipe, or with `None` to the precision of the dtype policy. Variables of rules stay."""
        self.context = context
        self.prepare(recipe)
        self.recipe = recipe
        if recipe is not None and self.gemm is not None:
            self.__dict__[_memory(recipe)] = self.gemm  # under which files store it

    def prepare(self, recipe: Recipe | None) -> None:
        """Add the variables of the recipe, if the layer does not have it yet.

        A recipe with other settings goes on with the variables of the one before that have the same name, shape and dtype.
        """
        if recipe is None:
            return
        rule = recipe.rule(self.context)
        if rule is None or self._gemm_by(recipe, rule) is not None:
            return
        known = self.gemm_of(recipe)
        product = GemmLayer(rule, self.context, self, known)
        kept = {id(variable) for variable in product.variables}
        lost = (
            []
            if known is None
            else [each.name for each in keras_private.own_trainable_variables(known) if id(each) not in kept]
        )
        if lost:
            message = f"{self.path}: {', '.join(lost)} do not fit the new settings of {recipe.name} and start anew."
            warnings.warn(message, stacklevel=2)
        for variable in product.variables:
            keras_private.list_last(variable)
        # Not by `setattr`: what Keras tracks counts among the layers of the model.
        self.__dict__.setdefault("_made", _Made()).gemms.append((recipe.name, product))
        self.__dict__.setdefault(_memory(recipe), product)

    def gemm_of(self, recipe: Recipe) -> GemmLayer | None:
        """The layer that multiplies by a recipe of this name, or `None` if there was none yet."""
        return vars(self).get(_memory(recipe))

    def forget(self) -> None:
        """Drops all that recipes remember."""
        for name in [name for name in vars(self) if name.startswith(_MEMORY) or name == "_made"]:
            del self.__dict__[name]

    @property
    def gemm(self) -> Any:
        """The layer that multiplies, or `None` where the recipe leaves this layer as it is."""
        recipe = self.recipe
        rule = None if recipe is None else recipe.rule(self.context)
        return None if recipe is None or rule is None else self._gemm_by(recipe, rule)

    def __dir__(self) -> list[str]:
        # Files have it once, under the name of its recipe.
        return [name for name in super().__dir__() if name != "gemm"]

    def _gemm_by(self, recipe: Recipe, rule: Rule) -> GemmLayer | None:
        return next((each for name, each in self.gemms() if name == recipe.name and each.rule == rule), None)

    def gemms(self) -> list[tuple[str, GemmLayer]]:
        """Pairs of the name of a recipe and a layer that multiplies by it."""
        return self._made.gemms if "_made" in vars(self) else []

    @property
    def recipe_variables(self) -> list[Any]:
        """Variables that recipes have added, each once."""
        return list({id(variable): variable for _, product in self.gemms() for variable in product.variables}.values())

    @property
    def variables(self) -> list[Any]:
        return [*super().variables, *self.recipe_variables]

    @property
    def weights(self) -> list[Any]:
        # Keras' own steps differentiate by `trainable_weights`.
        trained = {
            id(variable): variable
            for _, product in self.gemms()
            for variable in keras_private.own_trainable_variables(product)
        }
        return [*super().weights, *trained.values()]

    @property
    def trainable(self) -> bool:
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)
        for _, product in self.gemms():
            product.trainable = value

    def get_config(self) -> dict[str, Any]:
        recipe = None if self.recipe is None else keras.saving.serialize_keras_object(self.recipe)
        return {**super().get_config(), "recipe": recipe, "context": dataclasses.asdict(self.context)}


def convert_in_place(layer: keras.layers.Layer, kind: type) -> None:
    """Makes a layer one of another class, which differs in what it computes only."""
    training_loop.set_class(layer, kind)
    if not issubclass(kind, Quantized):
        for name in ("recipe", "context"):
            layer.__dict__.pop(name, None)
    elif "recipe" not in vars(layer):
        layer.recipe = None


def recipe_gemms(model: keras.Model) -> list[GemmLayer]:
    """The layers that multiply by recipes in a model, those of other recipes than the present one included."""
    quantized = [layer for layer in keras_private.layers_of(model) if isinstance(layer, Quantized)]
    return [product for layer in quantized for _, product in layer.gemms()]


_MEMORY = "memory_of_"
"""Prefix of the attributes that hold the state of a recipe, which Keras saves by the names of attributes."""


def _memory(recipe: Recipe) -> str:
    return f"{_MEMORY}{recipe.name}"


class _Made:
    """The products of a layer, for each recipe and its settings. An object that Keras neither tracks nor saves."""

    def __init__(self) -> None:
        self.gemms: list[tuple] = []


def _context(context: "LayerContext | Mapping[str, Any] | None") -> LayerContext:
    return context if isinstance(context, LayerContext) else LayerContext(**(context or {}))


def add_adapter(layer: keras.layers.Layer, outputs: Any, adapter: Any) -> Any:
    """`outputs` with those of the low-rank adapter of a layer, which has the compute dtype, if there is one.

    outputs + lora_alpha / lora_rank adapter()
    """
    if not layer.lora_enabled:
        return outputs
    return ops.add(outputs, ops.cast(layer.lora_alpha / layer.lora_rank * adapter(), outputs.dtype))
