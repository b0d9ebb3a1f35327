"""The final loss of a run, forecast while it is under way, and what may follow from it: an end, or the cooldown."""

import math
from os import PathLike
from typing import Any

import keras
import numpy as np

from keras_lrsched._core import backends, keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.callbacks.learning_rate_logger import writer_class
from keras_lrsched.laws import Law, LossCurve, forecast
from keras_lrsched.laws._forecast import LEAST_POINTS, used_part
from keras_lrsched.laws.law import rates
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.profiles import ProfileLike
from keras_lrsched.schedules.schedule import ScheduleLike

MOST_POINTS = 1024
"""Points of the curve that are kept: when there are as many, neighbors are merged."""

IN_A_ROW = 2
"""Forecasts that must agree before something is done."""


@register(
    title="Forecast of the final loss",
    kind="recorder",
)
class LossForecast(Controller):
    """Forecast of the final loss with an interval, while the run is under way; on request it acts on it.

    Every so many optimizer steps it calls `laws.forecast` with the losses of all batches so far, the learning rate of the
    whole run, and a law, if one is given. The last forecast of an epoch goes into `logs` as `loss_forecast`,
    `loss_forecast_low` and `loss_forecast_high`, so that the progress bar, `History`, and a `keras.callbacks.TensorBoard`
    that comes later in the list show it. With `log_dir`, all forecasts are drawn in TensorBoard under these names.

    It can act:

    - `stop_above`: the run ends when the whole interval lies above this loss, at two forecasts in a row.
    - `cooldown_steps`: the learning rate, which is constant until then, begins to fall to 0 by `cooldown` when waiting is
      expected to gain less than `min_gain` of the loss, at two forecasts in a row, or when as many steps are left. The run
      ends with the cooldown. Without a law, the gain is that of the curve itself over the rest of the
      plateau; with one, that of the later cooldown over an immediate one.

    Losses are training losses, of which the mean over many batches is the loss of the run; an epoch that repeats data has
    lower ones than new data would have.

    Args:
        total_steps: Optimizer steps of the run.
        schedule: The learning rate of the whole run: a schedule or a number. Defaults to `None`: the optimizer's.
        law: A `laws.Law` that was fitted to other runs of this model. Defaults to `None`.
        every: Optimizer steps between forecasts. Defaults to `100`.
        begin: The part of the run before the first forecast, in [0, 1). Defaults to `0.1`.
        level: The probability with which the loss lies in the interval. Defaults to `0.9`.
        stop_above: A loss, positive. Defaults to `None`, for no end.
        cooldown_steps: Steps of the cooldown. Defaults to `None`, for none.
        cooldown: A `Profile`, its name or config. Defaults to `"one_minus_sqrt"`.
        min_gain: A part of the loss, in [0, 1]. Defaults to `0.005`.
        log_dir: Folder for TensorBoard event files. Defaults to `None`, for none.
        monitor: The value of a batch to forecast. Defaults to `"loss"`.

    Attributes:
        history: A list of `[step, low, predicted, high]`.
        cooldown_begin: The step at which the cooldown began, or `None`.

    Raises:
        ImportError: If `log_dir` is given and TensorBoard is not installed.
        ValueError: At construction, if an argument is out of its range, or `cooldown_steps` comes with a `schedule`. When
            `fit` begins, as `Controller`, but the learning rate may be a schedule if there are no `cooldown_steps`; and if
            the optimizer has neither a number nor a schedule, and there is no `schedule`.

    Example:

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(2000, 4))
    >>> y = x @ np.ones((4, 1)) + np.random.default_rng(1).normal(size=(2000, 1))
    >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.01), loss="mse")
    >>> forecasts = LossForecast(total_steps=1000, every=100)
    >>> history = model.fit(x, y, batch_size=8, epochs=4, verbose=0, callbacks=[forecasts])
    >>> step, low, predicted, high = forecasts.history[-1]
    >>> step, low < predicted < high
    (900, True)
    """

    saved = ("losses", "width", "rates", "block", "peak", "history", "above", "idle", "cooldown_begin")

    def __init__(
        self,
        total_steps: int,
        schedule: ScheduleLike | None = None,
        law: Law | None = None,
        every: int = 100,
        begin: float = 0.1,
        level: float = 0.9,
        stop_above: float | None = None,
        cooldown_steps: int | None = None,
        cooldown: ProfileLike = "one_minus_sqrt",
        min_gain: float = 0.005,
        log_dir: str | PathLike | None = None,
        monitor: str = "loss",
    ) -> None:
        super().__init__(monitor)
        self.total_steps = validation.positive_int("total_steps", total_steps)
        self.schedule, self.law = schedule, law
        if law is not None and not isinstance(law, Law):
            raise ValueError(f"`law` must be a `laws.Law`. Received: law={law!r}")
        self.every = validation.positive_int("every", every)
        self.begin_fraction = validation.beta("begin", begin)
        self.level = validation.inner_fraction("level", level)
        self.stop_above = None if stop_above is None else validation.positive_float("stop_above", stop_above)
        self.sets_learning_rate = cooldown_steps is not None
        self.cooldown_steps: Any = None
        if self.sets_learning_rate:
            self.cooldown_steps = validation.positive_int("cooldown_steps", cooldown_steps)
            validation.shorter("cooldown_steps", cooldown_steps, "total_steps", total_steps)
            if schedule is not None:
                raise ValueError(
                    "`cooldown_steps` sets the learning rate of the rest of the run: leave out `schedule`. "
                    f"Received: cooldown_steps={cooldown_steps}, schedule={schedule!r:.100}"
                )
        self.cooldown = profiles.get(cooldown)
        self.min_gain = validation.fraction("min_gain", min_gain)
        self.log_dir = log_dir
        self._writer: Any = None
        self.losses: list[float] = []  # means of `width` steps each
        self.width = 1
        self.block: list[float] = []  # the losses of the steps behind the last of these
        self._used = 0.0
        self.rates: list[float] = []  # what each step used, where no schedule gives it
        self.peak = 0.0
        self.above = 0  # forecasts in a row that lie above `stop_above`
        self.idle = 0  # forecasts in a row by which waiting gains too little
        self.history: list[list[float]] = []
        self.cooldown_begin: Any = None
        if log_dir is not None:
            writer_class()

    def begin(self) -> None:
        setting = None if self.optimizer is None else keras_private.learning_rate_setting(self.optimizer)
        known = setting if self.schedule is None else self.schedule
        self._whole = None if isinstance(known, keras.Variable) else self._values_of(known)
        if self.log_dir is not None and backends.is_first_worker(self._trainer):
            self._writer = writer_class()(str(self.log_dir))

    def before_update(self) -> None:
        if self.cooldown_begin is not None:
            done = (self.step - self.cooldown_begin) / self.cooldown_steps
            self.learning_rate = self.peak * float(self.cooldown(min(done, 1.0)))
        if self._whole is None:
            self._used = self.learning_rate

    def after_update(self) -> None:
        self._record()
        is_due = self.step % self.every == 0 and self.begin_fraction * self.total_steps <= self.step < self._end
        has_forecast = is_due and self._forecast()
        if has_forecast and self.stop_above is not None:
            self.above = self.above + 1 if self.history[-1][1] > self.stop_above else 0
        if self.cooldown_steps is not None and self.cooldown_begin is None:
            if has_forecast:
                self.idle = self.idle + 1 if self._gain() < self.min_gain else 0
            if self.idle == IN_A_ROW or self.step >= self.total_steps - self.cooldown_steps:
                self.cooldown_begin, self.peak = self.step, self._used
        is_over = self.cooldown_begin is not None and self.step >= self._end
        if self.above == IN_A_ROW or is_over:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if logs is not None:
            low, predicted, high = self.history[-1][1:] if self.history else (math.nan,) * 3
            logs.update(loss_forecast=predicted, loss_forecast_low=low, loss_forecast_high=high)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def _end(self) -> int:
        """The number of steps that the run will have."""
        return self.total_steps if self.cooldown_begin is None else self.cooldown_begin + self.cooldown_steps

    def _values_of(self, schedule: Any) -> np.ndarray:
        if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule | int | float):
            raise ValueError(
                "LossForecast needs the learning rate of the run, which the optimizer has neither as a number nor as a "
                f"schedule: give it as `schedule`. Received: {schedule!r:.100}"
            )
        return rates(schedule, self.total_steps)

    def _record(self) -> None:
        self.block.append(self.loss)
        if self._whole is None:
            self.rates.append(self._used)
        if len(self.block) == self.width:
            self.losses.append(float(np.mean(self.block)))
            self.block = []
        if len(self.losses) == MOST_POINTS:
            self.losses = np.reshape(self.losses, (-1, 2)).mean(axis=1).tolist()
            self.width *= 2

    def _curve(self, learning_rate: np.ndarray) -> LossCurve | None:
        """The curve so far, or `None` while no loss of it is positive and finite."""
        loss = np.array(self.losses)
        step = np.arange(len(loss)) * self.width + self.width // 2
        usable = np.isfinite(loss) & (loss > 0)
        return LossCurve(loss[usable], learning_rate, step[usable]) if usable.any() else None

    def _learning_rates(self, cooldown_begin: int | None) -> np.ndarray:
        """Those of the whole run, if the cooldown begins at some step, or never does."""
        if self._whole is not None:
            return self._whole
        now = np.array(self.rates)
        if cooldown_begin is None:
            return np.append(now, np.full(max(self.total_steps - len(now), 0), now[-1]))
        plateau = np.full(max(cooldown_begin - len(now), 0), now[-1])
        peak = self.peak or now[-1]
        fall = peak * self.cooldown(np.arange(self.cooldown_steps) / self.cooldown_steps)
        return np.concatenate([now[:cooldown_begin], plateau, fall])

    def _forecast(self) -> bool:
        """Add a forecast to the history; return whether the curve was long enough for one."""
        begin = self.cooldown_begin
        if begin is None and self.cooldown_steps is not None:
            begin = self.total_steps - self.cooldown_steps
        learning_rate = self._learning_rates(begin)
        curve = self._curve(learning_rate)
        if curve is None or len(used_part(curve).loss) < LEAST_POINTS:
            return False
        found = forecast(curve, law=self.law, level=self.level)
        self.history.append([self.step, *found])
        if self._writer is not None:
            for name, value in zip(("_low", "", "_high"), found, strict=True):
                self._writer.add_scalar("loss_forecast" + name, value, self.step)
            self._writer.flush()
        return True

    def _gain(self) -> float:
        """The expected gain of waiting with the cooldown for as long as possible, as a part of the loss."""
        late = self.total_steps - self.cooldown_steps
        if self.law is not None:
            now, then = (self.law.final_loss(self._learning_rates(begin)) for begin in (self.step, late))
            return 1 - then / now
        curve: Any = self._curve(self._learning_rates(late)[:late])
        latest = curve.between(0.9 * self.step).loss.mean()
        return float(1 - forecast(curve).predicted / latest) if self.step + 1 < late else 0.0
