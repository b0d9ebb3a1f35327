"""OASIS: gradient descent over the diagonal of the Hessian, with a step size from the change of gradients."""

from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import ops

from keras_lrsched._core import keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._d_adaptation import ratio, warn_unless_near_one
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._numerics import average, dot
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer

UNLIMITED = 1e10
"""The growth of the step size before there is one, as in public implementations."""


@register(
    "oasis",
    title="steps over the curvature, as long as gradients change slowly",
    paper="arXiv:2109.05198",
    checked="memory",
    against="an own script of the formulas, which were read in two public implementations",
    deviations="the paper itself was not at hand; the first estimate is the first diagonal, where these average several",
    kind="optimizer",
)
class OASIS(Optimizer):
    """Gradient descent, scaled by an average of the diagonal of the Hessian, with a step size from its smoothness.

        D = beta_2 D + (1 - beta_2) estimate;  A = max(|D|, alpha)
        k = min(sqrt(1 + q) k, 0.5 ||w - w of the update before||_A / ||g - g of the update before||_(1 / A))
        q = k / (k of the update before)
        w = w - lr k (g / A + weight_decay w)

    ||x||_A^2 is the sum of A x^2 over all variables. The first k is `initial_step`; where gradients or weights have not
    changed, k stays. Leave the learning rate at 1; a schedule multiplies the steps. Weight decay is no part of the change
    of w.

    Estimates of the diagonal, z (H z) with random signs z, and the last gradient, which is that of the batch of this update
    at the weights of the update before, have to come from outside of the optimizer. In `fit`, train an `OASISModel`, at
    three times the cost of a step; in a loop of one's own, call `update_hessian` and `set_last_gradients`. Without an
    estimate D is 1. Without last gradients those of the update before are taken, which is right if each batch has all
    samples. All variables share k, whatever their shapes. State: three float32 numbers for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments; a number outside [0.1, 10] is
            warned of. Defaults to `1.0`.
        initial_step: The first k, above 0. Defaults to `1e-3`.
        beta_2: Decay rate of the estimates, at least 0 and below 1. Defaults to `0.999`.
        alpha: The least A, above 0. Defaults to `1e-5`.
        initial_hessian: The first D, above 0. Defaults to `None`, for the first estimate.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`. The `seed` is that of z, too.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Jahani et al., Doubly Adaptive Scaled Algorithm for Machine Learning Using Second-Order Information,
        arXiv:2109.05198. Trajectories agree with an own script of the formulas, which were read in two public
        implementations; the paper itself was not at hand.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> optimizer = OASIS(initial_step=0.1)
    >>> for _ in range(2):
    ...     optimizer.apply([w * keras.ops.array([1.0, 4.0])], [w])
    >>> w.numpy().round(3)  # 0.1, then half of the change of w over that of g
    array([0.784, 0.291], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        initial_step: float = 1e-3,
        beta_2: float = 0.999,
        alpha: float = 1e-5,
        initial_hessian: float | None = None,
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        warn_unless_near_one(self, learning_rate, stacklevel=3)
        self.initial_step = validation.positive_float("initial_step", initial_step)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.alpha = validation.positive_float("alpha", alpha)
        given = initial_hessian is not None
        self.initial_hessian = validation.positive_float("initial_hessian", initial_hessian) if given else None

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built or not variables:
            return
        super().build(variables)
        self.sampling = keras.random.SeedGenerator(self.seed)
        keras_private.track_optimizer_variable(self, self.sampling.state)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        first = keras.initializers.Constant(self.initial_hessian or 1.0)
        hessian = self.add_state(variable, "hessian", initializer=first)
        return {"hessian": hessian, **{name: self.add_state(variable, name) for name in ("moved", "last")}}

    def make_scalars(self) -> dict[str, Any]:
        numbers = {name: self.add_scalar(name) for name in ("step_size", "growth")}
        return {
            **numbers,
            "has_estimate": self.add_scalar("has_estimate", 0 if self.initial_hessian is None else 1, "int32"),
        }

    # What comes from outside

    def update_hessian(self, estimates: Sequence[Tensor | None]) -> None:
        """Add an estimate to D: z (H z), or `None`, for each variable that the optimizer was built with."""
        self._check_count("estimates", estimates)
        beta_2 = ops.where(ops.convert_to_tensor(self._scalars["has_estimate"]) > 0, self.beta_2, 0.0)
        for state, estimate in zip(self._states, estimates, strict=True):
            if estimate is not None and state:
                h, estimate = wide(state["hessian"]), wide(estimate)
                new = average(ops.cast(beta_2, h.dtype), h, estimate)
                self.assign(state["hessian"], ops.where(ops.all(ops.isfinite(estimate)), new, h))
        self.assign(self._scalars["has_estimate"], ops.ones((), "int32"))

    def set_last_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Set the gradients of the batch of the next update at the weights of the update before, or `None`."""
        self._check_count("gradients", gradients)
        for state, gradient in zip(self._states, gradients, strict=True):
            if gradient is not None and state:
                self.assign(state["last"], wide(gradient))

    def _check_count(self, name: str, tensors: Sequence[Tensor | None]) -> None:
        if not self.built:
            raise ValueError("The optimizer has no state yet: call `build(variables)` first.")
        if len(tensors) != len(self._states):
            raise ValueError(f"`{name}` must be one for each of {len(self._states)} variables. Received: {len(tensors)}")

    # The update

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        """k of this update."""
        scalars, way, change = contexts[0].scalars, 0.0, 0.0
        for ctx in contexts:
            a, difference = self._metric(ctx.state), ctx.gradient - ctx.state.last
            parts = dot(a * ctx.state.moved, ctx.state.moved), dot(difference / a, difference)
            if ctx.takes_part is not None:
                parts = tuple(ops.where(ctx.takes_part, part, 0.0) for part in parts)
            way, change = way + parts[0], change + parts[1]
        old, is_first = scalars.step_size, scalars.step_size == 0
        grown, smooth = ops.sqrt(1 + scalars.growth) * old, 0.5 * ops.sqrt(ratio(way, change))
        has_changed = ops.logical_and(ops.not_equal(way, 0), ops.not_equal(change, 0))
        new = ops.where(has_changed, ops.minimum(grown, smooth), old)
        k = scalars.step_size = ops.where(is_first, self.initial_step, new)
        scalars.growth = ops.where(is_first, UNLIMITED, ratio(k, old))
        return k

    def own_learning_rate(self, ctx: UpdateContext) -> Tensor:
        return ctx.learning_rate * ctx.cast(ctx.shared)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        k = self.own_learning_rate(ctx)
        state.moved = -k * g / self._metric(state)
        state.last = g
        return w + state.moved - k * ctx.weight_decay * w

    def _metric(self, state: OptimizerState) -> Tensor:
        """A."""
        return ops.maximum(ops.abs(state.hessian), self.alpha)
