"""The error of a law on runs that it was not fitted to: left-out curves, and resampled ones."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import scipy

if TYPE_CHECKING:
    from keras_lrsched.laws.loss_curve import LossCurve

Refit: TypeAlias = Callable[[Any], Any]
"""Fits the same law, with the same options, to other curves."""
METHODS = ("leave_one_out", "bootstrap")
FEWEST_CURVES = 8
"""With fewer curves, resampling them repeats the same few: errors of left-out curves are used instead."""
LAST = 0.02
"""The part of a run whose mean is its final loss."""
BLOCKS = 10
"""The parts of a curve whose residuals are resampled together: neighbors in a curve are not independent."""


class Interval(NamedTuple):
    """A prediction, and the interval around it."""

    low: float
    predicted: float
    high: float


@dataclass(frozen=True)
class LeaveOneOut:
    """The final losses of runs, each predicted by the law that was fitted to all others."""

    names: tuple[str, ...]
    measured: np.ndarray
    """The mean loss of the last 2 % of each run."""
    predicted: np.ndarray
    """Not a number where the other curves do not determine the law."""

    @property
    def errors(self) -> np.ndarray:
        """predicted / measured - 1, where it is known."""
        errors = self.predicted / self.measured - 1
        return errors[np.isfinite(errors)]

    @property
    def mean(self) -> float:
        """The mean size of the errors: what to expect of a prediction for another schedule."""
        return float(np.mean(np.abs(self.errors)))

    @property
    def largest(self) -> float:
        """The size of the largest error."""
        return float(np.max(np.abs(self.errors)))


def leave_one_out(curves: Sequence["LossCurve"], refit: Refit) -> LeaveOneOut:
    """Fit the law once without each of the curves, and predict the end of this one.

    Raises:
        ValueError: If there are fewer than two curves for which this is possible.
    """
    predicted = []
    for left_out in range(len(curves)):
        law = _quietly(refit, [curve for number, curve in enumerate(curves) if number != left_out])
        predicted.append(np.nan if law is None else predicted_final(law, curves[left_out]))
    names = tuple(curve.name or f"curve {number}" for number, curve in enumerate(curves))
    found = LeaveOneOut(names, np.array([final(curve) for curve in curves]), np.array(predicted))
    if len(found.errors) < 2:
        raise ValueError(
            "Errors of left-out curves need two curves or more that can be left out; the law can be fitted without "
            f"{len(found.errors)} of these. Received: curves={', '.join(names)}"
        )
    return found


def leave_one_out_interval(predicted: float, errors: np.ndarray, level: float) -> Interval:
    """The interval in which the loss lies if its error is one more of those of the left-out curves.

    The errors of the logarithm have mean 0 and an unknown size, estimated from n of them: Student's t with n degrees.
    """
    logs = np.log1p(errors)
    reach = scipy.stats.t.ppf((1 + level) / 2, len(logs)) * np.sqrt(np.mean(logs**2))
    return Interval(float(predicted * np.exp(-reach)), predicted, float(predicted * np.exp(reach)))


def bootstrap_interval(
    law: Any,
    curves: Sequence["LossCurve"],
    refit: Refit,
    predict: Callable[[Any], float],
    level: float,
    samples: int,
    seed: int,
) -> Interval:
    """The interval of predictions of laws that were fitted to resampled curves, each off by the error of a curve left out.

    Curves are drawn with replacement, and in each the residuals of blocks. A resample without the error of a left-out curve
    would only show how well the law's numbers are known, not whether the law is right. The quantiles of so few errors are
    too close, as those of a normal distribution with an estimated size would be: they are widened as Student's t is.

    Raises:
        ValueError: If fewer than half of the resamples can be fitted.
    """
    generator, found = np.random.default_rng(seed), []
    for _ in range(samples):
        drawn = generator.integers(len(curves), size=len(curves))
        left_out = np.setdiff1d(np.arange(len(curves)), drawn)
        other = _quietly(refit, [_resampled(law, curves[number], generator) for number in drawn])
        if other is None or not len(left_out):
            continue
        curve = curves[generator.choice(left_out)]
        found.append(predict(other) * final(curve) / predicted_final(other, curve))
    if 2 * len(found) < samples:
        raise ValueError(f"The law can be fitted to {len(found)} of {samples} resamples. Received: {len(curves)} curves")
    predicted, upper = predict(law), (1 + level) / 2
    widened = scipy.stats.t.ppf(upper, len(curves) - 1) / scipy.stats.norm.ppf(upper)
    low, high = np.exp(widened * np.quantile(np.log(np.divide(found, predicted)), [1 - upper, upper]))
    return Interval(float(predicted * low), predicted, float(predicted * high))


def final(curve: "LossCurve") -> float:
    """The mean loss of the last 2 % of a run, at least that of its last point."""
    return float(curve.loss[_last(curve)].mean())


def predicted_final(law: Any, curve: "LossCurve") -> float:
    """The mean of the predicted losses at the points that `final` takes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a longer run than all others extrapolates, which its error shows
        return float(law._for(curve).predict(curve.rates, at=curve.step[_last(curve)]).mean())


def _last(curve: "LossCurve") -> np.ndarray:
    return np.flatnonzero(curve.step >= min((1 - LAST) * len(curve.rates), curve.step[-1]))


def _resampled(law: Any, curve: "LossCurve", generator: np.random.Generator) -> "LossCurve":
    """The curve as it might have been: what the law predicts, and residuals drawn in blocks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        residuals = law.residuals(curve)
    length = -(-len(residuals) // BLOCKS)
    starts = generator.integers(len(residuals) - length + 1, size=BLOCKS)
    drawn = np.concatenate([residuals[start : start + length] for start in starts])[: len(residuals)]
    return replace(curve, loss=curve.loss * np.exp(drawn - residuals))


def _quietly(refit: Refit, curves: list) -> Any:
    """The law that was fitted to these curves, or `None` if they do not suffice for one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return refit(curves)
        except ValueError:
            return None
