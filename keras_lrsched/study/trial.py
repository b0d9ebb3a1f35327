"""Trials, which are the runs that a study makes, and their outcomes."""

import dataclasses
import math
from typing import Literal

import numpy as np

Status = Literal["finished", "diverged", "failed"]


@dataclasses.dataclass(frozen=True, order=True)
class Trial:
    """One run that is to be made.

    Trials that differ in their setting only have the same initial weights and the same batches.

    Args:
        optimizer: The label of an optimizer of the study.
        schedule: The label of a schedule of the study.
        learning_rate: The peak of the schedule.
        budget: Optimizer steps.
        seed: The number of the seed, from 0 on.
    """

    optimizer: str
    schedule: str
    learning_rate: float
    budget: int
    seed: int

    @property
    def setting(self) -> tuple[str, str, float]:
        """The choice: optimizer, schedule and peak."""
        return self.optimizer, self.schedule, self.learning_rate

    @property
    def pair(self) -> tuple[str, str]:
        """Optimizer and schedule, whose peak is tuned."""
        return self.optimizer, self.schedule

    def __str__(self) -> str:
        return f"{self.optimizer}, {self.schedule}, {self.learning_rate:.4g}, {self.budget} steps, seed {self.seed}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of a trial.

    Args:
        trial: The `Trial`.
        status: `"finished"`; `"diverged"` if the loss was not finite any more, at which the run was ended; `"failed"` if it
            raised an error.
        loss: The training loss of each optimizer step.
        learning_rate: That of each optimizer step.
        evaluated_at: Optimizer steps after which the model was evaluated, the last one at the end.
        evaluations: From the name of each metric, such as `"val_loss"`, to its value at each evaluation.
        seconds: Training and evaluation, without compilation.
        error: The error of a failed trial in one line. Defaults to `""`.
    """

    trial: Trial
    status: Status
    loss: np.ndarray
    learning_rate: np.ndarray
    evaluated_at: np.ndarray
    evaluations: dict[str, np.ndarray]
    seconds: float
    error: str = ""

    def final(self, metric: str = "val_loss") -> float:
        """The value of a metric at the end; NaN if the trial did not finish."""
        if self.status != "finished":
            return math.nan
        return float(self.evaluations[metric][-1])

    def steps_to(self, target: float, metric: str = "val_loss", mode: Literal["min", "max"] = "min") -> float:
        """Optimizer steps until a metric was first at the target or beyond; infinite if it never was."""
        values = self.evaluations.get(metric, np.array([]))
        reached = values <= target if mode == "min" else values >= target
        return float(self.evaluated_at[np.argmax(reached)]) if np.any(reached) else math.inf
