"""The fit of the convex bound to measured curves, by non-negative least squares."""

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched.laws import convex_bound_curve, regime
from keras_lrsched.laws.fitting import as_curves


def fit(kind, curves, skip, points):
    """See `ConvexBound.fit`."""
    curves, skip, points = as_curves(curves), validation.fraction("skip", skip), validation.positive_int("points", points)
    used = [curve.between(first) for curve in curves if (first := _first(curve, skip)) <= curve.step[-1]]
    measured = [curve.subsample(points) for curve in used]
    columns = np.concatenate([np.empty((0, 3)), *map(_rows, measured)])
    if len(columns) < 3:
        raise ValueError(f"The convex bound is fitted to three or more points after warmup. Received: {len(columns)}")
    size = columns.max(axis=0)
    (distance, norm, offset), _ = scipy.optimize.nnls(columns / size, np.ones(len(columns)))
    distance, norm, offset = np.array([distance, norm, offset]) / size
    if not (distance and norm):
        raise ValueError(
            "The curves do not fall as a convex problem's: fit to runs that differ in their learning rates. "
            f"Received: curves with a best distance^2 of {distance:.3g} and gradient_norm^2 of {norm:.3g}"
        )
    fitted = kind(distance**0.5, norm**0.5, offset)._fitted_to(curves)
    regime.check(fitted, measured)
    return fitted


def _first(curve, skip):
    """The first update that is used."""
    return max(curve.peak_step, int(skip * len(curve.rates)))


def _rows(curve):
    """The factors of distance^2, gradient_norm^2 and offset at the points of a curve, divided by the loss there."""
    initial, noise = convex_bound_curve.parts(curve.rates, np.ones(len(curve.rates)))
    return np.stack([initial, noise, np.ones(len(curve.rates))], axis=1)[curve.step] / curve.loss[:, None]
