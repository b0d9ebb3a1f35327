"""Recipes: which product of which layer is computed in which formats."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import keras

from keras_lrsched._core import registry, validation
from keras_lrsched.precision._gemms import Rule

ROLES = ("linear", "attention", "convolution", "head")
KIND = "recipe"


@dataclasses.dataclass(frozen=True)
class LayerContext:
    """The position of a layer in its model.

    Attributes:
        role: `"attention"`: a projection of an attention layer; `"convolution"`; `"head"`: the last of these layers, whose
            outputs are the model's, and every layer that shares its kernel with an embedding; `"linear"`: any other.
        index: The number of the layer among those of the model that can be quantized, from 0.
        count: The number of these layers.
        seed: Of the random numbers of this layer.
    """

    role: str = "linear"
    index: int = 0
    count: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        validation.one_of("role", self.role, ROLES)

    def part(self, number: int) -> "LayerContext":
        """The context of a layer within this one, which has random numbers of its own."""
        return dataclasses.replace(self, seed=self.seed + 0x10000 * (number + 1))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A rule for each layer of a model: how it computes its three products in low precision.

    A subclass is a frozen dataclass with its settings as fields. It defines `rule`, which returns `LinearGemms`, another
    `Rule`, or `None`. The decorator `register` gives it a name for `get_recipe`, and makes it loadable with a saved model.

    Example:

    >>> import keras
    >>> from keras_lrsched.precision import Cast, GemmSpec, LinearGemms, quantize_model, register
    >>>
    >>> @register("my_mxfp6", title="MXFP6 forward, FP8 backward", kind="recipe")
    ... @dataclasses.dataclass(frozen=True)
    ... class MyMXFP6(Recipe):
    ...     first: bool = False  # whether the first layer is quantized, too
    ...
    ...     def rule(self, context):
    ...         if context.role == "head" or (context.index == 0 and not self.first):
    ...             return None
    ...         forward, gradient = Cast("MXFP6_E2M3"), Cast("FP8_E5M2", rounding="stochastic")
    ...         return LinearGemms(
    ...             fprop=GemmSpec(forward, forward), dgrad=GemmSpec(gradient, forward), wgrad=GemmSpec(forward, gradient)
    ...         )
    >>>
    >>> model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32), keras.layers.Dense(32), keras.layers.Dense(4)])
    >>> len(quantize_model(model, "my_mxfp6:first=true").quantized)
    2
    """

    @property
    def name(self) -> str:
        """The name in the registry; that of the class for a recipe that is not registered."""
        return _name_of(type(self))

    def rule(self, context: LayerContext) -> Rule | None:
        """The `Rule` of a layer; `None` for one that stays as it is."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**_tuples(config))


def recipe_names() -> list[str]:
    """The names of all recipes, sorted.

    Example:

    >>> "mxfp8" in recipe_names()
    True
    """
    return registry.names("precision", KIND)


def get_recipe(recipe: "str | Mapping[str, Any] | Recipe", **settings: Any) -> Recipe:
    """Return a recipe by its name, or a `Recipe` with some of its settings changed.

    Args:
        recipe: `"name"` or `"name:option=value:option=value"`, where values are JSON or plain words; a `Recipe`; or the
            configuration that Keras made of one.
        **settings: Fields of the recipe.

    Raises:
        ValueError: If there is no such recipe or setting, with the nearest names; or if a setting is out of its range.

    Example:

    >>> get_recipe("quest", bits=2)
    Quest(bits=2, head=False)
    >>> get_recipe("fp4_dge:quantile=0.98")
    FP4DGE(quantile=0.98, head=False)
    """
    if isinstance(recipe, Mapping):
        recipe = keras.saving.deserialize_keras_object(recipe)
    if isinstance(recipe, Recipe):
        _check_settings(type(recipe), settings)
        return dataclasses.replace(recipe, **settings)
    if not isinstance(recipe, str):
        raise ValueError(f"`recipe` must be a `Recipe` or the name of one. Received: recipe={recipe!r}")
    name, options = registry.parse(recipe)
    entry = next((each for each in registry.entries("precision", KIND) if each.name == name), None)
    if entry is None:
        raise ValueError(
            f"`recipe` must be a `Recipe` or the name of one. {registry.did_you_mean(name, recipe_names())} "
            f"Received: recipe={recipe!r}"
        )
    settings = {**entry.options, **_tuples(options), **settings}
    _check_settings(entry.target, settings)
    return entry.target(**settings)


def _check_settings(kind: type[Recipe], settings: Mapping[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise ValueError(
            f"The recipe {_name_of(kind)!r} has no setting {unknown[0]!r}. "
            f"{registry.did_you_mean(unknown[0], known) if known else 'It has none.'} Received: {dict(settings)!r}"
        )


def _tuples(config: Mapping[str, Any]) -> dict[str, Any]:
    """Lists, which JSON has in place of tuples, as tuples again."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}


def _name_of(kind: type[Recipe]) -> str:
    entries = registry.entries("precision", KIND)
    return next((entry.name for entry in entries if entry.target is kind and entry.name), kind.__name__)
