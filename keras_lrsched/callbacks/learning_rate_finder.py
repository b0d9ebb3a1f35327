"""The learning-rate range test: a short run over rising rates, which shows the usable ones, and leaves no trace."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_lrsched._core import training_loop, validation
from keras_lrsched._core.random_state import random_state, restore_random_state
from keras_lrsched._core.registry import register
from keras_lrsched._core.training_loop import inner_optimizer
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.callbacks.snapshot import Snapshot


@register(
    title="Learning-rate range test",
    paper="arXiv:1506.01186",
    code=("fastai/fastai",),
    checked="read",
    against="learning rates and stopping of fastai's `LRFinder`",
    kind="controller",
)
class LearningRateFinder(Controller):
    """Learning-rate range test: train some steps with a rising rate, record the losses, end that `fit`, restore everything.

    Step i = 0, ..., n - 1 has the learning rate

        exponential   low (high / low)^(i / n)
        linear        low + (high - low) i / n

    and the loss of its batch is smoothed by a mean with weights beta^age. (Keras' logs would give the mean over all batches
    so far, which shifts every suggestion to the right.) The test stops early where that mean exceeds `stop_factor` times
    its least value, or is no number.

    When the test ends, also before its time, model, optimizer and random state are what they were before; so is the place in
    the data, if these are `ScheduledBatches`.

    Under `gradient_accumulation_steps`, a step of the test is an optimizer step, and its loss the mean over its batches. A
    model that has no weights yet is built from the data of `fit`.

        finder = LearningRateFinder()
        finder.find(model, x, y, batch_size=32)      # or: model.fit(x, y, epochs=100, callbacks=[finder])
        model.optimizer.learning_rate = finder.suggestion()
        finder.plot()

    Args:
        min_learning_rate: The rate of the first step. Defaults to `1e-7`.
        max_learning_rate: The rate that the last step stays just below. Defaults to `10.0`.
        total_steps: n, the number of steps. Defaults to `100`.
        kind: `"exponential"` or `"linear"`. Defaults to `"exponential"`.
        smoothing: beta. Defaults to `0.9`. fastai and Lightning use `0.98`, a mean over 50 steps, that is half of the test.
        stop_factor: Above 1. Defaults to `4.0`, as in fastai.
        skip_begin: Steps at the start that `suggestion` leaves out. Defaults to `10`.
        skip_end: Steps at the end that `suggestion` leaves out. Defaults to `5`, as in fastai.
        monitor: The value in the logs that is to fall, such as `"d_loss"` of a custom `train_step`. Defaults to
            `"loss"`.

    Attributes:
        learning_rates: A list, one number a step.
        losses: The loss of each step's batch.

    Raises:
        ValueError: At construction, if an argument is out of its range; when `fit` begins, as `Controller`; from
            `suggestion`, if too few steps were trained.

    Reference:
        arXiv 1506.01186 (Smith). Rates and stopping are those of fastai's `LRFinder`, whose code was read but not run here.

    Example:

    >>> import keras
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile(keras.optimizers.SGD(0.3), loss="mse")
    >>> finder = LearningRateFinder(1e-4, 100.0)
    >>> 0.1 < finder.find(model, x, 2 * x, batch_size=64) < 1.5
    True
    >>> float(model.get_weights()[0].item())
    0.0
    """

    saved = ("learning_rates", "losses", "_before")

    def __init__(
        self,
        min_learning_rate: float = 1e-7,
        max_learning_rate: float = 10.0,
        total_steps: int = 100,
        kind: Literal["exponential", "linear"] = "exponential",
        smoothing: float = 0.9,
        stop_factor: float = 4.0,
        skip_begin: int = 10,
        skip_end: int = 5,
        monitor: str = "loss",
    ) -> None:
        super().__init__(monitor)
        self.min_learning_rate = validation.positive_float("min_learning_rate", min_learning_rate)
        self.max_learning_rate = validation.positive_float("max_learning_rate", max_learning_rate)
        validation.below("min_learning_rate", self.min_learning_rate, "max_learning_rate", self.max_learning_rate)
        self.total_steps = validation.positive_int("total_steps", total_steps)
        self.kind = validation.one_of("kind", kind, ("exponential", "linear"))
        self.smoothing = validation.beta("smoothing", smoothing)
        self.stop_factor = validation.at_least_one("stop_factor", stop_factor)
        self.skip_begin = validation.non_negative_int("skip_begin", skip_begin)
        self.skip_end = validation.non_negative_int("skip_end", skip_end)
        self.learning_rates: list[float] = []
        self.losses: list[float] = []
        self._before: dict = {}

    def find(
        self,
        model: keras.Model,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        shuffle: bool = True,
        steps_per_epoch: int | None = None,
        verbose: int | str = 0,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        fit_options: dict[str, Any] | None = None,
    ) -> float:
        """Run the test.

        Args:
            model: A compiled model.
            x: As in `model.fit`, like `y`, `batch_size`, `sample_weight`, `class_weight` and `shuffle`.
            y: Targets. Defaults to `None`.
            batch_size: Defaults to `None`.
            sample_weight: Defaults to `None`.
            class_weight: Defaults to `None`.
            shuffle: Defaults to `True`.
            steps_per_epoch: As in `model.fit`. Defaults to `None`.
            verbose: As in `model.fit`. Defaults to `0`.
            callbacks: Further callbacks. Defaults to `()`.
            fit_options: Further arguments of `model.fit`, by name. Defaults to `None`.

        Returns:
            The suggestion by steepest descent.

        Raises:
            ValueError: If an argument of `fit` is given both by itself and in `fit_options`.
        """
        given = {
            "batch_size": batch_size,
            "sample_weight": sample_weight,
            "class_weight": class_weight,
            "shuffle": None if shuffle else False,
            "steps_per_epoch": steps_per_epoch,
            "verbose": verbose or None,
        }
        given = {name: value for name, value in given.items() if value is not None}
        options = fit_options or {}
        if both := sorted(given.keys() & options.keys()):
            raise ValueError(f"An argument is given either by itself or in `fit_options`. Received twice: {', '.join(both)}")
        batches = getattr(inner_optimizer(model.optimizer), "gradient_accumulation_steps", None) or 1
        # An epoch has a batch at least.
        options = {"verbose": 0, "epochs": self.total_steps * batches, **given, **options}
        try:
            model.fit(x, y, **{**options, "callbacks": [*options.get("callbacks", ()), *callbacks, self]})
        finally:
            self._restore()
        return self.suggestion()

    def rate(self, step: int) -> float:
        """The learning rate of a step of the test."""
        low, high, part = self.min_learning_rate, self.max_learning_rate, step / self.total_steps
        return low * (high / low) ** part if self.kind == "exponential" else low + (high - low) * part

    @property
    def smoothed(self) -> np.ndarray:
        """The smoothed losses."""
        return smoothed(self.losses, self.smoothing)

    def suggestion(self, method: Literal["steepest", "last_good"] = "steepest") -> float:
        """A learning rate.

        Args:
            method: `"steepest"`: where the smoothed loss falls fastest over the logarithm of the rate, a rate to train with.
                `"last_good"`: where it is least, the last rate before it rises, which bounds usable rates from above; a
                tenth of it is a cautious choice. Defaults to `"steepest"`.
        """
        validation.one_of("method", method, ("steepest", "last_good"))
        inside = slice(self.skip_begin, len(self.losses) - self.skip_end)
        rates, losses = np.array(self.learning_rates)[inside], self.smoothed[inside]
        if len(losses) < 2:
            raise ValueError(
                f"A suggestion needs at least {self.skip_begin + self.skip_end + 2} steps with a finite loss. "
                f"Received: {len(self.losses)} steps, skip_begin={self.skip_begin}, skip_end={self.skip_end}"
            )
        curve = np.gradient(losses, np.log(rates)) if method == "steepest" else losses
        return float(rates[np.argmin(curve)])

    def plot(self, ax: Any = None) -> Any:
        """Draw the losses, smoothed too, and both suggestions; return the Matplotlib axes."""
        if ax is None:
            from matplotlib import pyplot as plt

            ax = plt.subplots()[1]
        ax.plot(self.learning_rates, self.losses, color="0.8", label="loss of a batch")
        ax.plot(self.learning_rates, self.smoothed, label="smoothed")
        suggestions: dict[str, Literal["steepest", "last_good"]] = {"tab:green": "steepest", "tab:red": "last_good"}
        for color, method in suggestions.items():
            rate = self.suggestion(method)
            ax.axvline(rate, color=color, linestyle="--", label=f"{method.replace('_', ' ')}: {rate:.2g}")
        ax.set(xscale="log" if self.kind == "exponential" else "linear", xlabel="learning rate", ylabel="loss")
        ax.legend()
        return ax

    def begin(self) -> None:
        self.learning_rates, self.losses = [], []
        training_loop.build(self._trainer)
        self._data = training_loop.dataset()
        place = self._data.state() if hasattr(self._data, "restore_state") else None
        self._before = {"model": Snapshot(self._trainer).state(), "random": random_state(), "data": place}
        self.learning_rate = self.rate(0)  # also where gradients have been accumulated before

    def before_update(self) -> None:
        self.learning_rate = self.rate(len(self.losses))

    def after_update(self) -> None:
        self.learning_rates.append(self.rate(len(self.losses)))
        self.losses.append(self.loss)
        if self._has_diverged() or len(self.losses) == self.total_steps:
            self.model.stop_training = True
            Snapshot.from_state(self.model, self._before["model"]).restore()  # what validates this epoch sees the old model

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._restore()

    def _has_diverged(self) -> bool:
        curve = self.smoothed
        if not math.isfinite(curve[-1]):
            self.learning_rates.pop()
            self.losses.pop()
            return True
        least = curve.min()
        return curve[-1] > least + (self.stop_factor - 1) * abs(least)

    def _restore(self) -> None:
        if not self._before:
            return
        Snapshot.from_state(self._trainer, self._before["model"]).restore()
        restore_random_state(self._before["random"])
        if self._before["data"] is not None:
            self._data.restore_state(self._before["data"])
        self._before, self._data = {}, None


def smoothed(losses: Any, beta: float) -> np.ndarray:
    """The mean of the losses so far with weights beta^age, at each step."""
    sums = np.zeros(len(losses))
    total = weight = 0.0
    for i, loss in enumerate(losses):
        total, weight = beta * total + loss, beta * weight + 1
        sums[i] = total / weight
    return sums
