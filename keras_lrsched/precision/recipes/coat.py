"""COAT: FP8 products whose inputs are kept in FP8 for the backward pass."""

import dataclasses

from keras_lrsched.precision.operand import Cast
from keras_lrsched.precision.product import Product, Products
from keras_lrsched.precision.recipe import Recipe, register


@register
@dataclasses.dataclass(frozen=True)
class Coat(Recipe):
    """COAT: inputs and kernels in E4M3 with a scale for each tensor; backward products start from the written numbers.

    The gradient of the outputs is E5M2. The other half of the method, the optimizer's state in 8 bits, is
    `QuantizedState(optimizer, "coat")`. Inputs and kernels are kept for the backward pass in one byte a number. Activations
    of layers without a product stay as they are.

    Args:
        head: Whether heads compute in FP8, too. Defaults to `False`.

    Reference:
        Xi et al., COAT: Compressing Optimizer states and Activation for Memory-Efficient FP8 Training, arXiv:2410.19313; the
        authors' code, NVlabs/COAT, was read, not run.

    Example:

    >>> from keras_lrsched.precision import Place
    >>> Coat().rule(Place()).saved
    'written'
    """

    head: bool = False

    def rule(self, place):
        if place.role == "head" and not self.head:
            return None
        narrow, wide = Cast("FP8_E4M3"), Cast("FP8_E5M2")
        # What was written is in E4M3 already, and written again has the same numbers.
        return Products(Product(narrow, narrow), Product(wide), Product(right=wide), saved="written")
