"""Sophia: momentum over a diagonal of the Hessian, clipped."""

import warnings
from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import ops

from keras_lrsched._core import keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._numerics import average, sign
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "sophia",
    title="momentum over the curvature, clipped",
    paper="arXiv:2305.14342",
    code=("Liuhong99/Sophia",),
    checked="trajectory",
    against="the authors' code, with given estimates",
    deviations=(
        "the authors' training script takes the first estimate after the update; the Hutchinson form follows "
        "optax and the paper, from reading"
    ),
    kind="optimizer",
)
class Sophia(Optimizer):
    """Second-order clipped stochastic optimization: entries with a flat loss move by the learning rate, others by less.

        m = beta_1 m + (1 - beta_1) g
        w = (1 - lr weight_decay) w - lr sign(m) min(1, |m| / (rho n max(h, 0) + 1e-15))
        h = beta_2 h + (1 - beta_2) estimate        each update_period updates

    The estimate is that of the diagonal of the Hessian, and has to come from outside of the optimizer:

        Gauss-Newton-Bartlett    ghat^2, ghat the gradient of the mean loss of `batch_size` samples or tokens, with labels
                                 that are drawn from what the model predicts; n = batch_size
        Hutchinson               z (H z), z random numbers of variance 1; n = 1

    In `fit`, train a `SophiaModel`, which computes it at updates 1, 1 + update_period, ...; in a loop of one's own, call
    `update_hessian`. As long as h is zero, and wherever a Hutchinson estimate is negative, an update is the sign of m. There
    is a warning if none has come before the first update. State: two float32 numbers for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-4`.
        beta_1: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.965`.
        beta_2: Decay rate of the estimates, at least 0 and below 1. Defaults to `0.99`.
        rho: Above 0; the larger, the fewer entries are clipped. Defaults to `0.04`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `0.1`.
        batch_size: n of the Gauss-Newton-Bartlett estimates that `update_hessian` is given. A `SophiaModel` counts by
            itself, and scales what it gives. Defaults to `5120`.
        update_period: Updates from one estimate to the next in a `SophiaModel`. Defaults to `10`.
        estimator: `"gauss_newton_bartlett"` or `"hutchinson"`. Defaults to `"gauss_newton_bartlett"`.
        **options: See `keras_lrsched.optimizers.Optimizer`. The `seed` is that of the labels or of z, too.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Liu et al., Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training, arXiv:2305.14342.
        Trajectories with given estimates agree with the authors' code, Liuhong99/Sophia, whose training script takes the
        first estimate after the update. The Hutchinson form follows optax and the paper, from reading.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> optimizer = Sophia(0.5, beta_1=0.0, beta_2=0.0, rho=1.0, weight_decay=None, batch_size=1)
    >>> optimizer.build([w])
    >>> optimizer.update_hessian([keras.ops.array([1.0, 4.0])])
    >>> optimizer.apply([keras.ops.array([2.0, 4.0])], [w])
    >>> w.numpy()  # min(1, 2 / 1^2) and min(1, 4 / 4^2), times 0.5
    array([0.5  , 0.875], dtype=float32)
    """

    state_names = ("momentum", "hessian")
    elementwise = True

    def __init__(
        self,
        learning_rate: LearningRate = 1e-4,
        beta_1: float = 0.965,
        beta_2: float = 0.99,
        rho: float = 0.04,
        weight_decay: WeightDecay = 0.1,
        batch_size: int = 5120,
        update_period: int = 10,
        estimator: str = "gauss_newton_bartlett",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.rho = validation.positive_float("rho", rho)
        self.batch_size = validation.positive_int("batch_size", batch_size)
        self.update_period = validation.positive_int("update_period", update_period)
        self.estimator = validation.one_of("estimator", estimator, ("gauss_newton_bartlett", "hutchinson"))
        self._has_estimate = False

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built or not variables:
            return
        super().build(variables)
        self.sampling = keras.random.SeedGenerator(self.seed)
        keras_private.track_optimizer_variable(self, self.sampling.state)

    def update_hessian(self, estimates: Sequence[Tensor | None], when: bool = True) -> None:
        """Add an estimate to h; one with an entry that is not finite is left out, variable by variable.

        Args:
            estimates: For each variable that the optimizer was built with a tensor, or `None`: ghat, which is squared here;
                or z (H z).
            when: Whether to do so, a bool or a tensor.
        """
        if not self.built:
            raise ValueError("The optimizer has no state yet: call `build(variables)` first.")
        count = len(self._states)
        if len(estimates) != count:
            raise ValueError(f"`estimates` must be one for each of {count} variables. Received: {len(estimates)}")
        self._has_estimate = True
        for state, estimate in zip(self._states, estimates, strict=True):
            if estimate is not None and state:
                h, estimate = wide(state["hessian"]), wide(estimate)
                new = average(self.beta_2, h, ops.square(estimate) if self.squares else estimate)
                taken = ops.logical_and(when, ops.all(ops.isfinite(new)))
                self.assign(state["hessian"], ops.where(taken, new, h))

    @property
    def squares(self) -> bool:
        """Whether an estimate is the square of what is given."""
        return self.estimator == "gauss_newton_bartlett"

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        if not self._has_estimate:
            self._has_estimate = True
            warnings.warn(
                "Sophia has no estimate of the Hessian, so an update is the sign of the momentum. "
                "Train a `SophiaModel`, or call `update_hessian`.",
                stacklevel=2,
            )

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        m = state.momentum = average(self.beta_1, state.momentum, g)
        curvature = self.rho * (self.batch_size if self.squares else 1) * ops.maximum(state.hessian, 0.0)
        size = ops.minimum(1.0, ops.abs(m) / (curvature + 1e-15))
        return w - ctx.learning_rate * (sign(m) * size + ctx.weight_decay * w)
