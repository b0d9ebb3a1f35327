"""Performance profiles, and the AlgoPerf score over several workloads or studies."""

import math
from collections.abc import Sequence
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt
from scipy import integrate

from keras_lrsched._core import validation
from keras_lrsched.study.statistics import Pair, Unit


def performance_profile(times: npt.ArrayLike, r_max: float = 4.0, points: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of workloads on which each candidate takes at most a multiple of the time of the fastest.

    Args:
        times: Time to the target of each candidate (rows) on each workload (columns). Infinite or NaN where it was not
            reached.
        r_max: The largest multiple. Defaults to `4.0`.
        points: The number of multiples, evenly spaced from 1 on. Defaults to `100`.

    Returns:
        The multiples, and for each candidate (rows) the share of workloads.

    Raises:
        ValueError: If `times` is not a table of positive numbers, or an argument is out of its range.

    Reference:
        Dahl et al., Benchmarking Neural Network Training Algorithms, arXiv:2306.07179.

    Example:

    >>> performance_profile([[100, 300], [200, 100]], points=4)[1]
    array([[0.5, 0.5, 1. , 1. ],
           [0.5, 1. , 1. , 1. ]])
    """
    ratios, points = _ratios(times), validation.positive_int("points", points)
    multiples = np.linspace(1, _largest_ratio(r_max), points)
    return multiples, np.mean(ratios[:, :, None] <= multiples, axis=1)


class Study(Protocol):
    """The part of `Results` that `score` uses."""

    pairs: list[Pair]

    def times_to_target(self, target: float | None = None, unit: Unit = "steps") -> dict[Pair, np.ndarray]:
        """Return when each pair first reached the target, for each seed."""


@overload
def score(
    times: Sequence[Study],
    r_max: float = 4.0,
    points: int | None = None,
    targets: Sequence[float | None] | None = None,
    unit: Unit = "steps",
) -> dict[Pair, float]: ...


@overload
def score(times: npt.ArrayLike, r_max: float = 4.0, points: int | None = None) -> np.ndarray: ...


def score(
    times: Any,
    r_max: float = 4.0,
    points: int | None = None,
    targets: Sequence[float | None] | None = None,
    unit: Unit = "steps",
) -> dict[Pair, float] | np.ndarray:
    """Return the AlgoPerf score of each candidate: the area under its `performance_profile` over that of an ideal one.

        score = mean over workloads of max(0, r_max - r) / (r_max - 1),   r = time / time of the fastest

    It depends on the set of candidates. Of several studies, each is a workload and each pair of optimizer and schedule a
    candidate, whose time to the target is the median over the seeds.

    Args:
        times: A list of `Results` of the same pairs; or times as for `performance_profile`.
        r_max: The multiple of the fastest time from which on a time counts as infinite. Defaults to `4.0`.
        points: If given, the trapezoidal rule on this many multiples replaces the exact integral, as in the official code
            with 100; it is up to half a cell too high for each workload. Defaults to `None`.
        targets: The value to reach in each study. Defaults to `None`: `Results.target`.
        unit: `"steps"` or `"seconds"` to the targets of studies. Defaults to `"steps"`.

    Returns:
        A number between 0 and 1 for each candidate: an array, or for studies a dict from each pair, best first.

    Raises:
        ValueError: If `times` is not a table of positive numbers, the studies do not have the same pairs, there is not one
            target for each, or an argument is out of its range.

    Reference:
        Dahl et al., Benchmarking Neural Network Training Algorithms, arXiv:2306.07179.

    Example:

    >>> score([[100, 200], [100, 400], [250, float("inf")]]).round(4)
    array([1.    , 0.8333, 0.25  ])
    """
    studies = [times] if hasattr(times, "times_to_target") else list(times)
    if studies and all(hasattr(study, "times_to_target") for study in studies):
        return _score_of_studies(studies, r_max, points, targets, unit)
    if points is None:
        return _exact_score(times, _largest_ratio(r_max))
    multiples, shares = performance_profile(times, r_max, points)
    return integrate.trapezoid(shares, multiples, axis=1) / (r_max - 1)


def _exact_score(times: npt.ArrayLike, r_max: float) -> np.ndarray:
    return np.mean(np.clip((r_max - _ratios(times)) / (r_max - 1), 0, None), axis=1)


def _score_of_studies(
    studies: list[Study], r_max: float, points: int | None, targets: Sequence[float | None] | None, unit: Unit
) -> dict[Pair, float]:
    pairs = _common_pairs(studies)
    targets = [None] * len(studies) if targets is None else list(targets)
    if len(targets) != len(studies):
        raise ValueError(f"`targets` must hold one for each of {len(studies)} studies. Received: targets={targets}")
    columns = [study.times_to_target(target, unit) for study, target in zip(studies, targets, strict=True)]
    times = [[float(np.median(column[pair])) for column in columns] for pair in pairs]
    scores = dict(zip(pairs, map(float, score(times, r_max, points)), strict=True))
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def _common_pairs(studies: list[Study]) -> list[Pair]:
    for number, study in enumerate(studies):
        different = set(study.pairs) ^ set(studies[0].pairs)
        if different:
            raise ValueError(
                "The studies must have the same pairs of optimizer and schedule. Received: "
                f"{', '.join(min(different))!r}, which only one of the studies 0 and {number} has"
            )
    return studies[0].pairs


def _largest_ratio(r_max: float) -> float:
    return validation.between("r_max", r_max, 1, math.inf)


def _ratios(times: npt.ArrayLike) -> np.ndarray:
    """Times over the fastest of each workload, infinite where the target was not reached."""
    table = np.array(times, float)
    if table.ndim != 2 or not table.size or np.any(table <= 0):
        raise ValueError(
            "`times` must be a table of positive numbers, a row for each candidate and a column for each workload. "
            f"Received: times={times!r:.200}"
        )
    table[np.isnan(table)] = math.inf
    fastest = table.min(axis=0)
    return np.divide(table, fastest, out=np.full_like(table, math.inf), where=np.isfinite(fastest))
