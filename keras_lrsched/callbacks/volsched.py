"""VolSched: cosine annealing, corrected at intervals by the volatility of the training metric."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.callbacks.controller import Controller

MEMORY = 10
"""Number of intervals of the metric in the long-run volatility."""


@register(
    title="VolSched",
    paper="arXiv:2507.10575",
    code=("fern89/volsched",),
    checked="trajectory",
    against="multipliers and learning rates of the official code",
    deviations="`multiplier_range` is an addition; defaults are those of the demo of the official code",
    kind="controller",
)
class VolSched(Controller):
    """Cosine decay whose learning rate is raised when the training metric becomes less volatile, and lowered when more.

    Let a_i be the metric of batch i, r_i = ln(a_i / a_(i-1)), and N = `every`. After every N updates, with the
    volatilities s_N = std(last N r_i) and s_all = std(all r_i of the last 10 N batches),

        R = s_all / s_N
        M = 1 + sign(R - 1) ln(1 + w |R - 1|)
        learning rate <- max(minimum, learning rate * M * c)
        c = (1 + cos(pi t / T)) / (1 + cos(pi (t - N) / T))

    so that the run is a cosine decay to step T, times all M so far. M = 1 until N + 1 batches are known. After T the
    rate stays.

    M is negative for a sudden burst of noise and a large w, which the official code turns into the minimal learning rate,
    and, as each rate is a multiple of the last, there is no way back. So M is kept within `multiplier_range`.

    A metric of 0 counts as 1e-8. An accuracy of single small batches that is sometimes 0 is better replaced by `"loss"`.

    Args:
        total_steps: T, the length of the run in steps, with warm-up.
        every: N, the steps between two changes, at least 2. Defaults to `50`.
        sensitivity: w, above 0. Defaults to `0.05`, the best of three in the authors' log; `0.1` was unstable there.
        min_learning_rate: The least learning rate. Defaults to `1e-4`.
        monitor: The name of what is watched in the logs. Defaults to `"accuracy"`.
        multiplier_range: The least and the largest M, or `None` for the official rule. Defaults to `(0.5, 2.0)`, which is
            ours.
        warmup_steps: W, the steps of a linear rise to the optimizer's learning rate; then t and T count from there.
            Defaults to `0`.
        warmup_start: The fraction of the learning rate at which the rise starts. Defaults to `0.0`.

    Attributes:
        multipliers: A list of all M so far.

    Raises:
        ValueError: At construction, if an argument is out of its range; when `fit` begins, as `Controller`; after the first
            batch, if there is no such metric.

    Reference:
        arXiv 2507.10575 and https://github.com/fern89/volsched, whose numbers this class reproduces. There N, w and T have
        no defaults; those here are of its demo (ResNet on CIFAR-100, batch size 128).

    Example:

    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), loss="mse")
    >>> volsched = VolSched(total_steps=8, every=4, monitor="loss")
    >>> history = model.fit(np.ones((8, 1)), np.ones((8, 1)), batch_size=1, verbose=0, callbacks=[volsched])
    >>> len(volsched.multipliers), round(volsched.learning_rate, 6)
    (2, 0.0001)
    """

    saved = ("peak", "metrics", "multipliers")

    def __init__(
        self,
        total_steps: int,
        every: int = 50,
        sensitivity: float = 0.05,
        min_learning_rate: float = 1e-4,
        monitor: str = "accuracy",
        multiplier_range: tuple[float, float] | None = (0.5, 2.0),
        warmup_steps: int = 0,
        warmup_start: float = 0.0,
    ) -> None:
        super().__init__(monitor)
        self.total_steps = validation.positive_int("total_steps", total_steps)
        self.every = validation.positive_int("every", every)
        if self.every < 2:
            raise ValueError(f"`every` must be at least 2, for a deviation. Received: every={every}")
        self.sensitivity = validation.positive_float("sensitivity", sensitivity)
        self.min_learning_rate = validation.non_negative_float("min_learning_rate", min_learning_rate)
        self.multiplier_range = None if multiplier_range is None else _checked_range(multiplier_range)
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        self.warmup_steps = int(warmup_steps)
        self.warmup_start = validation.fraction("warmup_start", warmup_start)
        self.peak = 0.0
        self.metrics: list[float] = []
        self.multipliers: list[float] = []

    def begin(self) -> None:
        if self.step == 0:
            self.peak = self.learning_rate
            if self.warmup_steps:
                self.learning_rate = self.peak * self._warmup(0)

    def after_update(self) -> None:
        self.metrics = [*self.metrics[1 - MEMORY * self.every :], self.loss]
        if self.step <= self.warmup_steps:
            self.learning_rate = self.peak * self._warmup(self.step)
        elif (self.step - self.warmup_steps) % self.every == 0:
            self._update(self.step - self.warmup_steps, self.total_steps - self.warmup_steps)

    def _warmup(self, step: Any) -> float:
        if step >= self.warmup_steps - 1:
            return 1.0
        return self.warmup_start + (1 - self.warmup_start) * step / (self.warmup_steps - 1)

    def _update(self, t: int, total: int) -> None:
        before, now = (1 + math.cos(math.pi * min(s / total, 1)) for s in (t - self.every, t))
        if t - self.every >= total:
            return
        multiplier = volatility_multiplier(self.metrics, self.every, self.sensitivity)
        if self.multiplier_range is not None:
            multiplier = min(max(multiplier, self.multiplier_range[0]), self.multiplier_range[1])
        self.multipliers.append(multiplier)
        self.learning_rate = max(self.min_learning_rate, self.learning_rate * multiplier * now / before)


def volatility_multiplier(metrics: Sequence[float], every: int, sensitivity: float) -> float:
    """M of a series of metrics."""
    if len(metrics) <= every:
        return 1.0
    returns = np.diff(np.log(np.maximum(metrics, 1e-8)))
    recent = np.std(returns[-every:], ddof=1)
    if not recent > 0:
        return 1.0
    surplus = np.std(returns, ddof=1) / recent - 1
    multiplier = 1 + np.sign(surplus) * np.log1p(sensitivity * abs(surplus))
    return float(multiplier) if np.isfinite(multiplier) else 1.0


def _checked_range(values: Any) -> tuple[float, float]:
    checked = validation.increasing("multiplier_range", values, validation.positive_float)
    if len(checked) != 2:
        raise ValueError(f"`multiplier_range` must be two numbers. Received: multiplier_range={values!r}")
    return tuple(checked)
