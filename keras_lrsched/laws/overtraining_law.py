"""The law of over-training: the final loss of small models that see many tokens, with one exponent."""

import warnings
from collections.abc import Sequence
from typing import Self

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.laws._projection import fit_projected
from keras_lrsched.laws._two_powers import TwoPowerLaw, TwoPowers
from keras_lrsched.laws.diagnostics import IdentifiabilityWarning
from keras_lrsched.laws.run_law import RunLaw, positive_coefficients
from keras_lrsched.laws.run_table import Runs, RunTable
from keras_lrsched.laws.scaling_law import ScalingLaw

EXPONENTS = np.linspace(0.02, 1.5, 75)


@register(
    "overtraining",
    title="final loss of over-trained models",
    paper="arXiv:2403.08540",
    code=("mlfoundations/scaling",),
    checked="numbers",
    against="the official fits and predictions, on its 104 models",
    deviations="E and the factors are not negative; no starts: for each exponent the rest is linear",
    kind="law of runs",
)
class OvertrainingLaw(TwoPowerLaw):
    """The final loss from the parameters N and the tokens D of a run, with one exponent for both.

        L = E + alpha * N^-c + beta * 6^(-c/2) * D^-c

    In the compute C = 6 N D and M = D / N it is E + (a M^(c/2) + beta M^(-c/2)) C^(-c/2), a = alpha 6^(c/2): at any ratio M
    the loss falls with the same power of the compute.

    The paper fits it to five runs: four sizes at M = 20 and the smallest one at M = 320. What it predicts depends on which:
    all 29 models below 1e20 FLOP give c = 0.22 in the place of 0.27, and errors of the other sign. Five runs leave no way to
    an interval; fit more, and show `interval` with any prediction.

    Args:
        E, alpha, beta, c: The law's numbers, in nats, parameters and tokens; `c` is positive.

    Raises:
        ValueError: If a number is not positive, or E is negative.

    Reference: Gadre et al. 2024, arXiv:2403.08540.

    Example:

    >>> law = OvertrainingLaw(E=1.836648, alpha=166.211, beta=366.6872, c=0.272851)
    >>> round(law.loss(parameters=1e9, tokens=640e9), 3)
    2.591
    """

    coefficients = ("E", "alpha", "beta", "c")
    least_runs = 5
    E: float
    alpha: float
    beta: float
    c: float

    def __init__(self, E: float, alpha: float, beta: float, c: float) -> None:
        super().__init__()
        positive_coefficients(self, alpha=alpha, beta=beta, c=c)
        self.E = validation.non_negative_float("E", E)

    @classmethod
    def fit(cls, runs: Runs, exclude: Sequence[int] = ()) -> Self:
        """The law with the least squares of the losses.

        Args:
            runs: A `RunTable`, or what `RunTable.read` reads, with `parameters`, `tokens` (or `compute`) and `loss`.
            exclude: Rows that are not used. Defaults to `()`.

        Raises:
            ValueError: If there are fewer than five runs, or all have the same parameters, tokens, or tokens for each
                parameter.

        Warns:
            FitWarning: If a run is missed by more than 10 %.
            IdentifiabilityWarning: If E is 0, its bound.
        """
        return cls(1.0, 1.0, 1.0, 0.5)._fitted(runs, exclude)

    @property
    def powers(self) -> TwoPowers:
        return TwoPowers(self.E, self.alpha, self.c, self.beta * 6 ** (-self.c / 2), self.c)

    def fit_to(self, runs: RunTable) -> Self:
        scale = np.exp(np.log(runs.column("parameters")).mean())  # the same for N and D, which have one exponent
        x, y = runs.column("parameters") / scale, runs.column("tokens") / scale
        found = fit_projected(lambda c: [np.ones_like(x), x**-c, 6 ** (-c / 2) * y**-c], runs.loss, EXPONENTS)
        E, alpha, beta = found.weights
        if min(alpha, beta) == 0:
            raise ValueError("The losses must fall with parameters and tokens. Received: runs in which one does not matter")
        if E == 0:
            warnings.warn("E is 0, at its bound: these runs do not determine it", IdentifiabilityWarning, stacklevel=4)
        factor = scale**found.exponent
        return type(self)(E, alpha * factor, beta * factor, found.exponent)

    def alternatives(self, runs: RunTable) -> list[RunLaw]:
        """With two exponents, if there are enough runs."""
        return [ScalingLaw(1.0, 1.0, 0.5, 1.0, 0.5).fit_to(runs)] if len(runs) >= ScalingLaw.least_runs else []
