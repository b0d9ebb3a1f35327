"""The critical batch size from the loss: measured by the updates to some losses with several batches."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.laws.run_law import RunLaw, positive_coefficients
from keras_lrsched.laws.run_table import Runs, RunTable, as_runs

REACH = 100.0
"""A critical batch that is farther from all batches of the table is only noise in the updates."""


class CriticalBatch(NamedTuple):
    """The fewest updates and the fewest tokens to one loss, and their ratio, the critical batch."""

    steps: float
    tokens: float
    batch_tokens: float


@register(
    "critical_batch",
    title="critical batch size from the loss",
    paper="arXiv:2001.08361",
    checked="memory",
    against="values of the formula that were computed apart",
    deviations="the fit for each loss is linear in S and 1 / B, with relative errors",
    kind="law of runs",
)
class CriticalBatchLaw(RunLaw):
    """The critical batch size, in tokens, from the loss that is reached.

        B_crit(L) = B_star / L^(1 / alpha_B)

    To reach a loss with batches of B tokens takes S updates and E = B S tokens, with (S / S_min - 1) (E / E_min - 1) = 1 and
    B_crit = E_min / S_min: at the critical batch, twice the fewest of both. It grows as the loss falls.

    Args:
        B_star: In tokens, positive.
        alpha_B: Positive.

    Raises:
        ValueError: If a number is not positive.

    Reference: Kaplan et al. 2020, arXiv:2001.08361; McCandlish et al. 2018, arXiv:1812.06162.

    Example:

    >>> law = CriticalBatchLaw(B_star=2.1e8, alpha_B=0.21)
    >>> round(law.critical_batch(loss=3.0))
    1122570
    >>> law.steps_ratio(loss=3.0, batch_tokens=law.critical_batch(3.0))
    2.0
    """

    coefficients = ("B_star", "alpha_B")
    columns = ("loss",)
    target = "batch_tokens"
    least_runs = 3
    B_star: float
    alpha_B: float

    def __init__(self, B_star: float, alpha_B: float) -> None:
        super().__init__()
        positive_coefficients(self, B_star=B_star, alpha_B=alpha_B)

    @classmethod
    def fit(cls, runs: Runs, exclude: Sequence[int] = ()) -> Self:
        """The law through the critical batches of several losses: a line in logarithms.

        Args:
            runs: A `RunTable`, or what `RunTable.read` reads: for each of some losses, the `steps` after which runs at a
                constant rate first reached it, with different `batch_tokens`. Each rate should be the best for its batch.
            exclude: Rows that are not used. Defaults to `()`.

        Raises:
            ValueError: If there are fewer than three losses, a loss has fewer than three batches or no critical one, or the
                critical batch does not grow as the loss falls.
        """
        rows = as_runs(runs)
        rows = rows.take(rows.left(exclude))
        losses = np.unique(rows.loss)
        reached = [rows.take(rows.loss == loss) for loss in losses]
        batches = [critical_batch(each.column("steps"), each.column("batch_tokens")).batch_tokens for each in reached]
        return cls(1.0, 1.0)._fitted(RunTable(loss=losses, batch_tokens=np.array(batches)), ())

    def value_at(self, *columns: np.ndarray) -> np.ndarray:
        return self.B_star * columns[0] ** (-1 / self.alpha_B)

    def critical_batch(self, loss: Any) -> Any:
        """The critical batch, in tokens, at a loss; a number or an array.

        Warns:
            ExtrapolationWarning: If the loss lies outside of those that the law was fitted to.
        """
        return self._predict(loss)

    def steps_ratio(self, loss: float, batch_tokens: float) -> float:
        """The updates to a loss with some batch, in units of the fewest: 1 + B_crit / B. Of the tokens: 1 + B / B_crit."""
        return float(1 + self._predict(loss) / validation.positive_float("batch_tokens", batch_tokens))

    def fit_to(self, runs: RunTable) -> Self:
        slope, level = np.polyfit(np.log(runs.loss), np.log(runs.column("batch_tokens")), 1)
        if slope >= 0:
            raise ValueError("The critical batch must grow as the loss falls. Received: losses at which it does not")
        return type(self)(np.exp(level), -1 / slope)


def critical_batch(steps: np.ndarray, batch_tokens: np.ndarray) -> CriticalBatch:
    """The critical batch of one loss: S = S_min + E_min / B is linear; least squares of the relative errors.

    Raises:
        ValueError: If there are fewer than three batches, or the critical one is 100 times smaller or larger than all.
    """
    if len(np.unique(batch_tokens)) < 3:
        raise ValueError(f"Each loss needs three batches or more. Received: batch_tokens={batch_tokens.tolist()}")
    relative = np.stack([1 / steps, 1 / (batch_tokens * steps)], axis=1)
    size = relative.max(axis=0)
    fewest, tokens = scipy.optimize.nnls(relative / size, np.ones(len(steps)))[0] / size
    if not fewest * batch_tokens.min() / REACH < tokens < fewest * batch_tokens.max() * REACH:
        raise ValueError(
            "The batches must lie near the critical one, and on both sides of it. "
            f"Received: steps={steps.tolist()} for batch_tokens={batch_tokens.tolist()}"
        )
    return CriticalBatch(float(fewest), float(tokens), float(tokens / fewest))
