"""The sparsity of a network that is pruned while it trains (Zhu & Gupta 2017)."""

import functools
from typing import Any, Self

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules._arrays import at_least
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.profiles import Profile
from keras_lrsched.schedules.segment import Segment


@register(
    "sparsity_ramp",
    title="cubic sparsity ramp",
    paper="arXiv:1710.01878",
    code=("tensorflow/model-optimization",),
    checked="read",
    against="`PolynomialDecay` of the TensorFlow Model Optimization Toolkit",
    deviations=(
        "reaches the final sparsity at `end_step` also where `frequency` does not divide the ramp; that "
        "arXiv:2501.12486 prunes along the cubic is unverified"
    ),
    kind="sparsity",
)
class SparsityRamp(PhasedSchedule):
    """A ramp that prunes much at first and ever less later. Not a learning rate: the value is the fraction of weights that
    are 0.

    With y = (t - begin_step) / (end_step - begin_step) within [0, 1]:

        value(t) = final + (initial - final) * (1 - y)^power

    The value changes at every `frequency`-th step of the ramp only. It reaches the final sparsity at `end_step` in any
    case, where TensorFlow's toolkit stops short of it if `frequency` does not divide the ramp.

    Args:
        initial_sparsity: The value until `begin_step`, in [0, 1].
        final_sparsity: The value from `end_step` on, above `initial_sparsity` and at most 1.
        begin_step: The update at which the ramp begins, a non-negative integer.
        end_step: The update at which it ends, an integer above `begin_step`.
        power: Positive. Defaults to `3.0`, the cubic of Zhu & Gupta.
        frequency: Steps between changes, a positive integer. Defaults to `1`.
        name: A label. Defaults to `"SparsityRamp"`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: arXiv:1710.01878; arXiv:2501.12486, which finds it best to prune from 25 % to 75 % of the compute of a
    pre-training.

    Example:

    >>> SparsityRamp(0.0, 0.8, begin_step=25, end_step=75).values([25, 50, 75]).round(6)
    array([0. , 0.7, 0.8])
    """

    def __init__(
        self,
        initial_sparsity: float,
        final_sparsity: float,
        begin_step: int,
        end_step: int,
        power: float = 3.0,
        frequency: int = 1,
        name: str = "SparsityRamp",
    ) -> None:
        self.initial_sparsity = validation.fraction("initial_sparsity", initial_sparsity)
        self.final_sparsity = validation.positive_fraction("final_sparsity", final_sparsity)
        validation.below("initial_sparsity", self.initial_sparsity, "final_sparsity", self.final_sparsity)
        validation.shorter("begin_step", begin_step, "end_step", end_step)
        self.begin_step, self.end_step = int(begin_step), int(end_step)
        self.power = validation.positive_float("power", power)
        self.frequency = validation.positive_int("frequency", frequency)
        self.name = name
        shape = _one_minus_power(self.power)
        self.segments = [
            Segment(self.begin_step, self.initial_sparsity, self.initial_sparsity),
            Segment(self.end_step - self.begin_step, self.initial_sparsity, self.final_sparsity, shape),
        ]

    @classmethod
    def for_pretraining(
        cls,
        final_sparsity: float,
        total_steps: int,
        begin: float = 0.25,
        end: float = 0.75,
        of: str = "compute",
        frequency: int = 1,
    ) -> Self:
        """The ramp from 0 between two shares of a run.

        Args:
            final_sparsity: See the class; below 1 for shares of the compute.
            total_steps: Updates of the run.
            begin: When pruning begins. Defaults to `0.25`.
            end: When it ends. Defaults to `0.75`.
            of: Whether these are shares of the `"compute"`, of which an update takes in proportion to the weights that are
                left, or of the `"steps"`. Defaults to `"compute"`.
            frequency: See the class. Defaults to `1`.

        Raises:
            ValueError: If an argument is out of its range.

        Example:

        >>> ramp = SparsityRamp.for_pretraining(0.5, total_steps=1000)
        >>> ramp.begin_step, ramp.end_step
        (161, 677)
        """
        total = validation.positive_int("total_steps", total_steps)
        first, last = (round(share * total) for share in step_shares(final_sparsity, begin, end, of))
        return cls(0.0, final_sparsity, first, last, frequency=frequency)

    def compute(self, step: Any, xp: Any) -> Any:
        if self.frequency > 1:
            held = step - at_least(step - self.begin_step, 0, xp) % self.frequency
            step = xp.where(step < self.end_step, held, step)
        return super().compute(step, xp)


def step_shares(final_sparsity: float, begin: float, end: float, of: str) -> tuple[float, float]:
    """The shares of the updates at which the cubic ramp begins and ends, for shares of the compute or of the updates.

    With m the mean of what is left over the updates, the first updates, of the whole network, take the share begin * m of
    all, and the last ones, of a part 1 - s of it, (1 - end) * m / (1 - s). Then m is linear in itself:

        m = 1 - s * (3/4 * (t1 - t0) + 1 - t1)
    """
    begin, end = validation.fraction("begin", begin), validation.fraction("end", end)
    if begin > end:
        raise ValueError(f"`begin` must be at most `end`. Received: begin={begin}, end={end}")
    if validation.one_of("of", of, ("compute", "steps")) == "steps":
        return begin, end
    sparsity = validation.beta("final_sparsity", final_sparsity)
    after = (1 - end) / (1 - sparsity)
    mean = (1 - 0.75 * sparsity) / (1 + sparsity * (0.25 * after - 0.75 * begin))
    return begin * mean, 1 - after * mean


def _one_minus_power(power: float) -> Profile:
    """1 - x^power, exact at both ends: what rises, played backwards, along 1 - (1 - y)^power."""

    return Profile("one_minus_power", functools.partial(_one_minus_power_shape, power), {"power": power})


def _one_minus_power_shape(power: float, done: Any, left: Any, xp: Any) -> Any:
    late = left < 0.5
    small = -xp.expm1(power * xp.log1p(-xp.where(late, left, xp.zeros_like(left))))
    return xp.where(late, small, 1 - xp.power(done, power))
