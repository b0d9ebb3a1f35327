"""Warmups of the slow average, by its half-life: what AdEMAMix and its simplified form share."""

import math

from keras import ops

from keras_lrsched._core.types import Tensor

SMALL = 1e-8
"""Added to a decay rate, which may be 0, within a logarithm."""


def warmed_up(value: Tensor, t: Tensor, warmup: int | None) -> Tensor:
    """A number that rises in a line from 0, and is `value` from update `warmup` on."""
    return value if warmup is None else value * ops.minimum(t / warmup, 1.0)


def log_of_rate(start: Tensor, end: Tensor, t: Tensor, warmup: int | None) -> Tensor:
    """The logarithm of a decay rate whose half-life rises in a line from that of `start` to that of `end`.

    It is the logarithm, since float32 keeps three digits of 1 - 0.9999.
    """
    if warmup is None:
        return _log(end)
    share = t / warmup
    halved = (1 - share) * _half_life(start) + share * _half_life(end)
    return ops.where(share < 1, math.log(0.5) / (halved + 1), _log(end))


def moved(old: Tensor, new: Tensor, log_of_rate: Tensor) -> Tensor:
    """The moving average, by the logarithm of its decay rate."""
    if isinstance(log_of_rate, float):
        return math.exp(log_of_rate) * old - math.expm1(log_of_rate) * new
    return ops.exp(log_of_rate) * old - ops.expm1(log_of_rate) * new


def _half_life(rate: Tensor) -> Tensor:
    return math.log(0.5) / _log(rate + SMALL) - 1


def _log(x: Tensor) -> Tensor:
    return math.log(x) if isinstance(x, float) else ops.log(x)
