"""The base of laws over runs: a formula for the final loss from model size, tokens, and what else is known of a run."""

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.untrusted_file import refused
from keras_lrsched.laws._uncertainty import FEWEST_CURVES, METHODS, Interval, LeaveOneOut
from keras_lrsched.laws.law import ExtrapolationWarning
from keras_lrsched.laws.run_table import FLOPS, Runs, RunTable, as_runs

RUN_LAWS: dict[str, type["RunLaw"]] = {}
OUTLIER = 0.1
"""A residual of the logarithm that is larger belongs to another kind of run, or to a mistake in the table."""


class FitWarning(UserWarning):
    """A fit, or a set of coefficients, that should not be relied on: outliers, rounded constants."""


class RunLaw:
    """A prediction of the final loss of a run from numbers that describe it, fitted to other runs.

    A subclass names its numbers in `coefficients`, takes them as keyword arguments, and implements `value_at` and `fit_to`.

    Attributes:
        fitted: What the law was fitted to: the smallest and the largest of each column of the runs. Empty for a law that was
            made from numbers.
    """

    coefficients: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[str, ...]] = ()
    """Further arguments of the constructor that are kept in the file."""
    columns: tuple[str, ...] = ("parameters", "tokens")
    """The columns of a `RunTable` that the law predicts from."""
    target: ClassVar[str] = "loss"
    """The column that it predicts."""
    least_runs: ClassVar[int] = 6

    def __init__(self) -> None:
        self.fitted: dict[str, list[float]] = {}
        self._runs: RunTable | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.coefficients:
            RUN_LAWS[cls.__name__] = cls

    def value_at(self, *columns: np.ndarray) -> np.ndarray:
        """The formula: the target from the `columns`, without checks."""
        raise NotImplementedError

    def fit_to(self, runs: RunTable) -> Self:
        """The law of this kind and with these options that describes checked runs best; the search may start here."""
        raise NotImplementedError

    def alternatives(self, runs: RunTable) -> list["RunLaw"]:
        """Laws of other forms, fitted to the same runs: what they predict differently is the error of the form."""
        return []

    def check_identified(self, runs: RunTable) -> None:
        """Raise if these runs do not determine a law of this kind.

        Raises:
            ValueError: If there are too few runs, or all have the same value in one of the `columns`.
        """
        if runs.distinct < self.least_runs:
            raise ValueError(
                f"{type(self).__name__} has {len(self.coefficients)} numbers and needs {self.least_runs} runs or more. "
                f"Received: {runs.distinct} runs"
            )
        for name in self.columns:
            column = runs.column(name)
            if column.max() <= 1.001 * column.min():
                raise ValueError(
                    f"{type(self).__name__} needs runs that differ in `{name}`. Received: {name}={column[0]:.6g} in all runs"
                )

    def residuals(self, runs: Runs) -> np.ndarray:
        """log(measurement) - log(prediction) of each run."""
        runs = as_runs(runs)
        return np.log(runs.column(self.target)) - np.log(self._predicted(runs))

    def refits(self, method: str | None = None, samples: int = 200, seed: int = 0) -> list[Self]:
        """Laws that were fitted to parts of the runs: the spread of anything that follows from the law.

        Whole runs are resampled, never single points of one run: these are not independent. Parts that determine no law are
        left out; the bootstrap has fewer laws than `samples` then.

        Args:
            method: `"bootstrap"`, as many runs as there are, drawn with replacement; or `"leave_one_out"`, each time all but
                one. Defaults to `None`: the bootstrap for 8 runs or more.
            samples: Refits of the bootstrap. Defaults to `200`.
            seed: Of the bootstrap. Defaults to `0`.

        Raises:
            ValueError: If the law was not fitted, but loaded or made from numbers; if the method is `"bootstrap"` with fewer
                than 8 runs; or if fewer than half of the parts determine a law.
        """
        runs = self._known_runs()
        groups, method = runs.groups(), self._method(method)
        if method == "leave_one_out":
            choices = [[number for number in range(len(groups)) if number != left_out] for left_out in range(len(groups))]
        else:
            samples = validation.positive_int("samples", samples)
            choices = np.random.default_rng(seed).integers(len(groups), size=(samples, len(groups))).tolist()
        found = [self._refit(runs.take(np.concatenate([groups[number] for number in numbers]))) for numbers in choices]
        laws = [law for law in found if law is not None]
        if 2 * len(laws) < len(found):
            raise ValueError(
                f"{type(self).__name__} needs more runs for an interval: {len(laws)} of {len(found)} parts determine one. "
                f"Received: {len(groups)} runs"
            )
        return laws

    def interval(
        self,
        *columns: Any,
        level: float = 0.9,
        method: str | None = None,
        samples: int = 200,
        seed: int = 0,
        forms: bool = True,
    ) -> Interval:
        """The prediction for a run with an interval.

        It is that of the law, not of one measurement: the noise of a run comes on top (see `leave_one_out`).

        Args:
            *columns: The `columns` of the law, in this order; numbers or arrays.
            level: The share of the refits inside; of `"leave_one_out"`, always all. Defaults to `0.9`.
            method: See `refits`. Defaults to `None`: the bootstrap for 8 runs or more.
            samples: See `refits`. Defaults to `200`.
            seed: See `refits`. Defaults to `0`.
            forms: Whether the interval is widened to what laws of other forms predict (see `alternatives`): most of the
                error of an extrapolation. Defaults to `True`.

        Returns:
            An `Interval(low, predicted, high)`.

        Raises:
            ValueError: As `refits`.

        Warns:
            ExtrapolationWarning: If the run lies outside of those that the law was fitted to.
        """
        level, runs, values = self._level(level, method), self._known_runs(), self._inputs(columns)
        predicted = self._predict(*columns)
        low, high = _range([law.value_at(*values) for law in self.refits(method, samples, seed)], level)
        others = [law.value_at(*values) for law in self.alternatives(runs)] if forms else []
        low, high = np.min([low, predicted, *others], axis=0), np.max([high, predicted, *others], axis=0)
        return Interval(_plain(low), predicted, _plain(high))

    def coefficient_intervals(
        self, level: float = 0.9, method: str | None = None, samples: int = 200, seed: int = 0
    ) -> dict[str, Interval]:
        """Each coefficient with an interval. They trade off against each other: report none without it.

        Arguments as of `interval`.
        """
        level, laws = self._level(level, method), self.refits(method, samples, seed)
        found = {}
        for name in self.coefficients:
            low, high = _range([getattr(law, name) for law in laws], level)
            found[name] = Interval(float(low), getattr(self, name), float(high))
        return found

    def leave_one_out(self) -> LeaveOneOut:
        """The error to expect for another run of this kind: that of each run, by the law that is fitted to all others.

        Returns:
            A `LeaveOneOut`: `errors`, their `mean` size and the `largest`, `names`, `measured` and `predicted`.

        Raises:
            ValueError: If the law was not fitted, or the others do not determine it for two runs or more.
        """
        runs = self._known_runs()
        predicted = np.full(len(runs), np.nan)
        for rows in runs.groups():
            law = self._refit(runs.take(np.setdiff1d(np.arange(len(runs)), rows)))
            if law is not None:
                predicted[rows] = law._predicted(runs.take(rows))
        names = [f"row {row}" for row in range(len(runs))] if runs.run is None else [str(label) for label in runs.run]
        found = LeaveOneOut(tuple(names), runs.column(self.target), predicted)
        if len(found.errors) < 2:
            raise ValueError(f"The runs must determine the law without any one of them. Received: {len(runs)} runs")
        return found

    def save(self, path: str | os.PathLike) -> None:
        """Write the law into a JSON file, without its runs."""
        content = {"law": type(self).__name__, "fitted": self.fitted}
        content |= {name: getattr(self, name) for name in (*self.coefficients, *self.options)}
        Path(path).expanduser().write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> Any:
        """The law in a file that `save` wrote; `RunLaw.load` reads any kind. It has no runs: `refits` and `interval` raise.

        Raises:
            ValueError: If the file holds no law over runs, one of another kind, or one that predicts no finite number.
        """
        with refused("law over runs", path):
            content = json.loads(Path(path).expanduser().read_text())
            kind = RUN_LAWS[content.pop("law")]
            fitted = {name: _limits(name, value) for name, value in content.pop("fitted").items()}
            law = kind(**content)
            law._refuse_unusable()
        if not isinstance(law, cls):
            raise ValueError(f"The file must hold a {cls.__name__}. Received: path={str(path)!r} with a {kind.__name__}")
        law.fitted = fitted
        return law

    def plot(self, runs: Runs | None = None, ax: Any = None) -> Any:
        """Draw predicted against measured values, the runs of the fit and others.

        Args:
            runs: Runs that the law was not fitted to. Defaults to `None`.
            ax: Matplotlib axes to draw on. Defaults to `None`: new ones.

        Returns:
            The axes.

        Raises:
            ValueError: If there are neither `runs` nor, after `load`, those of the fit.
        """
        tables = {"fitted": self._runs, "not fitted": None if runs is None else as_runs(runs)}
        known = {label: table for label, table in tables.items() if table is not None} or {"fitted": self._known_runs()}
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        ends = []
        for label, table in known.items():
            measured, predicted = table.column(self.target), self._predicted(table)
            ax.plot(measured, predicted, "o" if label == "fitted" else "s", markersize=4, label=label)
            ends += [measured.min(), measured.max()]
        ax.plot([min(ends), max(ends)], [min(ends), max(ends)], color="0.6", linewidth=1, label="exact")
        ax.set_xlabel(f"measured {self.target}")
        ax.set_ylabel(f"predicted {self.target} ({type(self).__name__})")
        ax.legend(frameon=False)
        return ax

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={getattr(self, name):.6g}" for name in self.coefficients)
        return f"{type(self).__name__}({numbers})"

    def _fitted(self, runs: Runs, exclude: Sequence[int]) -> Self:
        """The law that describes runs best, with what it was fitted to; warns of outliers."""
        runs = as_runs(runs)
        rows = runs.left(exclude)
        runs = runs.take(rows)
        self.check_identified(runs)
        law = self.fit_to(runs)
        law._runs = runs
        named = {name: runs.column(name) for name in law.columns}
        if {"parameters", "tokens"} <= named.keys():
            named["compute"] = runs.column("compute")
        law.fitted = {name: [float(column.min()), float(column.max())] for name, column in named.items()}
        law._warn_of_outliers(runs, rows)
        return law

    def _predict(self, *columns: Any) -> Any:
        """The target for runs that may lie outside of what the law was fitted to, with a warning if they do."""
        values = self._inputs(columns)
        named = dict(zip(self.columns, values, strict=True))
        if {"parameters", "tokens"} <= named.keys():
            named["compute"] = FLOPS * named["parameters"] * named["tokens"]
        self._warn_of_extrapolation(named)
        return _plain(self.value_at(*values))

    def _predicted(self, runs: RunTable) -> np.ndarray:
        return self.value_at(*(runs.column(name) for name in self.columns))

    def _inputs(self, columns: Sequence[Any]) -> list[np.ndarray]:
        if len(columns) != len(self.columns):
            raise ValueError(f"{type(self).__name__} takes {', '.join(self.columns)}. Received: {len(columns)} values")
        return [_positive(name, column) for name, column in zip(self.columns, columns, strict=True)]

    def _refit(self, runs: RunTable) -> Self | None:
        """`fit_to` for a part of the runs; `None` if that determines no law."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.check_identified(runs)
                law = self.fit_to(runs)
        except (ValueError, RuntimeError):
            return None
        return law if np.all(np.isfinite(law._predicted(runs))) else None

    def _method(self, method: str | None) -> str:
        """The method of an interval, for so many runs."""
        few = len(self._known_runs().groups()) < FEWEST_CURVES
        method = validation.one_of("method", method or METHODS[not few], METHODS)
        if few and method == "bootstrap":
            raise ValueError(
                f"The bootstrap needs {FEWEST_CURVES} runs or more. Received: method={method!r}, with a law fitted to "
                f"{len(self._known_runs().groups())}"
            )
        return method

    def _level(self, level: float, method: str | None) -> float:
        return 1.0 if self._method(method) == "leave_one_out" else validation.inner_fraction("level", level)

    def _known_runs(self) -> RunTable:
        if self._runs is None:
            raise ValueError("The law must have its runs, which are not in its file: `fit` again. Received: a law without")
        return self._runs

    def _refuse_unusable(self) -> None:
        with np.errstate(all="ignore"):
            values = self.value_at(*(np.array([1e6, 1e9]) for _ in self.columns))
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{self} predicts {values} for {', '.join(self.columns)} of 1e6 and 1e9")

    def _warn_of_outliers(self, runs: RunTable, rows: np.ndarray) -> None:
        residuals = self.residuals(runs)
        outliers = rows[np.abs(residuals) > OUTLIER]
        if len(outliers):
            worst = np.argmax(np.abs(residuals))
            warnings.warn(
                f"{type(self).__name__} misses {len(outliers)} of {len(runs)} runs by more than {OUTLIER:.0%}, row "
                f"{rows[worst]} by {residuals[worst]:+.1%}: look at them; exclude={outliers.tolist()[:10]} fits without",
                FitWarning,
                stacklevel=4,
            )

    def _warn_of_extrapolation(self, columns: dict[str, np.ndarray]) -> None:
        for name, (low, high) in self.fitted.items():
            if name not in columns:
                continue
            largest, smallest = float(np.max(columns[name])), float(np.min(columns[name]))
            if largest > 1.001 * high:
                self._warn(f"{name} {largest:.6g} is {largest / high:.3g} times the largest", high)
            if smallest < low / 1.001:
                self._warn(f"{name} {smallest:.6g} is 1/{low / smallest:.3g} of the smallest", low)

    def _warn(self, what: str, limit: float) -> None:
        warnings.warn(
            f"{type(self).__name__} extrapolates: {what} that it was fitted to ({limit:.6g})",
            ExtrapolationWarning,
            stacklevel=5,
        )


def positive_coefficients(law: RunLaw, **values: float) -> None:
    """Set coefficients of a law: positive numbers."""
    for name, value in values.items():
        setattr(law, name, validation.positive_float(name, value))


def _positive(name: str, values: Any) -> np.ndarray:
    found = np.asarray(values, float)
    if not (found.size and np.all(np.isfinite(found) & (found > 0))):
        raise ValueError(f"`{name}` must be positive. Received: {name}={values!r:.200}")
    return found


def _plain(values: Any) -> Any:
    """A float for one number, else an array."""
    return float(values) if np.ndim(values) == 0 else values


def _range(values: list[Any], level: float) -> tuple[np.ndarray, np.ndarray]:
    """The middle part of values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _limits(name: str, value: Any) -> list[float]:
    limits = validation.each(name, value, validation.positive_float)
    if len(limits) != 2 or limits[0] > limits[1]:
        raise ValueError(f"`{name}` must be its smallest and its largest value. Received: {name}={value!r:.100}")
    return limits
