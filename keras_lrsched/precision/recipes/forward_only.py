"""Another recipe's forward product, with backward products as they are."""

import dataclasses
from typing import Any

import keras

from keras_lrsched._core.registry import register
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision.recipe import LayerContext, Recipe, get_recipe


@register(
    "forward_only",
    title="another recipe's forward product, exact backward products",
    paper="arXiv:2505.19115",
    checked="read",
    against="the paper",
    deviations="any recipe of three products, not NVFP4 alone",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class ForwardOnly(Recipe):
    """The forward product of another recipe, and exact backward products of the numbers that were quantized forward.

    It finishes a training in low precision, as in quantization-aware training, before the model is used in these.

    Args:
        recipe: A `Recipe` or its name. Defaults to `"nvfp4"`.

    Raises:
        ValueError: If `recipe` is none, or has a rule that is not three products.

    Reference:
        Chmiel et al., FP4 All the Way: Fully Quantized Training of LLMs, arXiv:2505.19115.

    Example:

    >>> from keras_lrsched.precision import LayerContext
    >>> ForwardOnly("int8_jetfire").rule(LayerContext()).fprop.left.format
    'INT8_BLOCK32X32'
    """

    recipe: str | Recipe = "nvfp4"

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", get_recipe(self.recipe))

    def rule(self, context: LayerContext) -> Rule | None:
        rule = get_recipe(self.recipe).rule(context)
        if rule is None:
            return None
        if not isinstance(rule, LinearGemms):
            raise ValueError(f"`recipe` must have three products for each layer. Received: recipe={self.recipe!r}")
        return LinearGemms(rule.fprop, GemmSpec(), GemmSpec(), residuals="quantized")

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(keras.saving.deserialize_keras_object(config["recipe"]))
