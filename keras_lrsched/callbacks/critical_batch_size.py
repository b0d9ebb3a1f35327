"""The critical batch size, measured by branching short runs off a training (Merrill et al. 2025)."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops, tree

from keras_lrsched._core import training_loop, validation
from keras_lrsched._core.random_state import random_state, restore_random_state
from keras_lrsched._core.registry import register
from keras_lrsched.callbacks._trial_training import TrialTraining
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.callbacks.snapshot import Snapshot
from keras_lrsched.data._fit_data import batches_ahead, data_adapter

POWERS = {"sqrt": 0.5, "linear": 1.0}


@register(
    title="Critical batch size by branches",
    paper="arXiv:2505.23971",
    code=("allenai/OLMo-core",),
    checked="read",
    against="the official callback",
    deviations="the paper is known from its abstract and a detailed summary",
    kind="recorder",
)
class CriticalBatchSize(Controller):
    """Measurement of the critical batch size at the end of epochs, by training branches that leave the run as it was.

    From the same state, one branch for each k trains on the same samples with batches of k B and the learning rate f(k) eta,
    f(k) = sqrt(k) or k. With L_k the loss of its last batch, smoothed by an exponential average,

        k* = the largest k with L_k <= L_j + tolerance for all j < k,   critical batch size = k* B

    Training with k* B and f(k*) eta should continue as well as with B. The paper doubles B, and takes sqrt(2) eta, whenever
    the critical size has grown beyond 2 B. It assumes that what has recovered after `samples` stays so. The samples are
    those that `fit` would draw next, as far as its data allow; B is the number of samples of an optimizer step, the size of
    their first batch times `gradient_accumulation_steps` and the number of processes that train together: all sizes are of
    the whole batch. When the data end within a branch, a batch is smaller, as it is in `fit`.

    A measurement makes a further pass over data other than `ScheduledBatches`. A `tf.data` pipeline that this changes warns:
    one with a `shuffle` that is another one in each pass, a Python function, or Keras layers with random numbers. The
    training then continues as with another seed.

    Each measurement costs `samples` times the number of branches; on JAX, or with `jit_compile`, also compiling.

    Args:
        samples: What each branch trains on: a positive integer. The paper has 2 billion tokens, 0.2 to 0.5 % of the run.
        multipliers: The values of k: increasing positive integers that begin with 1. Defaults to `(1, 2, 3, 4, 6, 8)`.
        learning_rate_rule: f: `"sqrt"` (Adam) or `"linear"` (SGD). Defaults to `"sqrt"`.
        tolerance: How much higher a loss may be, non-negative. Defaults to `0.01`.
        smoothing: Weight of a new loss in the average, above 0 and at most 1. Defaults to `0.5`.
        every: Epochs between measurements, over all `fit`s of the run. Defaults to `1`.
        monitor: The value in the logs that counts as the loss. Defaults to `"loss"`.

    Attributes:
        history: A list of dictionaries, one a measurement: `step`, `batch_size` (B), `losses` (L_k of each k),
            `multiplier` (k*), `critical_batch_size`, `learning_rate` (f(k*) eta).

    Raises:
        ValueError: At construction, if an argument is out of its range; when `fit` begins, as `Controller`, or if its data
            are a generator, or the largest batch is more than `samples`; at a measurement, if the data do not have the size
            of their batches before, or batches have samples of other shapes.

    Reference: arXiv:2505.23971, from its abstract and a detailed summary. That `samples` should be about 2 billion tokens
    is from there; f and the doubling agree with the official callback in allenai/OLMo-core, which was read.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(64, 2))
    >>> model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.Adam(0.01), loss="mse")
    >>> critical = CriticalBatchSize(samples=32, multipliers=(1, 2, 4))
    >>> history = model.fit(x, x[:, :1], batch_size=4, verbose=0, callbacks=[critical])
    >>> len(critical.history), critical.history[0]["batch_size"], int(model.optimizer.iterations)
    (1, 4, 16)
    """

    saved = ("history", "epochs")

    def __init__(
        self,
        samples: int,
        multipliers: Sequence[int] = (1, 2, 3, 4, 6, 8),
        learning_rate_rule: Literal["sqrt", "linear"] = "sqrt",
        tolerance: float = 0.01,
        smoothing: float = 0.5,
        every: int = 1,
        monitor: str = "loss",
    ) -> None:
        super().__init__(monitor=())
        self.loss_name = monitor
        self.samples = validation.positive_int("samples", samples)
        self.multipliers = validation.increasing("multipliers", multipliers, validation.positive_int)
        if self.multipliers[:1] != [1]:
            raise ValueError(f"`multipliers` must begin with 1. Received: multipliers={multipliers}")
        self.learning_rate_rule = validation.one_of("learning_rate_rule", learning_rate_rule, tuple(POWERS))
        self.tolerance = validation.non_negative_float("tolerance", tolerance)
        self.smoothing = validation.positive_fraction("smoothing", smoothing)
        self.every = validation.positive_int("every", every)
        self.history: list[dict] = []
        self.epochs = 0
        self._adapter = None

    def begin(self) -> None:
        self._adapter = data_adapter(type(self).__name__)
        size = getattr(self._adapter, "batch_size", None) or getattr(training_loop.dataset(), "batch_size", None)
        if isinstance(size, int):
            self._check_samples(size)
        training_loop.place_first(self)  # so that it measures before a callback gives averaged weights to the model

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self.epochs += 1
        if self.epochs % self.every == 0:
            self.history.append(self._measure())
            if logs is not None:
                logs["critical_batch_size"] = self.history[-1]["critical_batch_size"]

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._adapter = None

    def _measure(self) -> dict[str, Any]:
        before, numbers, rate = Snapshot(self.model, metrics=True), random_state(), self.learning_rate
        data, small_batch = self._samples_ahead()
        batch_size = small_batch * self._parts
        losses = []
        for k in self.multipliers:
            self.learning_rate = self._factor(k) * rate
            losses.append(smoothed(self._branch(data, k * small_batch), self.smoothing))
            before.restore()
            restore_random_state(numbers)
        multiplier = largest_harmless(self.multipliers, losses, self.tolerance)
        return {
            "step": self.step,
            "batch_size": batch_size,
            "losses": losses,
            "multiplier": multiplier,
            "critical_batch_size": multiplier * batch_size,
            "learning_rate": self._factor(multiplier) * rate,
        }

    def _factor(self, k: int) -> float:
        return k ** POWERS[self.learning_rate_rule]

    def _samples_ahead(self) -> tuple[list, int]:
        """The samples that a branch trains on in this process, and the size of a batch."""
        samples = self.samples // self.processes
        parts: list = []
        for batch in batches_ahead(self._adapter):
            parts.append([_arrays(each) for each in keras.utils.unpack_x_y_sample_weight(batch)])
            if sum(_length(part) for part in parts) >= samples:
                break
        batch_size = _length(parts[0])
        self._check_samples(batch_size)
        self._check_shapes(parts)
        return tree.map_structure(lambda *arrays: np.concatenate(arrays)[:samples], *parts), batch_size

    def _check_shapes(self, parts: list) -> None:
        shapes = {tuple(each.shape[1:] for each in tree.flatten(part)) for part in parts}
        if len(shapes) > 1:
            raise ValueError(
                "CriticalBatchSize cuts other batches from the data, for which all samples must have one shape: pad all "
                f"batches to the same length. Received: batches of samples with the shapes {sorted(shapes)}"
            )

    def _check_samples(self, batch_size: int) -> None:
        largest = self.multipliers[-1] * batch_size * self._parts
        if largest > self.samples:
            raise ValueError(
                f"`samples` must make up one batch of the largest size, {largest}, at least. "
                f"Received: samples={self.samples}"
            )

    @property
    def _parts(self) -> int:
        """The number of batches of all processes in one optimizer step."""
        return self.accumulation_steps * self.processes

    def _branch(self, data: Any, batch_size: int) -> Iterator[float]:
        training = TrialTraining(self.model, self.loss_name)
        for start in range(0, _length(data), batch_size):
            part = tree.map_structure(lambda array, at=start: array[at : at + batch_size], data)
            parts = (each or None if isinstance(each, list) else each for each in part)
            yield training.loss_of(keras.utils.pack_x_y_sample_weight(*parts))


def _arrays(values: Any) -> Any:
    """The arrays of what a batch has, which may be nothing: an empty list, for there is no structure in `None`."""
    return [] if values is None else tree.map_structure(lambda each: np.asarray(ops.convert_to_numpy(each)), values)


def _length(part: Any) -> int:
    return len(tree.flatten(part)[0])


def smoothed(losses: Any, weight: float) -> float:
    """The last value of an exponential average that begins with the first loss."""
    losses = iter(losses)
    average = next(losses)
    for loss in losses:
        average += weight * (loss - average)
    return average


def largest_harmless(multipliers: Sequence[int], losses: Any, tolerance: float) -> int:
    """The largest k whose loss is not above that of any smaller k, but for the tolerance; a NaN counts as too high."""
    best, lowest = multipliers[0], math.inf
    for k, loss in zip(multipliers, losses, strict=True):
        if loss <= lowest + tolerance:
            best = k
        lowest = min(lowest, loss if math.isfinite(loss) else math.inf)
    return best
