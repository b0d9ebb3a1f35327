"""Averaging of checkpoints of weights: a running mean, or a window of the last ones."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched.schedules import profiles

DEFAULTS: dict = {
    "ema": {"every": 10, "ema_momentum": 0.99, "ema_start": "first"},
    "swa": {"every": "epoch"},
    "lawa": {"every": "epoch", "num_checkpoints": 5},
    "wsm": {"every": "epoch", "num_checkpoints": 5, "cooldown": "one_minus_sqrt"},
}
"""Options of each kind."""


def with_defaults(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are not `None`, and the defaults of the others."""
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name not in DEFAULTS[kind]:
            raise ValueError(f"`{name}` has no meaning for kind={kind!r}. Received: {name}={value!r}")
    return {**DEFAULTS[kind], **given}


def rule(kind: str, options: dict[str, Any]) -> "RunningMean | Window":
    """The averaging rule of a kind."""
    match kind:
        case "ema":
            momentum = validation.beta("ema_momentum", options["ema_momentum"])
            start = validation.one_of("ema_start", options["ema_start"], ("first", "debiased", "ramp"))
            return RunningMean(exponential(momentum, start))
        case "swa":
            return RunningMean(arithmetic)
        case "lawa":
            return Window(validation.positive_int("num_checkpoints", options["num_checkpoints"]), uniform)
        case _:
            size = validation.positive_int("num_checkpoints", options["num_checkpoints"])
            return Window(size, cooldown_coefficients(options["cooldown"]))


class RunningMean:
    """a_1 = w_1, a_n = m_n a_(n-1) + (1 - m_n) w_n: one copy of the weights, however many checkpoints there are.

    Args:
        momentum: The function n -> m_n, for n = 2, 3, ...
    """

    def __init__(self, momentum: Any) -> None:
        self._momentum = momentum
        self.count = 0
        self.arrays: list = []

    def add(self, weights: list[np.ndarray]) -> None:
        self.count += 1
        if self.count == 1:
            self.arrays = [_copy(w) for w in weights]
            return
        share = 1 - self._momentum(self.count)
        for a, w in zip(self.arrays, weights, strict=True):
            a += share * (w - a)

    def average(self) -> list[np.ndarray]:
        return self.arrays

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "arrays": [a.copy() for a in self.arrays]}

    def restore_state(self, state: dict[str, Any]) -> None:
        self.count, self.arrays = state["count"], [a.copy() for a in state["arrays"]]


class Window:
    """sum_j c_j w_j over the last checkpoints, oldest first.

    Args:
        size: How many checkpoints are kept.
        coefficients: The function of their number that gives the c_j; while the window fills, it is called with less than
            `size`.
    """

    def __init__(self, size: int, coefficients: Callable[[int], np.ndarray]) -> None:
        self._size, self._coefficients = size, coefficients
        self.count = 0
        self.checkpoints: list = []

    def add(self, weights: list[np.ndarray]) -> None:
        self.count += 1
        self.checkpoints = [*self.checkpoints, [_copy(w) for w in weights]][-self._size :]

    def average(self) -> list[np.ndarray]:
        c = self._coefficients(len(self.checkpoints))
        return [
            sum(c_j * w_j.astype("float64") for c_j, w_j in zip(c, ws, strict=True)).astype(ws[0].dtype)
            for ws in zip(*self.checkpoints, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "checkpoints": self.checkpoints}

    def restore_state(self, state: dict[str, Any]) -> None:
        self.count, self.checkpoints = state["count"], list(state["checkpoints"])


def exponential(ema_momentum: float, start: Any) -> Callable[[int], float]:
    """The m_n of an exponential moving average with a momentum, begun in one of three ways."""
    return functools.partial({"first": _constant, "debiased": _debiased, "ramp": _ramp}[start], ema_momentum)


def _constant(ema_momentum: float, n: int) -> float:
    return ema_momentum


def _debiased(ema_momentum: float, n: int) -> float:
    return (ema_momentum - ema_momentum**n) / (1 - ema_momentum**n)


def _ramp(ema_momentum: float, n: int) -> float:
    return min(ema_momentum, n / (9 + n))


def arithmetic(n: int) -> float:
    """The m_n of the mean of all checkpoints."""
    return (n - 1) / n


def uniform(number: int) -> np.ndarray:
    return np.full(number, 1 / number)


def cooldown_coefficients(cooldown: Any) -> Callable[[int], np.ndarray]:
    """The coefficients that make a merge of k + 1 checkpoints act like a cooldown, a profile, over its k intervals."""
    return functools.partial(_coefficients, profiles.get(cooldown))


def _coefficients(profile: Any, number: int) -> np.ndarray:
    return merge_coefficients(profile(np.arange(1, number) / number))


def merge_coefficients(gradient_weights: np.ndarray) -> np.ndarray:
    """c_0 ... c_k such that sum_j c_j w_j = w_0 + sum_i gradient_weights_i (w_i - w_(i-1))."""
    steps = np.concatenate([[1.0], gradient_weights, [0.0]])
    return steps[:-1] - steps[1:]


def _copy(array: Any) -> np.ndarray:
    return np.array(array, np.result_type(array, np.float32))
