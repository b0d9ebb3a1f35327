"""AutoLRS: tries learning rates out for a moment each, forecasts where they lead, and trains on with the best."""

import itertools
import math
from collections.abc import Iterator
from typing import Any, Literal

import keras
import numpy as np

from keras_lrsched._core import training_loop, validation
from keras_lrsched._core.random_state import random_state, restore_random_state
from keras_lrsched._core.registry import register
from keras_lrsched.callbacks._autolrs import forecast, log_grid, lower_confidence_bound, scikit_learn
from keras_lrsched.callbacks._batch_values import are_built
from keras_lrsched.callbacks._trial_training import TrialTraining
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.callbacks.snapshot import Snapshot
from keras_lrsched.data._fit_data import batches_ahead, data_adapter

VALIDATIONS = 16
"""Number of validations of a candidate."""

WORST = 3.0
"""A forecast counts as at most this multiple of the loss before the search, so that a diverging one spoils no other."""


@register(
    title="AutoLRS",
    paper="arXiv:2105.10762",
    code=("YuchenJin/autolrs",),
    checked="vectors",
    against="the forecasts of the official code, which was run end to end",
    deviations=(
        "a diverged candidate counts as 3 times the loss; data and random numbers are the same for all candidates; "
        "`kappa` is 1.96 instead of 1e6; the body of the paper was not at hand"
    ),
    kind="controller",
)
class AutoLRS(Controller):
    """Search of the learning rate of each stage of the training, by short trials from the same state.

    A stage is a search and then T steps (`exploitation_steps`) with the rate it found. The search keeps model, optimizer and
    random state aside; trains `candidates` rates for S steps (`search_steps`) each from there; forecasts the loss of each
    after T steps by an exponential fitted to its losses; puts all back; and takes the rate with the least forecast. Each
    rate after a random first one is where a Gaussian process (Matern 5/2 with noise, over the logarithm of the rate)
    expects the least loss, with a bonus for what is unknown: the least mean - `kappa` deviations.

    After each stage S and T double, until T reaches `max_exploitation_steps`. After the first stage of that length, with
    `validation_data`, candidates are judged by 16 validation losses instead of S training losses.

    The search is done between two steps of `fit`; all steps are optimizer steps, also under
    `gradient_accumulation_steps`. So `epochs` of `fit`, `optimizer.iterations`, logs and other callbacks count only the
    steps that are kept: a search is to be seen in the time that it takes, `candidates` S steps, and as `search_steps` in
    the logs of an epoch. With the default T = 10 S and 10 candidates, as many steps are searched as are kept.

    With `ScheduledBatches`, each candidate trains on the very batches that come next in `fit`. With other data, it trains
    on a new pass over them, which is the same for all candidates unless the data themselves are shuffled anew
    (`tf.data`). A `tf.data` pipeline that a further pass changes causes a warning: `fit` continues as with another
    seed. Data of a generator, which can be read only once, are refused.

    The forecast is the official one. Its smoothing depends on the scale of the loss, and it is a rough guide: of the losses
    2 exp(-t / 100) + 0.5, seen for 100 steps, it expects 0.385 at step 1000, where they are 0.500.

    A candidate whose loss or forecast is no number, or above 3 times the loss before the search, counts as just that. This
    and the repeated data, the state of random numbers, the unit in which validation losses are compared with the first one,
    and the moderate `kappa` differ from the official code.

    Args:
        min_learning_rate: The least rate to try. `LearningRateFinder` shows a range.
        max_learning_rate: The largest.
        search_steps: S of the first stage, at least 8. Defaults to `100`.
        exploitation_steps: T of the first stage. Defaults to `1000`.
        max_exploitation_steps: The T up to which stages double. Defaults to `8000`.
        candidates: Rates tried in each search. Defaults to `10`.
        search: `"bayes"`, or `"log_grid"` for evenly spaced logarithms. Defaults to `"bayes"`.
        kappa: How much is explored. Defaults to `1.96`. The official code has 1e6: rates as far as can be from those tried.
        validation_data: What `model.evaluate` takes: a tuple `(x, y)` or `(x, y, sample_weight)`, or a dataset. A few
            batches will do: they are evaluated 16 times per candidate. Defaults to `None`, for training losses throughout.
        validation_batch_size: The batch size of arrays in `validation_data`. Defaults to `32`.
        warmup_steps: Steps before the first stage, in which the rate rises from 0 on a line. Defaults to `0`.
        warmup_learning_rate: Where it rises to. Defaults to `max_learning_rate`.
        seed: A non-negative integer. Defaults to `0`.
        monitor: The value in the logs of training and `evaluate` that is to fall, such as `"d_loss"` of a custom
            `train_step`. Defaults to `"loss"`.

    Attributes:
        stages: A list of dictionaries, one a search: `step`, at which it was; `tried`, a list of `[rate, forecast]`;
            `learning_rate`, what was chosen; `search_steps`, what it cost.
        search_steps_done: The steps of all searches so far.

    Raises:
        ImportError: At construction, without scikit-learn, unless `search="log_grid"`.
        ValueError: At construction, if an argument is out of its range; when `fit` begins, as `Controller`, or if its data
            are a generator; in a custom training loop, which has no data to search on; at a search, if the loss is no
            number before anything was tried.

    Reference:
        arXiv 2105.10762 and https://github.com/YuchenJin/autolrs, whose forecasts this class reproduces and whose stages
        it follows, run end to end. The body of the paper was not at hand.

    Example:

    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile("sgd", loss="mse")
    >>> autolrs = AutoLRS(1e-4, 0.5, search_steps=10, exploitation_steps=40, candidates=4, search="log_grid")
    >>> history = model.fit(x, 2 * x, batch_size=32, epochs=15, verbose=0, callbacks=[autolrs])
    >>> len(autolrs.stages[0]["tried"]), autolrs.search_steps_done, int(model.optimizer.iterations)
    (4, 40, 30)
    """

    saved = ("doublings", "is_validating", "left", "first_loss", "stages", "search_steps_done", "rate_before")

    def __init__(
        self,
        min_learning_rate: float,
        max_learning_rate: float,
        search_steps: int = 100,
        exploitation_steps: int = 1000,
        max_exploitation_steps: int = 8000,
        candidates: int = 10,
        search: Literal["bayes", "log_grid"] = "bayes",
        kappa: float = 1.96,
        validation_data: Any = None,
        validation_batch_size: int = 32,
        warmup_steps: int = 0,
        warmup_learning_rate: float | None = None,
        seed: int = 0,
        monitor: str = "loss",
    ) -> None:
        super().__init__(monitor)
        self.min_learning_rate = validation.positive_float("min_learning_rate", min_learning_rate)
        self.max_learning_rate = validation.positive_float("max_learning_rate", max_learning_rate)
        validation.below("min_learning_rate", self.min_learning_rate, "max_learning_rate", self.max_learning_rate)
        self.search_steps = validation.positive_int("search_steps", search_steps)
        if self.search_steps < 8:
            raise ValueError(f"`search_steps` must be at least 8, for a fit. Received: search_steps={search_steps}")
        self.exploitation_steps = validation.positive_int("exploitation_steps", exploitation_steps)
        self.max_exploitation_steps = validation.positive_int("max_exploitation_steps", max_exploitation_steps)
        self.candidates = validation.positive_int("candidates", candidates)
        self.search = validation.one_of("search", search, ("bayes", "log_grid"))
        self.kappa = validation.non_negative_float("kappa", kappa)
        self.validation_data = validation_data
        self.validation_batch_size = validation.positive_int("validation_batch_size", validation_batch_size)
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
        rate = max_learning_rate if warmup_learning_rate is None else warmup_learning_rate
        self.warmup_learning_rate = validation.positive_float("warmup_learning_rate", rate)
        self.seed = validation.non_negative_int("seed", seed)
        if search == "bayes":
            scikit_learn()
        self._adapter: Any = None
        self._dataset: Any = None
        self.doublings = self.left = self.search_steps_done = 0
        self.is_validating = False
        self.first_loss: float | None = None
        self.rate_before = 0.0  # the last search
        self.stages: list[dict] = []

    @property
    def stage_steps(self) -> tuple[int, int]:
        """S and T of the present stage."""
        return self.search_steps << self.doublings, self.exploitation_steps << self.doublings

    def begin(self) -> None:
        self._adapter = data_adapter(type(self).__name__)
        training_loop.build(self._trainer)
        self._dataset = getattr(self._adapter, "py_dataset", None)

    def before_update(self) -> None:
        if self.step < self.warmup_steps:
            self.learning_rate = self.warmup_learning_rate * (self.step + 1) / self.warmup_steps
        elif self.left == 0:
            self.rate_before = self.learning_rate
            self.learning_rate = self._search()
            self.left = self.stage_steps[1]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if hasattr(self._dataset, "peek"):
            self._dataset.trained(batch + 1)
        super().on_train_batch_end(batch, logs)

    def after_update(self) -> None:
        if self.step <= self.warmup_steps:
            return
        self.left -= 1
        if self.left == 0:
            if self.stage_steps[1] < self.max_exploitation_steps:
                self.doublings += 1
            else:
                self.is_validating = self.validation_data is not None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if logs is not None:
            logs["search_steps"] = self.search_steps_done

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._undo_search_without_step()
        self._adapter = self._dataset = None

    def _undo_search_without_step(self) -> None:
        """Undo a search before a step that does not follow, as Keras finds the data at an end only then."""
        if self.stages and self.left == self.stage_steps[1] and self.stages[-1]["step"] == self.step:
            self.search_steps_done -= self.stages.pop()["search_steps"]
            self.left = 0
            self.learning_rate = self.rate_before

    def _search(self) -> float:
        """The rate of a new stage; the model and all else are as before."""
        before, numbers = Snapshot(self.model, metrics=are_built(self.model)), random_state()
        of_callbacks = _variables_of_callbacks(self.model)
        if self.validation_data is not None and self.first_loss is None:
            self.first_loss = self._validation_loss()
        start = self._validation_loss() if self.is_validating else None
        done = self.search_steps_done
        tried: list[list[float]] = []
        for _ in range(self.candidates):
            rate = self._next(tried)
            losses = self._try(rate)
            start = losses[0] if start is None else start
            if not math.isfinite(start):
                raise ValueError(f"The loss is no number before any rate is tried, at step {self.step}. Received: {start}")
            tried.append([rate, self._prospect(losses, start)])
            before.restore()
            restore_random_state(numbers)
        for variable, value in of_callbacks:
            variable.assign(value)
        if "metrics" not in before.state():
            self.model.reset_metrics()
        best = min(tried, key=lambda pair: pair[::-1])[0]
        done = self.search_steps_done - done
        self.stages.append({"step": self.step, "tried": tried, "learning_rate": best, "search_steps": done})
        return best

    def _next(self, tried: list[list[float]]) -> float:
        low, high = self.min_learning_rate, self.max_learning_rate
        if self.search == "log_grid":
            return log_grid(low, high, self.candidates, tried)
        return lower_confidence_bound(low, high, tried, self.kappa, [self.seed, len(self.stages)])

    def _try(self, rate: float) -> list[float]:
        """The training losses, or the validation losses at intervals, of a candidate; up to one that is no number."""
        self.learning_rate = rate
        training, batches = TrialTraining(self.model, self.monitor[0]), self._batches()
        losses: list[float] = []
        for i in range(1, self.stage_steps[0] + 1):
            step = itertools.islice(batches, self.accumulation_steps)
            loss = sum(training.loss_of(batch) for batch in step) / self.accumulation_steps
            self.search_steps_done += 1
            if not math.isfinite(loss):
                return [*losses, loss]
            if not self.is_validating:
                losses.append(loss)
            elif i % self._validation_interval == 0:
                losses.append(self._validation_loss())
        return losses

    def _batches(self) -> Iterator[Any]:
        return batches_ahead(self._adapter)

    def _prospect(self, losses: Any, start: Any) -> float:
        """The loss that a candidate is heading for."""
        steps = self.stage_steps[1]
        if not self.is_validating:
            loss = forecast(losses, steps)
        elif max(losses) < self.first_loss:
            loss = forecast(losses, steps // self._validation_interval, passes=1)
        else:
            loss = losses[-1]
        worst = start + (WORST - 1) * abs(start)
        return min(loss, worst) if math.isfinite(loss) else worst

    @property
    def _validation_interval(self) -> int:
        return max(1, self.stage_steps[0] // VALIDATIONS)

    def _validation_loss(self) -> float:
        data = self.validation_data
        if isinstance(data, (tuple, list)):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            data, options = x, {"y": y, "sample_weight": sample_weight, "batch_size": self.validation_batch_size}
        else:
            options = {}
        logs = self.evaluate(data, **options)
        if self.monitor[0] not in logs:
            raise ValueError(
                f"`monitor` must be a value that `evaluate` returns, {sorted(logs)}. Received: {self.monitor[0]!r}"
            )
        return float(logs[self.monitor[0]])


def _variables_of_callbacks(model: keras.Model) -> list[tuple[keras.Variable, np.ndarray]]:
    """The variables of callbacks in the compiled step, which are in no snapshot, with their values."""
    variables = [each for each in model.optimizer.variables if getattr(each, "of_callback", False)]
    return [(each, np.array(keras.ops.convert_to_numpy(each))) for each in variables]
