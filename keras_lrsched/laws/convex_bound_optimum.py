"""The schedule with the lowest convex bound: among all, and among those below a peak."""

import numpy as np
import scipy


def free(norms):
    """The rates with the lowest bound for their sum, 1."""
    cost, parts = norms[-1] ** 2 / 2, [1.0]
    for square in norms[-2::-1] ** 2:
        root = np.sqrt(1 + 2 * cost / square)
        parts.append((root - 1) / root)
        cost = square * (root - 1)
    part = np.array(parts[::-1])
    return part * np.append(1.0, np.cumprod(1 - part[:-1]))


def capped(bound, norms, peak, warmup):
    """min(peak, a * free) with the best a, behind a warmup of given rates.

    Whatever the rates before, those from some update on have the lowest bound for their sum if they are `free`. So where
    these fall from update to update, as for equal norms, no schedule below the peak has a lower bound.
    """
    shape = free(norms)

    def rates(log_scale):
        return np.append(warmup, np.minimum(peak, peak / shape.max() * np.exp(log_scale) * shape))

    flat = np.log(shape.max() / shape.min())  # from here on, all rates are the peak
    best = scipy.optimize.minimize_scalar(lambda log_scale: bound(rates(log_scale)), bounds=(-20.0, flat), method="bounded",
                           options={"xatol": 1e-7})  # fmt: skip
    return rates(best.x)
