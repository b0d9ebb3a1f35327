"""Base of MoMo and MoMo-Adam: a model of the loss from past gradients, and a step towards its minimum."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import keras_private, validation
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._d_adaptation import ratio
from keras_lrsched.optimizers._loss_aware_optimizer import LossAwareOptimizer
from keras_lrsched.optimizers._numerics import dot
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext, exact_value


class MomentumModel(LossAwareOptimizer):
    """An optimizer that takes the learning rate as the upper limit of a step size that it computes from the loss.

    With means over time f, d, c of the loss, of g, and of <g, w>, the model of the loss at x is max(f + <d, x> - c, lb). The
    step goes to where the model plus ||x - w||^2 / (2 lr), in the metric D, is lowest. With a = 1 + lr weight_decay:

        tau = min(lr, max(f - lb + <d, w / a> - c, 0) / <d, d / (D a)>)
        w = (w - tau d / D) / a

    Where lr or weight_decay differ between variables, so do a and tau, but tau / lr does not. For the model, a variable that
    takes no part in an update has a gradient of zero: its `d` is smaller from then on by the factor `faded`, which enters
    `d` itself with its next gradient.
    """

    state_names: tuple[str, ...] = ("d",)

    def __init__(
        self, learning_rate: LearningRate, weight_decay: WeightDecay, lb: float, use_fstar: bool, **options: Unpack[Options]
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.lb = validation.finite_float("lb", lb)
        self.use_fstar = use_fstar

    def make_scalars(self) -> dict[str, Any]:
        starts = {"mean_loss": 0.0, "mean_product": 0.0, "lower_bound": self.lb, "lowest_loss": math.inf}
        numbers = {name: self.add_scalar(name, start) for name, start in starts.items()}
        return {**super().make_scalars(), **numbers, "faded": self.add_scalar("faded", 1.0, shape=(len(self._states),))}

    @property
    def lower_bound(self) -> Variable | None:
        """The estimate of the lowest loss, a variable; `None` before the optimizer is built."""
        return self._scalars["lower_bound"] if self.built else None

    def mean(self, old: Tensor, new: Tensor, t: Tensor) -> Tensor:
        """The mean over time at update t; not divided by `weight`."""
        raise NotImplementedError

    def weight(self, t: Tensor) -> Any:
        """The sum of the weights in a mean at update t: 1 unless means start at 0."""
        raise NotImplementedError

    def metric(self, ctx: UpdateContext) -> Tensor:
        """D of a variable; 1 for the Euclidean one."""
        return 1.0

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        """Update the means; the share of the learning rate that is used goes into the steps."""
        scalars, t = contexts[0].scalars, ops.cast(contexts[0].t, "float32")
        scalars.lowest_loss = ops.minimum(scalars.lowest_loss, scalars.loss)
        product = square = square_decayed = 0.0
        inner = inner_decayed = self._resting_product(contexts, t)
        for ctx in contexts:
            w, g, state = ctx.value, ctx.gradient, ctx.state
            state.d = self.mean(ctx.cast(scalars.faded[ctx.index]) * state.d, g, ctx.t)
            u, a = ctx.learning_rate * state.d / self.metric(ctx), self._shrinkage(ctx)
            if ctx.takes_part is not None:
                u, a = ops.where(ctx.takes_part, u, 0.0), ops.where(ctx.takes_part, a, 1.0)
            product = product + dot(g, w)
            inner = inner + dot(state.d, w)
            inner_decayed = inner_decayed + dot(state.d, w / a)
            square = square + dot(state.d, u)
            square_decayed = square_decayed + dot(state.d, u / a)
        rests = ops.convert_to_tensor(self.resting(contexts))
        scalars.faded = ops.where(rests > 0, self.mean(scalars.faded, 0.0, t), 1.0)
        f = scalars.mean_loss = self.mean(scalars.mean_loss, scalars.loss, t)
        c = scalars.mean_product = self.mean(scalars.mean_product, product, t)
        rho, lb = self.weight(t), scalars.lower_bound
        if self.use_fstar:
            reached = f + inner_decayed - c
            lb = ops.where(reached < rho * lb, ops.maximum(reached / (2 * rho), self.lb), lb)
        gap = ops.maximum(f - rho * lb + inner_decayed - c, 0.0)
        share = ops.minimum(1 / rho, ratio(gap, square_decayed))
        if self.use_fstar:
            scalars.lower_bound = ops.maximum((f + inner - c - 0.5 * share * square) / rho, self.lb)
        return share

    def _resting_product(self, contexts: Sequence[UpdateContext], t: Tensor) -> Tensor:
        """<d, w> of the variables without a step."""
        scalars, places = contexts[0].scalars, {ctx.index for ctx in contexts}
        variables = enumerate(zip(keras_private.trained_by(self), self._states, strict=True))
        resting = [(i, v, OptimizerState(each)) for i, (v, each) in variables if i not in places and "d" in each]
        return sum(self.mean(scalars.faded[i], 0.0, t) * dot(state.d, exact_value(v, state)) for i, v, state in resting)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        super().finalize_variable_values(var_list)
        if not self.built or not keras_private.has_value(self._scalars["lowest_loss"]):
            return
        lowest = float(ops.convert_to_numpy(self._scalars["lowest_loss"]))
        if lowest < self.lb:
            warnings.warn(
                f"{type(self).__name__} does not move where the loss is below `lb`, which must lie below all losses. "
                f"Received: lb={self.lb}, a loss of {lowest:.6g}",
                stacklevel=2,
            )

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        u = ctx.cast(ctx.shared) * ctx.learning_rate * state.d / self.metric(ctx)
        return (w - u) / self._shrinkage(ctx)

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        return new - new / self._shrinkage(ctx)

    def _shrinkage(self, ctx: UpdateContext) -> Tensor:
        return 1.0 + ctx.learning_rate * ctx.weight_decay
