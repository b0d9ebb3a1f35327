"""The error on downstream tasks from the loss."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from keras_lrsched._core.registry import register
from keras_lrsched.laws._projection import fit_projected
from keras_lrsched.laws.run_law import RunLaw, positive_coefficients
from keras_lrsched.laws.run_table import Runs, RunTable

RATES = np.geomspace(0.02, 10.0, 80)


@register(
    "error",
    title="downstream error from the loss",
    paper="arXiv:2403.08540",
    code=("mlfoundations/scaling",),
    checked="numbers",
    against="the official fits and predictions, on its 104 models",
    deviations="no start: for each gamma the rest is linear",
    kind="law of runs",
)
class ErrorLaw(RunLaw):
    """The mean error on downstream tasks from the loss of a model.

        error = epsilon - k * exp(-gamma * L)

    `epsilon` is about the error of guessing. A mean over many tasks follows it; a single task seldom does.

    Args:
        epsilon, k, gamma: The law's numbers, all positive.

    Raises:
        ValueError: If a number is not positive.

    Reference: Gadre et al. 2024, arXiv:2403.08540.

    Example:

    >>> law = ErrorLaw(epsilon=0.856992, k=2.20649, gamma=0.714591)
    >>> round(law.error(loss=2.5), 4)
    0.4873
    """

    coefficients = ("epsilon", "k", "gamma")
    columns = ("loss",)
    target = "error"
    least_runs = 4
    epsilon: float
    k: float
    gamma: float

    def __init__(self, epsilon: float, k: float, gamma: float) -> None:
        super().__init__()
        positive_coefficients(self, epsilon=epsilon, k=k, gamma=gamma)

    @classmethod
    def fit(cls, runs: Runs, exclude: Sequence[int] = ()) -> Self:
        """The law with the least squares of the errors.

        Args:
            runs: A `RunTable`, or what `RunTable.read` reads, with `loss` and `error`.
            exclude: Rows that are not used. Defaults to `()`.

        Raises:
            ValueError: If there are fewer than four runs, or the error does not rise with the loss.
        """
        return cls(1.0, 1.0, 1.0)._fitted(runs, exclude)

    def value_at(self, *columns: np.ndarray) -> np.ndarray:
        (loss,) = columns
        return self.epsilon - self.k * np.exp(-self.gamma * loss)

    def error(self, loss: Any) -> Any:
        """The predicted error; a number or an array.

        Warns:
            ExtrapolationWarning: If the loss lies outside of those that the law was fitted to.
        """
        return self._predict(loss)

    def fit_to(self, runs: RunTable) -> Self:
        middle = runs.loss.mean()
        found = fit_projected(
            lambda gamma: [np.ones(len(runs)), -np.exp(-gamma * (runs.loss - middle))], runs.column("error"), RATES
        )
        epsilon, k = found.weights
        if k == 0:
            raise ValueError("The error must rise with the loss. Received: runs in which it does not")
        return type(self)(epsilon, k * np.exp(found.exponent * middle), found.exponent)
