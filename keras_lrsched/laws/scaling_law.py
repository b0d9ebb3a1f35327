"""The scaling law of Chinchilla: the final loss from the parameters and the tokens."""

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.laws._fitting import Objective, best_weights, log_huber, search
from keras_lrsched.laws._two_powers import TwoPowerLaw, TwoPowers
from keras_lrsched.laws.diagnostics import IdentifiabilityWarning
from keras_lrsched.laws.run_law import FitWarning, RunLaw, positive_coefficients
from keras_lrsched.laws.run_table import Runs, RunTable, as_runs

EXPONENTS = np.linspace(0.1, 1.5, 15)
STARTS = 4
FREE = np.eye(5)
TIED = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]], float)
"""From four numbers to ln A, ln B, ln E, alpha, beta with one exponent."""
WITHOUT_FLOOR = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float)
NO_FLOOR = 1e-3
"""E below this is 0: the search in logarithms stops before it."""
LOWEST, HIGHEST = np.array([-25.0, -25.0, -25.0, 1e-2, 1e-2]), np.array([10.0, 10.0, 10.0, 3.0, 3.0])
PUBLISHED: dict[str, dict[str, Any]] = {
    "besiroglu": {"E": 1.8172, "A": 482.01, "alpha": 0.3478, "B": 2085.43, "beta": 0.3658},
    "hoffmann": {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28},
}
COUNTS = ("all", "non_embedding", "mean")


@register(
    "scaling",
    title="final loss from parameters and tokens",
    paper="arXiv:2203.15556",
    code=("epoch-research/analyzing-chinchilla",),
    checked="numbers",
    against="the fit of the replication, arXiv:2404.10102, on its 240 points",
    deviations="starts are the least squares on a grid of exponents, not a grid of all five numbers: the same minimum",
    kind="law of runs",
)
class ScalingLaw(TwoPowerLaw):
    """The final loss of a run from the parameters N of the model and the tokens D that it was trained on.

        L = E + A * N^-alpha + B * D^-beta

    For runs whose learning rate decays to its end by the end of each. What counts as a parameter is for the user to choose,
    and the same for all runs: leaving out embeddings moves the exponents by 0.1 for small models.

    With a compute of C = 6 N D, the lowest loss is at N = G (C/6)^(beta/(alpha+beta)), D = (C/6) / N, where
    G = (alpha A / (beta B))^(1/(alpha+beta)).

    E and the exponents trade off against each other: report them with `coefficient_intervals` only.

    Args:
        E, A, alpha, B, beta: The law's numbers, in nats, parameters and tokens.
        count: What `parameters` count: `"all"`, `"non_embedding"`, or `"mean"`, the mean over a run with pruning (see
            `mean_parameters`). A label that is kept with the law. Defaults to `"all"`.

    Raises:
        ValueError: If a number is not positive, or E is negative, or `count` is unknown.

    Warns:
        FitWarning: If the numbers are the rounded ones of the paper: with them the best ratio of tokens to parameters at
            the compute of Chinchilla is 93, against the 20 of Chinchilla itself.

    Reference: Hoffmann et al. 2022, arXiv:2203.15556; Besiroglu et al. 2024, arXiv:2404.10102.

    Example:

    >>> law = ScalingLaw.published("besiroglu")
    >>> round(law.loss(parameters=70e9, tokens=1.4e12), 4)
    1.9739
    >>> best = law.optimal(compute=5.88e23)
    >>> round(best.tokens / best.parameters, 1)
    18.4
    """

    coefficients = ("E", "A", "alpha", "B", "beta")
    options = ("count",)
    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def __init__(self, E: float, A: float, alpha: float, B: float, beta: float, count: str = "all") -> None:
        super().__init__()
        positive_coefficients(self, A=A, alpha=alpha, B=B, beta=beta)
        self.E = validation.non_negative_float("E", E)
        self.count = validation.one_of("count", count, COUNTS)
        if self.powers._asdict() == PUBLISHED["hoffmann"]:
            warnings.warn(
                "These are the rounded constants of arXiv:2203.15556, which contradict its own ratio of 20 tokens for each "
                "parameter: ScalingLaw.published('besiroglu') has those of the replication",
                FitWarning,
                stacklevel=2,
            )

    @classmethod
    def published(cls, name: str = "besiroglu") -> Self:
        """A law with published numbers: `"besiroglu"`, the replication, or `"hoffmann"`, as rounded in the paper."""
        return cls(**PUBLISHED[validation.one_of("name", name, tuple(PUBLISHED))])

    @classmethod
    def fit(cls, runs: Runs, count: str = "all", exclude: Sequence[int] = ()) -> Self:
        """The law that describes runs best.

        It minimizes the sum of Huber(log(prediction) - log(loss)), delta = 0.001, by L-BFGS-B from several starts.

        Args:
            runs: A `RunTable`, or what `RunTable.read` reads, with `parameters`, `tokens` (or `compute`) and `loss`.
            count: See the class. With `"mean"` and a column `sparsity`, means are taken for pruning between a quarter and
                three quarters of the compute; `RunTable.with_mean_parameters` takes other shares. Defaults to `"all"`.
            exclude: Rows that are not used. The five highest losses of the paper's 245 move beta from 0.37 to 0.45.
                Defaults to `()`.

        Raises:
            ValueError: If there are fewer than six runs, or all have the same parameters, tokens, or tokens for each
                parameter.

        Warns:
            FitWarning: If a run is missed by more than 10 %.
            IdentifiabilityWarning: If a number is at the edge of what is searched.
        """
        table = as_runs(runs)
        if count == "mean" and table.sparsity is not None:
            table = table.with_mean_parameters()
        return cls(1.0, 1.0, 0.5, 1.0, 0.5, count)._fitted(table, exclude)

    @property
    def powers(self) -> TwoPowers:
        return TwoPowers(self.E, self.A, self.alpha, self.B, self.beta)

    def fit_to(self, runs: RunTable) -> Any:
        return _best(self, runs, FREE)

    def alternatives(self, runs: RunTable) -> list[RunLaw]:
        """With one exponent, and without E."""
        return [_best(self, runs, TIED), _best(self, runs, WITHOUT_FLOOR)]


def _best(law: ScalingLaw, runs: RunTable, form: np.ndarray) -> ScalingLaw:
    """The best law of a form: a matrix from the numbers that are searched to ln A, ln B, ln E, alpha, beta.

    N and D are divided by their geometric means: the numbers are badly conditioned otherwise. A law that was fitted is the
    only start.
    """
    middle = [np.exp(np.log(runs.column(name)).mean()) for name in law.columns]
    x, y = (np.log(runs.column(name) / scale) for name, scale in zip(law.columns, middle, strict=True))
    floor = np.where(form.any(axis=1), 0.0, LOWEST)  # ln E where it is left out
    pull = form / form.sum(axis=0)  # of two exponents that are tied, the mean is the start
    starts = [_logs(law, middle)] if law.fitted else _starts(x, y, runs.loss)
    lowest, highest = (pull.T @ bound for bound in (LOWEST, HIGHEST))
    objective = _objective(x, y, runs.loss, form, floor)
    found = min((search(objective, pull.T @ start, lowest, highest) for start in starts), key=lambda each: each.fun)
    a, b, e, alpha, beta = form @ found.x + floor
    is_inside = 1.01 * LOWEST[3] < min(alpha, beta) and max(alpha, beta) < 0.99 * HIGHEST[3]
    if not is_inside or (form is FREE and np.exp(e) < NO_FLOOR):
        warnings.warn(
            f"A number is at the edge of what is searched (E={np.exp(e):.3g}, alpha={alpha:.3g}, beta={beta:.3g}): these "
            "runs do not determine it",
            IdentifiabilityWarning,
            stacklevel=5,
        )
    numbers = {"E": np.exp(e), "A": np.exp(a) * middle[0] ** alpha, "B": np.exp(b) * middle[1] ** beta}
    return type(law)(**numbers, alpha=alpha, beta=beta, count=law.count)


def _logs(law: ScalingLaw, middle: list[float]) -> np.ndarray:
    A, B = law.A * middle[0] ** -law.alpha, law.B * middle[1] ** -law.beta
    return np.array([np.log(A), np.log(B), np.log(max(law.E, 1e-10)), law.alpha, law.beta])


def _starts(x: np.ndarray, y: np.ndarray, loss: np.ndarray) -> list[np.ndarray]:
    """The best of a grid of exponents, with the least squares of the relative errors."""
    trials = []
    for alpha in EXPONENTS:
        for beta in EXPONENTS:
            weights, total = best_weights([np.exp(-alpha * x), np.exp(-beta * y), np.ones_like(x)], loss)
            trials.append((total, np.append(np.log(weights), [alpha, beta])))
    return [start for _, start in sorted(trials, key=lambda trial: trial[0])[:STARTS]]


def _objective(x: np.ndarray, y: np.ndarray, loss: np.ndarray, form: np.ndarray, floor: np.ndarray) -> Objective:
    def objective(free: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, e, alpha, beta = form @ free + floor
        by_size, by_tokens, level = np.exp(a - alpha * x), np.exp(b - beta * y), np.full_like(x, np.exp(e))
        gradient = np.stack([by_size, by_tokens, level, -x * by_size, -y * by_tokens])
        return log_huber(by_size + by_tokens + level, form.T @ gradient, loss)

    return objective
