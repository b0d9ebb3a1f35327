"""Refined schedule: the one that the gradient norms of an earlier run call for (Defazio et al. 2023)."""

import bisect
import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.npz import read_arrays
from keras_lrsched._core.registry import register
from keras_lrsched._core.run_file import SeveralRunsError, numbers_of_runs, one_run
from keras_lrsched._core.untrusted_file import refused
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.tabulated import Tabulated

POWERS = {"l2": 2.0, "l1": 1.0}


@register(
    "refined",
    title="refined by a run's gradients",
    paper="arXiv:2310.07831",
    code=("facebookresearch/adaptive_scheduling",),
    checked="vectors",
    against="the official code, which was run",
    deviations="tau = 0.1 and the power for l1 norms are from memory; stretching to another `total_steps` is ours",
    kind="learning rate from a run",
)
class RefinedSchedule(Schedule):
    """The schedule with the best bound for the last iterate, given the norm G_t of each gradient of an earlier run:

        w_t = G_t^-2 (l2 norms, for SGD) or G_t^-1 (l1 norms, for Adam)
        value(t) = peak * u_t / max u,  u_t = w_t * (w_(t+1) + w_(t+2) + ... + w_(T-1))

    The norms go through a running median first. Equal norms give linear decay; large ones at the start give a warmup, and
    norms that grow at the end a faster final descent. The last update, t = T - 1, has the value 0, which stays. Tune the
    peak again.

    Args:
        gradient_norms: One norm an update, or one every so many updates: at least two non-negative numbers. A norm of 0
            counts as the smallest that is not.
        norm: `"l2"` (SGD) or `"l1"` (Adam): what the numbers are. Defaults to `"l2"`.
        tau: Width of the median as a fraction of the run, in [0, 1]: 2 floor(tau T / 2) + 1 norms, with the first repeated
            before the start and the last ones mirrored behind the end. Defaults to `0.1`.
        total_steps: Updates of the new run, at least two; the smoothed norms are stretched over it along straight lines.
            Defaults to `None`: as many as there are norms.
        peak_learning_rate: The largest value, positive. Defaults to `1.0`.
        name: A label. Defaults to `"RefinedSchedule"`.

    Raises:
        ValueError: If an argument is out of its range, or all norms are 0.

    Reference: arXiv:2310.07831; official code, facebookresearch/adaptive_scheduling. This is written from the formula,
    since that code is not for commercial use.

    Example:

    >>> RefinedSchedule([1.0, 1.0, 1.0, 1.0, 1.0]).values(5)
    array([1.  , 0.75, 0.5 , 0.25, 0.  ])
    """

    def __init__(
        self,
        gradient_norms: Sequence[float] | np.ndarray,
        norm: str = "l2",
        tau: float = 0.1,
        total_steps: int | None = None,
        peak_learning_rate: float = 1.0,
        name: str = "RefinedSchedule",
    ) -> None:
        self.gradient_norms = validation.each("gradient_norms", gradient_norms, validation.non_negative_float)
        self.norm = validation.one_of("norm", norm, tuple(POWERS))
        self.tau = validation.fraction("tau", tau)
        self.total_steps = len(self.gradient_norms)
        if total_steps is not None:
            self.total_steps = validation.positive_int("total_steps", total_steps)
        self.peak_learning_rate = validation.positive_float("peak_learning_rate", peak_learning_rate)
        self.name = name
        if min(len(self.gradient_norms), self.total_steps) < 2 or not any(self.gradient_norms):
            raise ValueError(
                "A refined schedule needs two or more `gradient_norms` that are not all 0, and two or more updates. "
                f"Received: gradient_norms={gradient_norms!r:.200}, total_steps={total_steps}"
            )
        norms = _smoothed(np.array(self.gradient_norms), self.tau)
        at = np.linspace(0, len(norms) - 1, self.total_steps)
        shape = _refined(np.interp(at, np.arange(len(norms)), norms), POWERS[self.norm])
        self._schedule = Tabulated(self.peak_learning_rate * shape)

    @classmethod
    def from_run(
        cls,
        path: str | os.PathLike,
        run: int | Sequence[int] | None = None,
        norm: str = "l2",
        tau: float = 0.1,
        total_steps: int | None = None,
        peak_learning_rate: float = 1.0,
        name: str = "RefinedSchedule",
    ) -> Self:
        """The schedule from a file of recorded norms.

        Args:
            path: An `.npz` file with an array `gradient_norm`, or a `.csv` file with a column of this name.
            run: For a `.csv` file of `GradientNormRecorder`: the number of a run, or a list of runs that go on from each
                other. Defaults to `None`: the only one.
            norm, tau, total_steps, peak_learning_rate, name: See the class.

        Raises:
            ValueError: If the file is of another kind, holds no `gradient_norm` or none that can be used, or holds several
                runs and none is chosen.
        """
        others = norm, tau, total_steps, peak_learning_rate, name
        cls([1.0, 1.0], *others)  # what is wrong with these is not the file's fault
        norms = _recorded(Path(path).expanduser(), run)
        with refused("recorded run", path):
            return cls(norms, *others)

    def compute(self, step: Any, xp: Any) -> Any:
        return self._schedule.compute(step, xp)


def _smoothed(norms: np.ndarray, tau: float) -> np.ndarray:
    """The running median, of norms whose zeros are raised to the smallest positive one."""
    norms = np.maximum(norms, min(norm for norm in norms if norm))
    half = int(tau * len(norms) / 2)
    padded = np.pad(np.pad(norms, (0, half), mode="reflect"), (half, 0), mode="edge").tolist()
    window = sorted(padded[: 2 * half + 1])
    medians = [window[half]]
    for old, new in zip(padded, padded[2 * half + 1 :], strict=False):
        del window[bisect.bisect_left(window, old)]
        bisect.insort(window, new)
        medians.append(window[half])
    return np.array(medians)


def _refined(norms: np.ndarray, power: float) -> np.ndarray:
    weights = (norms / norms.min()) ** -power
    later = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)
    values = weights * later
    if not values.max() > 0:
        raise ValueError(
            f"The `gradient_norms` are too far apart. Received: gradient_norms from {norms.min()} to {norms.max()}"
        )
    return values / values.max()


def _recorded(path: Path, run: int | Sequence[int] | None) -> np.ndarray:
    if path.suffix not in (".npz", ".csv"):
        raise ValueError(f"A recorded run must be an .npz or .csv file. Received: path={str(path)!r}")
    try:
        with refused("recorded run", path, passing=(SeveralRunsError,)):
            return (_norms_of_arrays if path.suffix == ".npz" else _norms_of_rows)(path, run)
    except SeveralRunsError as error:
        raise ValueError(f"The file is not one run: {error}. Received: path={str(path)!r}, run={run!r}") from error


def _norms_of_arrays(path: Path, run: int | Sequence[int] | None) -> Any:
    if run not in (None, 0):
        raise ValueError(f"it has one run. Received: run={run!r}")
    return read_arrays(path, ["gradient_norm"])["gradient_norm"].tolist()


def _norms_of_rows(path: Path, run: int | Sequence[int] | None) -> Any:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or ()
        if "gradient_norm" not in names:
            raise ValueError(f"it has no `gradient_norm`, only {names}")
        rows = list(reader)
    if "step" not in names:
        return [float(row["gradient_norm"]) for row in rows]
    tables: dict = {}
    for number, row in zip(numbers_of_runs(rows), rows, strict=True):
        tables.setdefault(number, {})[int(row["step"])] = float(row["gradient_norm"])
    return list(one_run(tables, run).values()) if tables else []
