"""Sharpness-aware minimization: the gradient is taken where the loss nearby is highest."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._multi_pass_model import MultiPassModel, Pass, State
from keras_lrsched.optimizers._numerics import global_norm


@register(
    title="sharpness-aware minimization, its adaptive and its friendly form",
    paper="arXiv:2010.01412",
    code=("davda54/sam", "nblt/F-SAM"),
    checked="trajectory",
    against="davda54/sam",
    deviations="the authors' code was not run, that of the friendly form was read",
    kind="model",
)
class SharpnessAware(MultiPassModel):
    """SAM: a model that is trained towards flat minima, with any optimizer and at twice the cost of a step.

        e = rho g(w) / (|g(w)| + 1e-12)
        w = the optimizer's update of w with the gradient g(w + e)

    With `adaptive`, which is ASAM, e = rho w^2 g(w) / (|| |w| g(w) || + 1e-12), so that it does not depend on how the scale
    is shared among layers. With `friendly`, which is F-SAM, e is of d in the place of g(w):

        d = g(w) - sigma m;  m = momentum m + (1 - momentum) g(w)          at first d = m = g(w)

    so that it leaves out what the gradients of all batches share. Norms are over all weights together.

    It is a model around the given one, to be compiled and fitted in its place; the weights are the same, so that `model`
    can be evaluated, saved and used on its own afterwards. Both passes see the same dropout; BatchNorm's statistics, the
    loss and metrics are those of the first. The scale of a `LossScaleOptimizer` is taken off before e is computed. Under
    gradient accumulation, e is that of a micro-batch. Gradients of embeddings are dense. State: none; with `friendly`, one
    float32 number for each parameter, among the weights of this model that are not trained.

    Args:
        model: A model with Keras' own training step and loss.
        rho: The length of e, above 0, or a `LearningRateSchedule`, which counts updates. Defaults to `0.05`; with `adaptive`
            it is usually larger: `2.0` in the README of davda54/sam, `0.5` in the paper (from memory).
        adaptive: Whether e is larger for larger weights. Defaults to `False`.
        friendly: Whether e leaves out the mean of earlier gradients. The model must be built. Defaults to `False`.
        sigma: How much of that mean, with `friendly`, at least 0. Defaults to `1.0`.
        momentum: Decay rate of that mean, at least 0 and below 1. Defaults to `0.9`.
        name: As in Keras.

    Raises:
        ValueError: If an argument is out of its range, or if the model has a preprocessor, or a `fit`, `train_step`,
            `compute_loss` or the like of its own. In training, if there is more than one replica of `tf.distribute`.

    Reference:
        Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, arXiv:2010.01412; Kwon et al.,
        ASAM, arXiv:2102.11600; Li et al., Friendly Sharpness-Aware Minimization, arXiv:2403.12350. Trajectories agree with
        davda54/sam; the authors' code was not run, that of the friendly form, nblt/F-SAM, was read.

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

    def __init__(
        self,
        model: keras.Model,
        rho: float | LearningRateSchedule = 0.05,
        adaptive: bool = False,
        name: str | None = None,
        friendly: bool = False,
        sigma: float = 1.0,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(model, name)
        is_schedule = isinstance(rho, keras.optimizers.schedules.LearningRateSchedule)
        self.rho = rho if is_schedule else validation.positive_float("rho", rho)
        self.adaptive = bool(adaptive)
        self.friendly = bool(friendly)
        self.sigma = validation.non_negative_float("sigma", sigma)
        self.momentum = validation.beta("momentum", momentum)
        self._means: list = []  # and a number that is 1 from the first gradient on
        if self.friendly:
            if not model.built:
                raise ValueError("`friendly` needs a model that is built: call it on data first. Received: friendly=True")
            shapes = [(), *(tuple(variable.shape) for variable in model.trainable_variables)]
            self._means = [
                self.add_weight(shape=shape, initializer="zeros", trainable=False, dtype="float32", name=f"mean_{i}")
                for i, shape in enumerate(shapes)
            ]

    def gradients(self, values: Sequence[Tensor], state: State, batch: Any) -> Pass:
        here = self.evaluate_at(values, state, batch)
        present = {i: wide(gradient) / here.scale for i, gradient in enumerate(here.gradients) if gradient is not None}
        if self.friendly:
            present, here = self._without_mean(present, here, state)
        there = self.evaluate_at(self._moved(values, present, state), state, batch)
        return here._replace(gradients=there.gradients)

    def _without_mean(self, g: dict[int, Tensor], here: Pass, state: State) -> tuple[dict[int, Tensor], Pass]:
        """The gradients without the mean of earlier ones, and the pass with that mean in its state."""
        places = {id(variable): place for place, (variable, _) in enumerate(state)}
        started, *means = [places[id(mean)] for mean in self._means]
        is_first, new = ops.equal(state[started][1], 0), list(here.state)
        d = {}
        for i, gradient in g.items():
            m = state[means[i]][1]
            d[i] = ops.where(is_first, gradient, gradient - self.sigma * m)
            new[means[i]] = ops.where(is_first, gradient, self.momentum * m + (1 - self.momentum) * gradient)
        new[started] = ops.ones_like(state[started][1])
        return d, here._replace(state=new)

    def _moved(self, values: Sequence[Tensor], present: dict[int, Tensor], state: State) -> list[Tensor]:
        w = {i: wide(values[i]) for i in present}
        if self.adaptive:
            step = {i: ops.square(w[i]) * g for i, g in present.items()}
            length = global_norm([ops.abs(w[i]) * g for i, g in present.items()])
        else:
            step, length = present, global_norm([*present.values()])
        factor = self._radius(state) / (length + 1e-12)
        moved = {i: ops.cast(w[i] + factor * step[i], values[i].dtype) for i in present}
        return [moved.get(i, value) for i, value in enumerate(values)]

    def _radius(self, state: State) -> Any:
        if isinstance(self.rho, float):
            return self.rho
        with keras.StatelessScope(state):
            done = ops.convert_to_tensor(self.optimizer.iterations)
        return ops.cast(self.rho(done), "float32")

    def get_config(self) -> dict[str, Any]:
        rho = self.rho if isinstance(self.rho, float) else keras.saving.serialize_keras_object(self.rho)
        names = ("adaptive", "friendly", "sigma", "momentum")
        return {**super().get_config(), "rho": rho, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        rho = config["rho"]
        if isinstance(rho, dict):
            rho = keras.saving.deserialize_keras_object(rho, custom_objects=custom_objects)
        return super().from_config({**config, "rho": rho}, custom_objects)
