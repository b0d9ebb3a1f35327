"""Power laws of one variable, with their asymptotes, and the extrapolation of a learning curve."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.laws._projection import fit_projected
from keras_lrsched.laws._uncertainty import Interval
from keras_lrsched.laws.loss_curve import LossCurve
from keras_lrsched.laws.run_law import RunLaw, positive_coefficients
from keras_lrsched.laws.run_table import Runs, RunTable

EXPONENTS = np.linspace(0.02, 2.0, 100)
VARIABLES = ("parameters", "tokens", "compute", "steps", "members")


@register(
    "power_law",
    title="loss from one variable, with an asymptote",
    paper="arXiv:2010.14701",
    checked="memory",
    against="forecasts of public loss curves that were computed apart",
    deviations="papers fit it in several ways: here by least squares of the losses, with numbers that are not negative",
    kind="law of runs",
)
class PowerLaw(RunLaw):
    """The final loss from one variable x: parameters, tokens, compute, updates, or the members of an ensemble.

        L = E + A * x^-alpha

    E is the asymptote: the loss for an x without end. In training that is limited by data, compare asymptotes, not losses of
    one size: fit one law over the parameters for each recipe (with the best weight decay for each size), and for ensembles
    one over the `members` with alpha=1, whose E is the loss of an ensemble without end.

    Args:
        E, A, alpha: The law's numbers.
        variable: `"parameters"`, `"tokens"`, `"compute"`, `"steps"` or `"members"`. Defaults to `"parameters"`.

    Raises:
        ValueError: If `E` is negative, `A` or `alpha` is not positive, or `variable` is unknown.

    Reference: Henighan et al. 2020, arXiv:2010.14701; for ensembles and asymptotes Kim et al. 2025, arXiv:2509.14786.

    Example:

    >>> ensembles = RunTable(members=[1, 2, 4, 8], loss=[3.5, 3.3, 3.2, 3.15])
    >>> PowerLaw.fit(ensembles, variable="members", alpha=1.0)
    PowerLaw(E=3.1, A=0.4, alpha=1)
    """

    coefficients = ("E", "A", "alpha")
    options = ("variable",)
    least_runs = 4
    E: float
    A: float
    alpha: float

    def __init__(self, E: float, A: float, alpha: float, variable: str = "parameters") -> None:
        super().__init__()
        positive_coefficients(self, A=A, alpha=alpha)
        self.E = validation.non_negative_float("E", E)
        self.variable = validation.one_of("variable", variable, VARIABLES)
        self.columns = (variable,)
        self._exponents = EXPONENTS

    @classmethod
    def fit(cls, runs: Runs, variable: str = "parameters", alpha: float | None = None, exclude: Sequence[int] = ()) -> Self:
        """The law with the least squares of the losses: for each alpha the rest is linear, so it needs no start.

        Args:
            runs: A `RunTable`, or what `RunTable.read` reads, with `loss` and the variable.
            variable: See the class. Defaults to `"parameters"`.
            alpha: An exponent that is not fitted. Defaults to `None`: fitted.
            exclude: Rows that are not used. Defaults to `()`.

        Raises:
            ValueError: If there are fewer than four runs, or the loss does not fall with the variable.
        """
        law = cls(1.0, 1.0, 1.0, variable)
        if alpha is not None:
            law._exponents = np.array([validation.positive_float("alpha", alpha)])
        return law._fitted(runs, exclude)

    def value_at(self, *columns: np.ndarray) -> np.ndarray:
        return self.E + self.A * columns[0] ** -self.alpha

    def loss(self, value: Any) -> Any:
        """The predicted final loss for a value of the variable; a number or an array.

        Warns:
            ExtrapolationWarning: If the value lies outside of those that the law was fitted to.
        """
        return self._predict(value)

    def value_for(self, loss: float) -> float:
        """The value of the variable with which a loss is reached; infinite if it never is."""
        left = validation.positive_float("loss", loss) - self.E
        return float((self.A / left) ** (1 / self.alpha)) if left > 0 else np.inf

    def fit_to(self, runs: RunTable) -> Self:
        values = runs.column(self.variable)
        scale = np.exp(np.log(values).mean())
        found = fit_projected(lambda alpha: [np.ones(len(runs)), (values / scale) ** -alpha], runs.loss, self._exponents)
        E, A = found.weights
        if A == 0:
            raise ValueError(f"The loss must fall with `{self.variable}`. Received: runs in which it does not")
        law = type(self)(E, A * scale**found.exponent, float(found.exponent), self.variable)
        law._exponents = self._exponents
        return law

    def alternatives(self, runs: RunTable) -> list[RunLaw]:
        """Without an asymptote: a line in logarithms."""
        slope, level = np.polyfit(np.log(runs.column(self.variable)), np.log(runs.loss), 1)
        return [type(self)(0.0, np.exp(level), -slope, self.variable)]


@register(
    "extrapolate",
    title="final loss of a run at a constant rate from its first part",
    checked="memory",
    against="forecasts of public loss curves that were computed apart",
    deviations="the bracket is an observation on six public curves, no theorem",
    kind="scaling rule",
)
def extrapolate(curve: LossCurve, total_steps: int, skip: int | None = None) -> Interval:
    """The loss at the end of a run at a constant rate, from the part of it that was seen.

    Two forms are fitted to the losses after warmup: E + A t^-b by non-negative least squares over a grid of b, which errs
    high, and a straight line in ln t over the later half of the points, which errs low. On six public curves at a constant
    rate, seen for 30 % or 50 %, the end lay between the two in each; `predicted` is their mean.

    Where the learning rate decays, nothing of this holds: the high value can be too low or too high. Predict such runs with
    `MultiPowerLaw`, `AnnealingLaw` or `ConvexBound`.

    Args:
        curve: A `LossCurve` of the part that was seen.
        total_steps: The updates of the whole run.
        skip: Updates at the beginning that are not used. Defaults to `None`: those of the warmup.

    Returns:
        An `Interval(low, predicted, high)`.

    Raises:
        ValueError: If the learning rate falls, there are fewer than 20 points, or the run is over.

    Example:

    >>> steps = np.arange(100, 2000, 10)
    >>> curve = LossCurve(loss=2.5 + 8 * (steps + 1) ** -0.5, rates=np.full(2000, 1e-3), step=steps)
    >>> forecast = extrapolate(curve, total_steps=8000)
    >>> forecast.low < 2.5 + 8 * 8000**-0.5 <= forecast.high
    True
    """
    total = validation.positive_int("total_steps", total_steps)
    first = curve.peak_step if skip is None else validation.non_negative_int("skip", skip)
    seen = curve.step >= first
    if seen.sum() < 20:
        raise ValueError(f"`curve` must have 20 points or more after update {first}. Received: {seen.sum()} points")
    if total <= curve.step[-1]:
        raise ValueError(f"`total_steps` must lie behind the curve's last update. Received: total_steps={total_steps}")
    if curve.learning_rate[seen].min() < 0.999 * curve.learning_rate[seen].max():
        raise ValueError("`curve` must have a constant learning rate after warmup. Received: one that falls")
    return two_forms(curve.step[seen] + 1.0, curve.loss[seen], float(total))


def two_forms(steps: np.ndarray, loss: np.ndarray, at: float) -> Interval:
    """Evaluate the two forms of `extrapolate` at a step, without checks; `predicted` is their mean."""
    scaled = steps / steps[0]
    power = fit_projected(lambda b: [np.ones_like(scaled), scaled**-b], loss, EXPONENTS, tolerance=1e-6)
    by_power = power.weights @ [1.0, (at / steps[0]) ** -power.exponent]
    later = slice(len(steps) // 2, None)
    by_line = np.polyval(np.polyfit(np.log(scaled[later]), loss[later], 1), np.log(at / steps[0]))
    low, high = sorted([float(by_line), float(by_power)])
    return Interval(low, (low + high) / 2, high)
