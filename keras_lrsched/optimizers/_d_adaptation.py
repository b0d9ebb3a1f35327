"""Base of methods whose step size is an estimate of the distance to the solution."""

import warnings
from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


class DistanceEstimate(Optimizer):
    """An optimizer whose step size is d times the learning rate; d is an estimate of the distance to the solution.

    d starts at `d0` and never falls. All variables share it; it comes from sums over all of them, of gradients that are
    already clipped, averaged and reduced. In these sums, a variable that takes no part in an update has a gradient of zero:
    its `s` is smaller from then on by the factor `faded`, which enters `s` itself with its next gradient.
    """

    def __init__(
        self,
        learning_rate: LearningRate,
        d0: float,
        growth_rate: float | None,
        weight_decay: WeightDecay,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        warn_unless_near_one(self, learning_rate, stacklevel=4)
        self.d0 = validation.positive_float("d0", d0)
        self.growth_rate = None if growth_rate is None else validation.at_least_one("growth_rate", growth_rate)

    def make_scalars(self) -> dict[str, Any]:
        numbers = {"d": self.add_scalar("d", self.d0), "numerator": self.add_scalar("numerator")}
        return {**numbers, "faded": self.add_scalar("faded", 1.0, shape=(len(self._states),))}

    def past(self, ctx: UpdateContext) -> Tensor:
        """s before this update."""
        return ctx.cast(ctx.scalars.faded[ctx.index]) * ctx.state.s

    def decayed_gradient(self, ctx: UpdateContext) -> Tensor:
        """The gradient with the weight decay in it."""
        g = ctx.gradient + ctx.weight_decay * ctx.value
        return g if ctx.takes_part is None else ops.where(ctx.takes_part, g, 0.0)

    def fade(self, contexts: Sequence[UpdateContext], beta: Tensor) -> list[tuple[int, Tensor]]:
        """Multiply s by `beta` for variables that take no part, as a gradient of zero does.

        Returns:
            Pairs of the place and s of those without a step.
        """
        scalars, rests = contexts[0].scalars, ops.convert_to_tensor(self.resting(contexts))
        faded = scalars.faded = ops.where(rests > 0, beta * scalars.faded, 1.0)
        places = {ctx.index for ctx in contexts}
        states = [(i, OptimizerState(each)) for i, each in enumerate(self._states) if i not in places and "s" in each]
        return [(i, ops.cast(faded[i], each.s.dtype) * each.s) for i, each in states]

    @property
    def d(self) -> Variable | None:
        """The estimate, a variable; `None` before the optimizer is built."""
        return self._scalars["d"] if self.built else None

    def _limited(self, new: Tensor, old: Tensor) -> Tensor:
        """`new`, but not more than `growth_rate` times `old`."""
        return new if self.growth_rate is None else ops.minimum(new, self.growth_rate * old)


def warn_unless_near_one(optimizer: Any, learning_rate: Any, stacklevel: int) -> None:
    """Warn of a learning rate that looks like one for another method, at the line where the optimizer is made."""
    if isinstance(learning_rate, (int, float)) and not 0.1 <= learning_rate <= 10:
        warnings.warn(
            f"{type(optimizer).__name__} computes the size of its steps and multiplies it by the learning rate, which "
            f"should be near 1. Received: learning_rate={learning_rate!r}",
            stacklevel=stacklevel,
        )


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, where the denominator is 0 only if the numerator is 0, and then the ratio is 0."""
    return numerator / ops.where(ops.equal(denominator, 0), 1.0, denominator)
