"""Recipes: which product of which layer is computed in which formats."""

import dataclasses
import difflib
import re
from typing import ClassVar

import keras

from keras_lrsched._core import validation
from keras_lrsched.precision._gemms import Rule

ROLES = ("linear", "attention", "convolution", "head")


@dataclasses.dataclass(frozen=True)
class LayerContext:
    """Where a layer stands in its model.

    Attributes:
        role: `"attention"`: a projection of an attention layer; `"convolution"`; `"head"`: the last of these layers, whose
            outputs are the model's, and every layer that shares its kernel with an embedding; `"linear"`: any other.
        index: Its number among the layers of a model that can be quantized, from 0.
        count: How many these are.
        seed: Of the random numbers of this layer.
    """

    role: str = "linear"
    index: int = 0
    count: int = 1
    seed: int = 0

    def __post_init__(self):
        validation.one_of("role", self.role, ROLES)

    def part(self, number):
        """The context of a layer within this one, which has random numbers of its own."""
        return dataclasses.replace(self, seed=self.seed + 0x10000 * (number + 1))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the layers of a model compute in low precision. A subclass defines `rule`, and has its settings as fields."""

    name: ClassVar[str] = ""

    def rule(self, context) -> Rule | None:
        """The `Rule` of a layer at a `LayerContext`; `None` for one that stays as it is."""
        raise NotImplementedError

    def get_config(self):
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_config(cls, config):
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in config.items()})


RECIPES: dict[str, type[Recipe]] = {}
"""The recipes by name; see the module `recipes`."""


def register(recipe):
    """A decorator: names a recipe after its class, in snake case, and lets Keras save it."""
    recipe.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", recipe.__name__).lower()
    RECIPES[recipe.name] = recipe
    return keras.saving.register_keras_serializable(package="keras_lrsched")(recipe)


def get_recipe(recipe, **settings):
    """A recipe by its name, or a `Recipe` as it is.

    Args:
        recipe: A key of `RECIPES`, a `Recipe`, or the configuration that Keras made of one.
        **settings: Fields of the recipe.

    Raises:
        ValueError: If there is no such recipe; the message lists those that there are.

    Example:

    >>> get_recipe("quest", bits=2)
    Quest(bits=2, head=False)
    """
    if isinstance(recipe, dict):
        recipe = keras.saving.deserialize_keras_object(recipe)
    if isinstance(recipe, Recipe):
        return dataclasses.replace(recipe, **settings)
    if not isinstance(recipe, str) or recipe not in RECIPES:
        close = difflib.get_close_matches(str(recipe).lower(), RECIPES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(
            f"`recipe` must be a `Recipe` or one of {', '.join(sorted(RECIPES))}{hint} Received: recipe={recipe!r}"
        )
    return RECIPES[recipe](**settings)
