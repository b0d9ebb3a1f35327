"""Numbers as texts, and curves with fewer points."""

import math

import numpy as np


def plain(value: float, digits: int = 4) -> str:
    """Return a number with a few significant digits, a dash if there is none.

    Example:

    >>> plain(0.0312345), plain(1234.5678), plain(float("nan")), plain(2e-5)
    ('0.03123', '1235', '-', '2e-05')
    """
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.{digits}g}"


def spread(mean: float, deviation: float) -> str:
    """Return a mean with its standard deviation, to the digits that the latter leaves.

    Example:

    >>> spread(0.123456, 0.00213), spread(0.5, float("nan")), spread(12.0, 0.0)
    ('0.1235 ± 0.0021', '0.5', '12 ± 0')
    """
    if not math.isfinite(mean) or not math.isfinite(deviation):
        return plain(mean)
    if deviation <= 1e-7 * abs(mean):
        return f"{plain(mean)} ± {plain(deviation, 2)}"
    digits = max(0, 1 - math.floor(math.log10(deviation)))
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}" if digits <= 8 else f"{mean:.2e} ± {deviation:.1e}"


def json_number(value: float) -> float | None:
    """Return a number of at most six significant digits, `None` if it is not finite: JSON has neither infinity nor NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def json_numbers(values: np.ndarray) -> list[float | None]:
    """Return `json_number` of each."""
    return [json_number(value) for value in np.asarray(values, float).tolist()]


def thinned(count: int, points: int) -> np.ndarray:
    """Return indices of at most `points` of `count` values, evenly spaced, the first and the last among them.

    Example:

    >>> thinned(10, 4)
    array([0, 3, 6, 9])
    """
    return np.unique(np.linspace(0, count - 1, min(points, count)).round().astype(int)) if count else np.arange(0)


def smoothed(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Return an exponential moving average over about `share` of the run, without a bias to its start."""
    keep = 1 - 1 / max(1.0, share * len(values))
    smooth = np.empty(len(values))
    total = weight = 0.0
    for i, value in enumerate(np.asarray(values, float).tolist()):
        total, weight = keep * total + value, keep * weight + 1
        smooth[i] = total / weight
    return smooth
