"""ALLoRA: factors of LoRA whose learning rate depends on the norm of what they add."""

from typing import Any

import keras
from keras import ops

from keras_lrsched._core import keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor


@register(
    title="LoRA with learning rates by the norms of outputs",
    paper="arXiv:2410.09692",
    checked="memory",
    against="numbers of the formula; neither the paper's text nor code was at hand",
    deviations="the exponent of the norm is from memory",
    kind="layer",
)
class ALLoRADense(keras.layers.Dense):
    """A `Dense` layer whose factors of LoRA learn fast while they are small:

        kernel = W + A B;   the gradient in column i of A B times 1 / sqrt(|(A B)_i| + 1 / eta^2)

    The factor is eta at first, where B is 0, and falls as the norm of what is added to output i grows; no gradient goes
    through it. So dropout is left out, and A B is not scaled, the default of `enable_lora(rank)`. The rule holds
    for both factors, by the chain rule, with any optimizer; with those that normalize gradients, such as Adam, what is
    left of it are its proportions among outputs. Without `enable_lora` it is a `Dense` layer.

    Args:
        units: As in `keras.layers.Dense`.
        eta: The largest factor, above 0. Defaults to `2.0`.
        **options: Other arguments of `keras.layers.Dense`.

    Raises:
        ValueError: If `eta` is out of its range.

    Reference:
        Huang and Balestriero, ALLoRA: Adaptive Learning Rate Mitigates LoRA Fatal Flaws, arXiv:2410.09692, from memory.

    Example:

    >>> layer = ALLoRADense(1, use_bias=False, eta=3.0, kernel_initializer="ones")
    >>> model = keras.Sequential([keras.Input((1,)), layer])
    >>> layer.enable_lora(1, a_initializer="ones")
    >>> model.compile(keras.optimizers.SGD(0.5), loss=lambda y, y_pred: y_pred)
    >>> history = model.fit(keras.ops.ones((1, 1)), keras.ops.ones((1, 1)), verbose=0)
    >>> layer.lora_kernel_b.numpy().item()  # 3 times as far
    -1.5
    """

    def __init__(self, units: int, *, eta: float = 2.0, **options: Any) -> None:
        super().__init__(units, **options)
        self.eta = validation.positive_float("eta", eta)

    @property
    def kernel(self) -> Any:
        if not getattr(self, "lora_enabled", False):
            return super().kernel
        product = ops.matmul(self.lora_kernel_a, self.lora_kernel_b)
        return keras_private.kernel_without_adapter(self) + (self.lora_alpha / self.lora_rank) * self._scaled(product)

    def _scaled(self, product: Tensor) -> Tensor:
        """The product itself, with its gradient scaled in each column."""
        fixed = ops.stop_gradient(product)
        scale = ops.rsqrt(ops.sqrt(ops.sum(ops.square(fixed), axis=0)) + 1 / self.eta**2)
        return fixed + scale * (product - fixed)  # the second part is 0

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "eta": self.eta}
