"""Sharpness-aware minimization: the gradient is taken where the loss nearby is highest."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._multi_pass_model import MultiPassModel, Pass, State
from keras_lrsched.optimizers._numerics import global_norm


@register(
    title="sharpness-aware minimization, and its adaptive form",
    paper="arXiv:2010.01412",
    code=("davda54/sam",),
    checked="trajectory",
    against="davda54/sam",
    deviations="the authors' code was not run",
    kind="model",
)
class SharpnessAware(MultiPassModel):
    """SAM: a model that is trained towards flat minima, with any optimizer and at twice the cost of a step.

        e = rho g(w) / (|g(w)| + 1e-12)
        w = the optimizer's update of w with the gradient g(w + e)

    With `adaptive`, which is ASAM, e = rho w^2 g(w) / (|| |w| g(w) || + 1e-12), so that it does not depend on how the scale
    is shared among layers. Norms are over all weights together.

    It is a model around the given one, to be compiled and fitted in its place; the weights are the same, so that `model`
    can be evaluated, saved and used on its own afterwards. Both passes see the same dropout; BatchNorm's statistics, the
    loss and metrics are those of the first. The scale of a `LossScaleOptimizer` is taken off before e is computed. Under
    gradient accumulation, e is that of a micro-batch. Gradients of embeddings are dense.

    Args:
        model: A model with Keras' own training step and loss.
        rho: The length of e, above 0. Defaults to `0.05`; with `adaptive` it is usually larger: `2.0` in the README of
            davda54/sam, `0.5` in the paper (from memory).
        adaptive: Whether e is larger for larger weights. Defaults to `False`.
        name: As in Keras.

    Raises:
        ValueError: If an argument is out of its range, or if the model has a preprocessor, or a `fit`, `train_step`,
            `compute_loss` or the like of its own. In training, if there is more than one replica of `tf.distribute`.

    Reference:
        Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, arXiv:2010.01412; Kwon et al.,
        ASAM, arXiv:2102.11600. Trajectories agree with davda54/sam; the authors' code was not run.

    Example:

    >>> import numpy as np
    >>> weight = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    >>> model = keras.Sequential([keras.Input((1,)), weight])
    >>> sam = SharpnessAware(model, rho=0.5)
    >>> sam.compile(keras.optimizers.SGD(0.125), loss="mse")
    >>> history = sam.fit(np.ones((4, 1)), np.zeros((4, 1)), verbose=0)
    >>> model.get_weights()[0].item()  # w^2 has the slope 3 at w = 1.5
    0.625
    """

    def __init__(self, model: keras.Model, rho: float = 0.05, adaptive: bool = False, name: str | None = None) -> None:
        super().__init__(model, name)
        self.rho = validation.positive_float("rho", rho)
        self.adaptive = bool(adaptive)

    def gradients(self, values: Sequence[Tensor], state: State, batch: Any) -> Pass:
        here = self.evaluate_at(values, state, batch)
        there = self.evaluate_at(self._moved(values, here), state, batch)
        return here._replace(gradients=there.gradients)

    def _moved(self, values: Sequence[Tensor], here: Pass) -> list[Tensor]:
        present = {i: wide(gradient) / here.scale for i, gradient in enumerate(here.gradients) if gradient is not None}
        w = {i: wide(values[i]) for i in present}
        if self.adaptive:
            step = {i: ops.square(w[i]) * g for i, g in present.items()}
            length = global_norm([ops.abs(w[i]) * g for i, g in present.items()])
        else:
            step, length = present, global_norm([*present.values()])
        moved = {i: ops.cast(w[i] + self.rho / (length + 1e-12) * step[i], values[i].dtype) for i in present}
        return [moved.get(i, value) for i, value in enumerate(values)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rho": self.rho, "adaptive": self.adaptive}
