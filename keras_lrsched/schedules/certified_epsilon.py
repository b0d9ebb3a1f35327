"""The radius of certified training: how large the perturbations are that the bounds must hold for (Shi et al. 2021)."""

import math
from typing import Self

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.segment import Segment


@register(
    "certified_epsilon",
    title="certified training",
    paper="arXiv:2103.17268",
    code=("Verified-Intelligence/auto_LiRPA",),
    checked="vectors",
    against="the official code, `eps_scheduler.py`, which was run",
    kind="radius",
)
class CertifiedEpsilon(PhasedSchedule):
    """Zero, then a ramp to `epsilon`, first along a power and from the middle on straight. Not a learning rate: the value
    is the radius of the perturbations, in the units of the input.

    With S = `start_step`, L = `ramp_steps` and M = floor(mid * L):

        t <= S:          0
        S < t < S + M:   a * (t - S)^beta
        S + M <= t:      straight from a * M^beta to epsilon at t = S + L, where it stays
        a = epsilon / ((L - M) * beta * M^(beta - 1) + M^beta), so that the slope has no step at S + M

    `mode="linear"`, or M = 0, is the straight line alone.

    Args:
        epsilon: The last value, positive; 8 / 255 for CIFAR-10 in the paper.
        start_step: S, updates with 0. May be `0`.
        ramp_steps: L, updates until `epsilon`, a positive integer.
        mode: `"smooth"` or `"linear"`. Defaults to `"smooth"`.
        mid: The part of the ramp along the power, in [0, 1]. Defaults to `0.25`.
        beta: The power, at least 1. Defaults to `4.0`.
        name: A label. Defaults to `"CertifiedEpsilon"`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: arXiv:2103.17268; official code, Verified-Intelligence/auto_LiRPA.

    Example:

    >>> CertifiedEpsilon(1.0, start_step=2, ramp_steps=8, beta=2.0).values([2, 3, 4, 7, 10]).round(6)
    array([0.      , 0.035714, 0.142857, 0.571429, 1.      ])
    """

    def __init__(
        self,
        epsilon: float,
        start_step: int,
        ramp_steps: int,
        mode: str = "smooth",
        mid: float = 0.25,
        beta: float = 4.0,
        name: str = "CertifiedEpsilon",
    ) -> None:
        self.epsilon = validation.positive_float("epsilon", epsilon)
        self.start_step = validation.non_negative_int("start_step", start_step)
        self.ramp_steps = validation.positive_int("ramp_steps", ramp_steps)
        self.mode = validation.one_of("mode", mode, ("smooth", "linear"))
        self.mid = validation.fraction("mid", mid)
        self.beta = validation.at_least_one("beta", beta)
        self.name = name
        curved = math.floor(self.mid * self.ramp_steps) if mode == "smooth" else 0
        straight = self.ramp_steps - curved
        middle = self.epsilon * curved / (self.beta * straight + curved)
        self.segments = [
            Segment(self.start_step, 0.0, 0.0),
            Segment(curved, 0.0, middle, profiles.polynomial(self.beta)),
            Segment(straight, middle, self.epsilon),
        ]

    @classmethod
    def from_epochs(
        cls,
        epsilon: float,
        start_epoch: int,
        ramp_epochs: int,
        steps_per_epoch: int,
        mode: str = "smooth",
        mid: float = 0.25,
        beta: float = 4.0,
        name: str = "CertifiedEpsilon",
    ) -> Self:
        """The schedule in epochs, counted from 1 as in the official code: the ramp begins with `start_epoch`.

        The paper: CIFAR-10 from epoch 2 over 80 epochs, Tiny ImageNet from 2 over 20, MNIST from 1 over 20.
        """
        steps = validation.positive_int("steps_per_epoch", steps_per_epoch)
        start = validation.positive_int("start_epoch", start_epoch) - 1
        ramp = validation.positive_int("ramp_epochs", ramp_epochs)
        return cls(epsilon, start * steps, ramp * steps, mode, mid, beta, name)
