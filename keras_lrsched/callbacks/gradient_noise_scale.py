"""The gradient noise scale: the batch size above which a larger one helps little (McCandlish et al. 2018)."""

import math
from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.callbacks._batch_size import MicroBatchController, unbiased


@register(
    title="Gradient noise scale",
    paper="arXiv:1812.06162",
    code=("EleutherAI/gpt-neox",),
    checked="read",
    against="the formulas of appendix A",
    deviations=(
        "uses the mean over all small batches, where gpt-neox takes the last one alone and corrects the averages by "
        "a counter of other steps"
    ),
    kind="recorder",
)
class GradientNoiseScale(MicroBatchController):
    """Estimate of the simple noise scale of the gradient:

        B_simple = S / |G|^2

    S is the variance of the gradient of one sample, summed over all weights, and G the true gradient. From the squared
    norms at batch sizes b and B, at the same weights:

        |G|^2 = (B |g_B|^2 - b |g_b|^2) / (B - b),   S = (|g_b|^2 - |g_B|^2) / (1/b - 1/B)

    The small batches are those that `fit` draws, and the large one is what the optimizer accumulates of them: construct it
    with `gradient_accumulation_steps` of at least 2. |g_b|^2 is the mean over all of them. Numerator and denominator are
    averaged before they are divided, since each by itself is noisy; while the average of |G|^2 is not positive, the scale
    is NaN.

    The last value of an epoch goes into `logs` as `gradient_noise_scale`. Where several processes train together, all sizes
    and norms are those of the whole batch.

    Args:
        momentum: Of the exponential averages, at least 0 and below 1: 0.99 averages over some 100 updates. Defaults to
            `0.99`.

    Attributes:
        noise_scale: B_simple now, in samples.
        history: A list of `[update, noise_scale]`, one an update.

    Raises:
        ValueError: At construction, if `momentum` is out of its range; when `fit` begins, if the optimizer accumulates no
            gradients.

    Reference: arXiv:1812.06162, the formulas of its appendix A. Of public implementations, EleutherAI/gpt-neox was read: it
    takes the last small batch alone for |g_b|^2, and corrects the averages by a counter of other steps.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile(keras.optimizers.SGD(0.01, gradient_accumulation_steps=4), loss="mse")
    >>> noise = GradientNoiseScale()
    >>> history = model.fit(np.ones((8, 1)), np.ones((8, 1)), batch_size=1, verbose=0, callbacks=[noise])
    >>> noise.noise_scale  # all samples are alike
    0.0
    """

    saved = ("sizes", "history", "square", "variance")

    def __init__(self, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = validation.beta("momentum", momentum)
        self.square = self.variance = 0.0
        self.history: list[list[float]] = []

    @property
    def noise_scale(self) -> float:
        return self.variance / self.square if self.square > 0 else math.nan

    def after_statistics(self, small_square: float, big_square: float, small_batch: float, big_batch: float) -> None:
        square, variance = unbiased(small_square, big_square, small_batch, big_batch)
        # Both start from 0, which divides out.
        self.square += (1 - self.momentum) * (square - self.square)
        self.variance += (1 - self.momentum) * (variance - self.variance)
        self.history.append([self.applied() // self.accumulation_steps, self.noise_scale])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if logs is not None:
            logs["gradient_noise_scale"] = self.noise_scale
