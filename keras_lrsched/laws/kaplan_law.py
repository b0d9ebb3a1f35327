"""Kaplan's law: the final loss from the parameters and the tokens, without a floor."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import scipy

from keras_lrsched._core.registry import register
from keras_lrsched.laws._fitting import DELTA
from keras_lrsched.laws._two_powers import TwoPowerLaw, TwoPowers
from keras_lrsched.laws.run_law import RunLaw, positive_coefficients
from keras_lrsched.laws.run_table import Runs, RunTable
from keras_lrsched.laws.scaling_law import ScalingLaw

STARTS = [(alpha_N, alpha_D) for alpha_N in (0.05, 0.1, 0.3) for alpha_D in (0.05, 0.1, 0.3)]


@register(
    "kaplan",
    title="final loss from parameters and tokens, without a floor",
    paper="arXiv:2001.08361",
    checked="memory",
    against="values of the formula that were computed apart",
    deviations="the published constants are from memory",
    kind="law of runs",
)
class KaplanLaw(TwoPowerLaw):
    """The final loss from the parameters N, without embeddings, and the tokens D of a run.

        L = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D

    It has no floor, so it falls below any loss for large runs; `ScalingLaw` has one.

    Args:
        N_c, alpha_N, D_c, alpha_D: The law's numbers, all positive.

    Raises:
        ValueError: If a number is not positive.

    Reference: Kaplan et al. 2020, arXiv:2001.08361.

    Example:

    >>> round(KaplanLaw.published().loss(parameters=1e9, tokens=2e10), 4)
    2.4354
    """

    coefficients = ("N_c", "alpha_N", "D_c", "alpha_D")
    N_c: float
    alpha_N: float
    D_c: float
    alpha_D: float

    def __init__(self, N_c: float, alpha_N: float, D_c: float, alpha_D: float) -> None:
        super().__init__()
        positive_coefficients(self, N_c=N_c, alpha_N=alpha_N, D_c=D_c, alpha_D=alpha_D)
        self.power = self.alpha_D

    @classmethod
    def published(cls) -> Self:
        """The law with the numbers of the paper, from memory: for the shape, not for use with other data."""
        return cls(N_c=8.8e13, alpha_N=0.076, D_c=5.4e13, alpha_D=0.095)

    @classmethod
    def fit(cls, runs: Runs, exclude: Sequence[int] = ()) -> Self:
        """The law with the least sum of Huber(log(prediction) - log(loss)), delta = 0.001.

        Args:
            runs: A `RunTable`, or what `RunTable.read` reads, with `parameters`, `tokens` (or `compute`) and `loss`.
            exclude: Rows that are not used. Defaults to `()`.

        Raises:
            ValueError: If there are fewer than six runs, or all have the same parameters, tokens, or tokens for each
                parameter.
        """
        return cls(1.0, 1.0, 1.0, 1.0)._fitted(runs, exclude)

    @property
    def powers(self) -> TwoPowers:
        """The sum is L^(1 / alpha_D)."""
        power = self.alpha_N / self.alpha_D
        return TwoPowers(0.0, self.N_c**power, power, self.D_c, 1.0)

    def fit_to(self, runs: RunTable) -> Self:
        size, tokens, loss = (np.log(runs.column(name)) for name in (*self.columns, "loss"))

        def residuals(numbers: np.ndarray) -> np.ndarray:
            by_size, alpha_N, by_tokens, alpha_D = numbers  # logarithms of both terms in the middle of the runs
            terms = by_size - alpha_N * (size - size.mean()), by_tokens - alpha_D * (tokens - tokens.mean())
            return alpha_D * np.logaddexp(terms[0] / alpha_D, terms[1] / alpha_D) - loss

        bounds = [-np.inf, 1e-3, -np.inf, 1e-3], [np.inf, 3.0, np.inf, 3.0]
        options = {"loss": "huber", "f_scale": DELTA, "x_scale": "jac", "ftol": 1e-14, "xtol": 1e-14}
        middle = size.mean(), tokens.mean()
        starts = [self._logs(middle)] if self.fitted else [[loss.mean(), N, loss.mean(), D] for N, D in STARTS]
        trials = [scipy.optimize.least_squares(residuals, start, bounds=bounds, **options) for start in starts]
        by_size, alpha_N, by_tokens, alpha_D = min(trials, key=lambda trial: trial.cost).x
        N_c, D_c = np.exp(by_size / alpha_N + middle[0]), np.exp(by_tokens / alpha_D + middle[1])
        return type(self)(N_c, alpha_N, D_c, alpha_D)

    def alternatives(self, runs: RunTable) -> list[RunLaw]:
        """With a floor: `ScalingLaw`."""
        return [ScalingLaw(1.0, 1.0, 0.5, 1.0, 0.5).fit_to(runs)]

    def _logs(self, middle: tuple) -> list[float]:
        return [
            self.alpha_N * (np.log(self.N_c) - middle[0]),
            self.alpha_N,
            self.alpha_D * (np.log(self.D_c) - middle[1]),
            self.alpha_D,
        ]
