"""Diagnostics of a fit: whether curves are those of runs that a smooth law describes, and a warning if not."""

import warnings
from collections.abc import Sequence

import numpy as np

from keras_lrsched.laws.law import Law
from keras_lrsched.laws.loss_curve import LossCurve

STEEPER = 1.5
"""A slope that has grown by this factor, and by more than its errors, is a change of regime."""
MISFIT = 0.01
"""A part of the loss: curve and law that differ by more for an eighth of the run do not belong together."""


class RegimeWarning(UserWarning):
    """A curve bends as no smooth law does: it leaves a plateau, diverges, or changes its data."""


class IdentifiabilityWarning(UserWarning):
    """The curves that a law was fitted to do not determine all of its parameters."""


def check_decays(curves: Sequence[LossCurve], parameters: str, advice: str) -> None:
    """Warn if the learning rate falls in one way only in all of the curves that a law was fitted to.

    What a fall brings, and how soon, then cannot be distinguished: laws with other parameters describe the curves as well,
    and predict other schedules differently.
    """
    if len(decays(curves)) < 2:
        warnings.warn(
            f"All curves in which the learning rate falls have the same decay, which does not determine {parameters}: add a "
            f"curve with a decay of another length, or {advice}. `leave_one_out` and `interval` show the error to expect.",
            IdentifiabilityWarning,
            stacklevel=4,  # the caller of the law's `fit`
        )


def check_sizes(curves: Sequence[LossCurve]) -> None:
    """Warn if the models of the curves have only two sizes, which do not determine where the loss of large ones ends."""
    if len({curve.model_parameters for curve in curves}) < 3:
        warnings.warn(
            "Models of two sizes do not determine L0, B and beta: predictions for other sizes than these are uncertain.",
            IdentifiabilityWarning,
            stacklevel=4,  # the caller of the law's `fit`
        )


def decays(curves: Sequence[LossCurve]) -> set[tuple[int, bytes]]:
    """The different ways in which the learning rate falls after warmup: over how many updates, and its course over these
    relative to the peak, to 1 %.
    """
    found = set()
    for curve in curves:
        seen = curve.rates[curve.peak_step : curve.step[-1] + 1]
        if np.any(np.diff(seen) < 0):
            course = np.interp(np.linspace(0, len(seen) - 1, 50), np.arange(len(seen)), seen / seen.max())
            found.add((len(seen), np.round(course, 2).tobytes()))
    return found


def check(law: Law, curves: Sequence[LossCurve]) -> None:
    """Warn if one of the curves that a law was fitted to leaves a plateau, or is missed by the law.

    Under a constant rate a power law loses ever less for each doubling of what was spent. A model that forms a new ability
    late in the run loses more.
    """
    for number, curve in enumerate(curves):
        early, late = slopes(curve)
        if late > STEEPER * early:
            _warn(
                f"{_name(curve, number)} falls faster late ({late:.3g} for each factor of e in the learning rate spent) "
                f"than early ({early:.3g}): it leaves a plateau, and what comes next cannot be foreseen. Fit longer runs."
            )
        _warn_of_misfit(law, curve, number)


def check_misfit(law: Law, curves: Sequence[LossCurve]) -> None:
    """Warn if one of the curves that a law was fitted to is missed by the law."""
    for number, curve in enumerate(curves):
        _warn_of_misfit(law, curve, number)


def slopes(curve: LossCurve) -> tuple[float, float]:
    """-dL / d ln S1 under the peak rate: early and late, each moved by two standard errors towards the other.

    Early is from a tenth of these updates to half of them in ln S1. A curve with fewer than 40 points there gives 0, 0.
    """
    at_peak = curve.learning_rate > 0.99 * curve.rates.max()
    x, y = np.log(np.cumsum(curve.rates)[curve.step][at_peak]), curve.loss[at_peak]
    x, y = x[len(x) // 10 :], y[len(y) // 10 :]
    if len(x) < 40:
        return 0.0, 0.0
    middle = (x[0] + x[-1]) / 2
    (early, its_error), (late, error) = (_line(x[part], y[part]) for part in (x < middle, x >= middle))
    return max(early, 0.0) + 2 * its_error, late - 2 * error


def lasting_misfit(law: Law, curve: LossCurve) -> float:
    """The largest mean difference of log loss over an eighth of the points, less twice its error."""
    residuals = law.residuals(curve)
    if not np.all(np.isfinite(residuals)):
        return np.inf
    eighths = [part for part in np.array_split(residuals, 8) if len(part) > 1]
    sizes = [abs(part.mean()) - 2 * part.std(ddof=1) / len(part) ** 0.5 for part in eighths]
    return max(sizes, default=0.0)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Minus the slope of a line through the points, and its standard error."""
    x = x - x.mean()
    slope = np.sum(x * y) / np.sum(x * x)
    error = np.std(y - y.mean() - slope * x, ddof=2) / np.sum(x * x) ** 0.5
    return -slope, error


def _warn_of_misfit(law: Law, curve: LossCurve, number: int) -> None:
    misfit = lasting_misfit(law, curve)
    if misfit > MISFIT:
        _warn(
            f"{_name(curve, number)} is missed by {misfit:.1%} of the loss over an eighth of the run: "
            f"{type(law).__name__} does not fit.",
            depth=6,
        )


def _name(curve: LossCurve, number: int) -> str:
    return curve.name or f"curve {number}"


def _warn(message: str, depth: int = 5) -> None:  # the caller of the law's `fit`
    warnings.warn(message, RegimeWarning, stacklevel=depth)
