"""The base of every law: a formula for the loss of a run, with numbers that were fitted to other runs."""

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.untrusted_file import refused
from keras_lrsched.laws import _uncertainty
from keras_lrsched.laws._uncertainty import Interval, LeaveOneOut, Refit
from keras_lrsched.schedules.schedule import ScheduleLike, as_schedule, compute

LAWS: dict[str, type["Law"]] = {}


if TYPE_CHECKING:
    from keras_lrsched.laws.loss_curve import LossCurve

RunRates: TypeAlias = ScheduleLike | Sequence[float] | np.ndarray
"""A schedule, or the learning rates of all updates of a run."""


class ExtrapolationWarning(UserWarning):
    """A law predicts runs unlike those that it was fitted to."""


class Law:
    """A prediction of the loss curve of a schedule before it is run.

    A subclass names its numbers in `parameters`, takes them as keyword arguments, and implements `loss_at` and `fit`.

    Attributes:
        fitted: What the law was fitted to: `steps`, the longest run, and `learning_rate`, the highest rate. Empty for a law
            that was made from numbers.
    """

    parameters: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[str, ...]] = ()
    """Further arguments of the constructor that are kept in the file."""

    def __init__(self) -> None:
        self.fitted: dict[str, float] = {}
        self._curves: list[LossCurve] = []
        self._refit: Refit | None = None
        self._left_out: LeaveOneOut | None = None

    @property
    def only_length(self) -> int | None:
        """The length of the only runs that the law is for, if there is one."""
        return None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        LAWS[cls.__name__] = cls

    def loss_at(self, learning_rate: np.ndarray, at: np.ndarray) -> np.ndarray:
        """The loss at updates `at`, 0-based, in a run with these rates, one an update."""
        raise NotImplementedError

    @classmethod
    def fit(cls, curves: Any) -> Self:
        """The law that describes measured curves best."""
        raise NotImplementedError

    def predict(
        self, schedule: RunRates, total_steps: int | None = None, at: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """The loss at each update of a run.

        Args:
            schedule: A `LearningRateSchedule`, a number, or the rates of all updates.
            total_steps: Updates of the run. Defaults to `None`: as many as there are rates.
            at: Updates to predict the loss at, 0-based. Defaults to `None`: all.

        Returns:
            A NumPy array, one loss for each of `at`; that of update t counts the rates up to and with update t.

        Raises:
            ValueError: If a learning rate is negative or not finite, all are 0, or `at` lies outside of the run.

        Warns:
            ExtrapolationWarning: If the run is longer, or its learning rate higher, than those that the law was fitted
                to, or if a predicted loss is below 0.
        """
        learning_rate = rates(schedule, total_steps)
        at = np.arange(len(learning_rate)) if at is None else updates("at", at)
        if at.size and not 0 <= at.min() <= at.max() < len(learning_rate):
            raise ValueError(f"`at` must lie in [0, {len(learning_rate)}). Received: at from {at.min()} to {at.max()}")
        self._warn_of_extrapolation(learning_rate)
        predicted = self.loss_at(learning_rate, at)
        self._warn_below_zero(predicted, at)
        return predicted

    def final_loss(self, schedule: RunRates, total_steps: int | None = None) -> float:
        """The predicted loss at the last update. Arguments as of `predict`."""
        learning_rate = rates(schedule, total_steps)
        return float(self.predict(learning_rate, at=[len(learning_rate) - 1])[0])

    def residuals(self, curve: "LossCurve") -> np.ndarray:
        """log(measured loss) - log(predicted loss) at each point of a `LossCurve`; infinite where that is below 0."""
        predicted = self._for(curve).predict(curve.rates, at=curve.step)
        with np.errstate(divide="ignore"):
            return np.log(curve.loss) - np.log(np.maximum(predicted, 0.0))

    def leave_one_out(self) -> LeaveOneOut:
        """The error to expect of a prediction: that of each curve, by the law that is fitted to all others.

        It is many times what the law misses the curves by that it was fitted to.

        Returns:
            A `LeaveOneOut`: `errors` of the final losses, their `mean` size and the `largest`, `names`, `measured` and
            `predicted`.

        Raises:
            ValueError: If the law was not fitted, but loaded or made from numbers; or if fewer than two curves can be left
                out.
        """
        if self._left_out is None:
            self._left_out = _uncertainty.leave_one_out(*self._need_curves())
        return self._left_out

    def interval(
        self,
        schedule: RunRates,
        total_steps: int | None = None,
        level: float = 0.9,
        method: str | None = None,
        samples: int = 200,
        seed: int = 0,
    ) -> Interval:
        """The predicted loss at the last update, and the interval in which it lies with a probability.

        It supposes that the schedule differs from those that the law was fitted to as much as they differ from each other.
        For a longer run, or a higher peak, it is too narrow: `ExtrapolationWarning`.

        Args:
            schedule: See `predict`.
            total_steps: See `predict`.
            level: The probability, between 0 and 1. Defaults to `0.9`.
            method: `"leave_one_out"`, by the errors of `leave_one_out` and Student's t; or `"bootstrap"`, by laws fitted to
                resampled curves, with resampled blocks of their residuals, each off by the error of a curve that it was not
                fitted to. Defaults to `None`: the bootstrap for 8 curves or more.
            samples: Resamples of the bootstrap. Defaults to `200`.
            seed: Of the bootstrap. Defaults to `0`.

        Returns:
            An `Interval(low, predicted, high)`.

        Raises:
            ValueError: As `leave_one_out`; if an argument is out of its range, or the method is `"bootstrap"` with fewer
                than 8 curves.
        """
        curves, refit = self._need_curves()
        few = len(curves) < _uncertainty.FEWEST_CURVES
        method = method or _uncertainty.METHODS[not few]
        level, samples = validation.inner_fraction("level", level), validation.positive_int("samples", samples)
        learning_rate = rates(schedule, total_steps)
        predicted = self.final_loss(learning_rate)
        if validation.one_of("method", method, _uncertainty.METHODS) == "leave_one_out":
            return _uncertainty.leave_one_out_interval(predicted, self.leave_one_out().errors, level)
        if few:
            raise ValueError(
                f"The bootstrap needs {_uncertainty.FEWEST_CURVES} curves or more. Received: method={method!r}, with a law "
                f"fitted to {len(curves)}"
            )
        last = np.array([len(learning_rate) - 1])

        def predict(law: Self) -> float:
            return float(self._in_place(law).loss_at(learning_rate, last)[0])

        return _uncertainty.bootstrap_interval(self, curves, refit, predict, level, samples, seed)

    def save(self, path: str | os.PathLike) -> None:
        """Write the law into a JSON file."""
        content = {"law": type(self).__name__, "fitted": self.fitted}
        content |= {name: getattr(self, name) for name in (*self.parameters, *self.options)}
        Path(path).expanduser().write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> Any:
        """The law in a file that `save` wrote; `Law.load` reads any kind.

        Raises:
            ValueError: If the file holds no law, one of another kind, or one whose numbers together give no finite loss.
        """
        with refused("law", path):
            content = json.loads(Path(path).expanduser().read_text())
            kind = LAWS[content.pop("law")]
            fitted = {name: validation.positive_float(name, value) for name, value in content.pop("fitted").items()}
            if fitted and fitted.keys() != {"steps", "learning_rate"}:
                raise ValueError(f"fitted to {', '.join(fitted)}")
            law = kind(**content)
            _refuse_unusable(law, fitted.get("learning_rate", 1e-3))
        if not isinstance(law, cls):
            raise ValueError(f"The file must hold a {cls.__name__}. Received: path={str(path)!r} with a {kind.__name__}")
        law.fitted = fitted
        return law

    def plot(
        self,
        schedule: RunRates,
        total_steps: int | None = None,
        curve: "LossCurve | None" = None,
        ax: Any = None,
    ) -> Any:
        """Draw the predicted curve, and a measured one beside it.

        Args:
            schedule: See `predict`.
            total_steps: See `predict`.
            curve: A `LossCurve` that was measured. Defaults to `None`.
            ax: Matplotlib axes to draw on. Defaults to `None`: new ones.

        Returns:
            The axes.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        learning_rate = rates(schedule, total_steps)
        at = np.unique(np.linspace(0, len(learning_rate) - 1, 500).astype(int))
        predicted = self.predict(learning_rate, at=at)
        late = predicted[at >= len(learning_rate) // 20]
        if curve is not None:
            ax.plot(curve.step, curve.loss, ".", markersize=2, color="0.6", label="measured")
            late = np.concatenate([late, curve.loss[curve.step >= len(learning_rate) // 20]])
        ax.plot(at, predicted, label=f"predicted ({type(self).__name__})")
        low, high = min(late.min(), predicted.min()), late[np.isfinite(late)].max()
        margin = max(0.05 * (high - low), 1e-3 * high)
        ax.set_ylim(low - margin, high + margin)  # the first losses are far above all others
        ax.set_xlabel("updates")
        ax.set_ylabel("loss")
        ax.legend(frameon=False)
        return ax

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={getattr(self, name):.6g}" for name in self.parameters)
        return f"{type(self).__name__}({numbers})"

    def _for(self, curve: "LossCurve") -> Self:
        """The law for the model of a curve; another one for laws over several models."""
        return self

    def _in_place(self, other: Self) -> Self:
        """Another fit of this law, for the model and the run that this one is for."""
        return other

    def _need_curves(self) -> tuple[list["LossCurve"], Refit]:
        if self._refit is None:
            raise ValueError(
                "An error needs the curves that the law was fitted to, which are not in a file: call `fit`. "
                f"Received: {self}"
            )
        return self._curves, self._refit

    def _fitted_to(self, curves: Any, refit: Refit) -> Self:
        """Keep the curves of the fit, and a function that repeats it with others."""
        self._curves, self._refit = list(curves), refit
        self.fitted = {
            "steps": max(len(curve.rates) for curve in curves),
            "learning_rate": max(float(curve.rates.max()) for curve in curves),
        }
        return self

    def _warn_of_extrapolation(self, learning_rate: np.ndarray) -> None:
        if not self.fitted:
            return
        for what, here, limit in (
            ("updates", len(learning_rate), self.fitted["steps"]),
            ("the peak learning rate", float(learning_rate.max()), self.fitted["learning_rate"]),
        ):
            if here > 1.001 * limit:
                warnings.warn(
                    f"{type(self).__name__} extrapolates: {what} {here:.6g} is {here / limit:.3g} times the largest that it "
                    f"was fitted to ({limit:.6g})",
                    ExtrapolationWarning,
                    stacklevel=4,
                )

    def _warn_below_zero(self, predicted: np.ndarray, at: np.ndarray) -> None:
        below = np.flatnonzero(predicted < 0)
        if len(below):
            worst = below[np.argmin(predicted[below])]
            warnings.warn(
                f"{type(self).__name__} predicts losses below 0, down to {predicted[worst]:.4g} at update {at[worst]}: the "
                "run is too unlike those that the law was fitted to",
                ExtrapolationWarning,
                stacklevel=4,
            )


def _refuse_unusable(law: Law, peak: float) -> None:
    """Numbers that are finite each, and together give no finite loss for a short run that decays from the peak."""
    steps = law.only_length or 8
    with np.errstate(all="ignore"):
        loss = law.loss_at(peak * np.linspace(1.0, 0.1, steps), np.arange(steps))
    if not np.all(np.isfinite(loss)):
        raise ValueError(f"{law} predicts losses from {np.min(loss)} to {np.max(loss)} for a learning rate of {peak}")


def rates(schedule: RunRates, total_steps: int | None = None) -> np.ndarray:
    """The rate of every update of a run, in float64.

    Raises:
        ValueError: If a learning rate is negative or not finite, all are 0, or there are not as many as `total_steps`.
    """
    if np.ndim(schedule) == 1:
        values = np.array(schedule, float)
        if total_steps not in (None, len(values)):
            raise ValueError(
                f"`total_steps` must be the number of rates, {len(values)}. Received: total_steps={total_steps}"
            )
    else:
        schedule = as_schedule("schedule", schedule)
        values = np.array(compute(schedule, np.arange(validation.positive_int("total_steps", total_steps)), np), float)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad) or not np.any(values > 0):
        what = f"{values[bad[0]]} at update {bad[0]} of" if len(bad) else "no learning rate above 0 in"
        raise ValueError(f"Learning rates must be finite, not negative, and not all 0. Received: {what} {schedule!r:.200}")
    return values


def updates(name: str, values: Any) -> np.ndarray:
    """A list of updates as an integer array.

    Raises:
        ValueError: If it is not one-dimensional, or holds anything but whole numbers.
    """
    found = np.atleast_1d(np.asarray(values))
    whole = found.dtype.kind in "iu" or (
        found.dtype.kind == "f" and np.all((np.abs(found) < 2.0**63) & (found == np.floor(found)))
    )
    if found.ndim != 1 or not whole:
        raise ValueError(f"`{name}` must be whole numbers in one dimension. Received: {name}={values!r:.200}")
    return found.astype(int)


def finite_numbers(law: Law, **values: float) -> None:
    """Set the parameters of a law: finite numbers."""
    for name, value in values.items():
        setattr(law, name, validation.finite_float(name, value))
