"""What methods share that estimate how far the solution is, and take their step size from that."""

import warnings

from keras import ops

from keras_lrsched.optimizers.base import Optimizer
from keras_lrsched.schedules import checks


class DistanceEstimate(Optimizer):
    """An optimizer whose step size is d times the learning rate; d is an estimate of the distance to go.

    d starts at `d0` and never falls. All variables share it; it comes from sums over all of them, of gradients that are
    already clipped, averaged and reduced.
    """

    def __init__(self, learning_rate, d0, growth_rate, weight_decay, **options):
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        warn_unless_near_one(self, learning_rate, stacklevel=4)
        self.d0 = checks.positive_float("d0", d0)
        self.growth_rate = None if growth_rate is None else checks.at_least_one("growth_rate", growth_rate)

    def make_scalars(self):
        return {"d": self.add_scalar("d", self.d0), "numerator": self.add_scalar("numerator")}

    @property
    def d(self):
        """The estimate, a variable; `None` before the optimizer is built."""
        return self._scalars["d"] if self.built else None

    def _limited(self, new, old):
        """`new`, but not more than `growth_rate` times `old`."""
        return new if self.growth_rate is None else ops.minimum(new, self.growth_rate * old)


def warn_unless_near_one(optimizer, learning_rate, stacklevel):
    """Warns of a learning rate that looks like one for another method, at the line where the optimizer is made."""
    if isinstance(learning_rate, (int, float)) and not 0.1 <= learning_rate <= 10:
        warnings.warn(
            f"{type(optimizer).__name__} finds the size of its steps itself and multiplies it by the learning rate, which "
            f"should be near 1. Received: learning_rate={learning_rate!r}",
            stacklevel=stacklevel,
        )


def ratio(numerator, denominator):
    """numerator / denominator, where the denominator is 0 only if the numerator is 0, and then the ratio is 0."""
    return numerator / ops.where(ops.equal(denominator, 0), 1.0, denominator)
