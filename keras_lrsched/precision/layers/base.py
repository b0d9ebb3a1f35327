"""What quantized layers share: a recipe, and a product for it."""

import dataclasses
import functools

import keras

from keras_lrsched.precision.layers.product import RuleProduct
from keras_lrsched.precision.recipe import Place, get_recipe

QUANTIZED: dict[type, type] = {}
"""The quantized form of each class of layers."""


def quantizes(plain):
    """A decorator of the quantized form of the class `plain`."""

    def register(kind):
        QUANTIZED[plain] = kind
        kind.plain = plain
        kind.build = _building(plain.build)
        return keras.saving.register_keras_serializable(package="keras_lrsched")(kind)

    return register


def _building(build):
    """`build` of a plain layer with its signature, which Keras looks at, and then the recipe that the layer was made
    with."""

    @functools.wraps(build)
    def build_and_use(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.use(*self._first)

    return build_and_use


class Quantized(keras.layers.Layer):
    """Mixed into a class of Keras layers, before it.

    Args:
        recipe: A `Recipe` or its name. Defaults to `None`: computes as the layer without it.
        place: Where the layer stands in its model, a `Place`.
        *args: As for the layer without it.
        **kwargs: The same.
    """

    plain: type

    def __init__(self, *args, recipe=None, place=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.recipe = None
        self._first = (None if recipe is None else get_recipe(recipe), _place(place))
        self.place = self._first[1]

    def use(self, recipe, place):
        """Switches to a recipe, or with `None` to the precision of the dtype policy. What rules remember is kept."""
        self.place = place
        self.prepare(recipe)
        self.recipe = recipe

    def prepare(self, recipe):
        """Adds what the recipe remembers, if the layer does not have it yet."""
        rule = None if recipe is None else recipe.rule(self.place)
        if rule is None:
            return
        have = getattr(self, _attribute(recipe), None)
        if have is not None and have.rule == rule:
            return
        self._tracker.unlock()
        if have is not None:
            self._drop(have, _attribute(recipe))
        setattr(self, _attribute(recipe), RuleProduct(rule, self.place, self))
        self._tracker.lock()

    def forget(self):
        """Drops all that recipes remember."""
        self._tracker.unlock()
        for name in [name for name in dir(self) if name.startswith("product_of_")]:
            self._drop(getattr(self, name), name)
        self._tracker.lock()

    def _drop(self, product, name):
        delattr(self, name)
        self._tracker.untrack(product)

    @property
    def product(self):
        """The layer that multiplies, or `None` where the recipe leaves this layer as it is."""
        return None if self.recipe is None else getattr(self, _attribute(self.recipe), None)

    def get_config(self):
        recipe = None if self.recipe is None else keras.saving.serialize_keras_object(self.recipe)
        return {**super().get_config(), "recipe": recipe, "place": dataclasses.asdict(self.place)}


def _attribute(recipe):
    return f"product_of_{recipe.name}"


def _place(place):
    return place if isinstance(place, Place) else Place(**(place or {}))
