"""The loss during training from model size, updates and batch size, and the critical batch size."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.laws._fitting import DELTA
from keras_lrsched.laws._two_powers import Optimum
from keras_lrsched.laws.run_law import RunLaw, positive_coefficients
from keras_lrsched.laws.run_table import FLOPS, Runs, RunTable

PUBLISHED = {
    "kaplan": {"N_c": 6.5e13, "alpha_N": 0.077, "S_c": 2.1e3, "alpha_S": 0.76, "B_star": 2.1e8, "alpha_B": 0.21},
    "unraveling": {"N_c": 1.5e14, "alpha_N": 0.076, "S_c": 2.6e3, "alpha_S": 0.67, "B_star": 1.7e8, "alpha_B": 0.205},
}
HALVINGS = 200
"""Of the logarithm of the loss's bracket: far more than the digits of a float64."""
STARTS = [(alpha_N, alpha_S) for alpha_N in (0.05, 0.1, 0.3) for alpha_S in (0.3, 0.7, 1.2)]


class MinimalCosts(NamedTuple):
    """The fewest updates, with an unlimited batch, and the fewest tokens, with the smallest batch, that reach a loss."""

    steps: float
    tokens: float


@register(
    "steps_and_batch",
    title="loss during training from parameters, updates and batch size",
    paper="arXiv:2001.08361; arXiv:2403.06563",
    checked="memory",
    against="values of the formula that were computed apart",
    deviations="the published constants are from memory, and of other tokenizers and data: for the shape, not for use",
    kind="law of runs",
)
class StepsAndBatchLaw(RunLaw):
    """The loss of a model of N parameters after S updates with batches of B tokens, at a constant rate after warmup.

        L         = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S
        S_min     = S / (1 + B_crit(L) / B)
        B_crit(L) = B_star / L^(1 / alpha_B)

    The loss stands on both sides; the right one falls with it, so there is one solution. At the critical batch B_crit a loss
    costs twice the fewest updates, and twice the fewest tokens.

    It is fitted to points of trajectories, not to ends of runs whose learning rate decays: for those are `ScalingLaw` and,
    for the course of a decay, the laws of schedules. Give points of one run the same `run` in the table.

    Args:
        N_c, alpha_N: Of the term of the parameters, which the papers count without embeddings.
        S_c, alpha_S: Of the term of the updates.
        B_star, alpha_B: Of the critical batch, in tokens.

    Raises:
        ValueError: If a number is not positive.

    Reference: Kaplan et al. 2020, arXiv:2001.08361; Su et al. 2024 ("Unraveling the mystery of scaling laws"),
    arXiv:2403.06563.

    Example:

    >>> law = StepsAndBatchLaw.published("kaplan")
    >>> round(law.critical_batch(loss=3.0))
    1122570
    >>> round(law.loss(parameters=1e8, steps=1e5, batch_tokens=5e5), 6)
    2.939551
    """

    coefficients = ("N_c", "alpha_N", "S_c", "alpha_S", "B_star", "alpha_B")
    columns = ("parameters", "steps", "batch_tokens")
    least_runs = 4
    N_c: float
    alpha_N: float
    S_c: float
    alpha_S: float
    B_star: float
    alpha_B: float

    def __init__(self, N_c: float, alpha_N: float, S_c: float, alpha_S: float, B_star: float, alpha_B: float) -> None:
        super().__init__()
        positive_coefficients(self, N_c=N_c, alpha_N=alpha_N, S_c=S_c, alpha_S=alpha_S, B_star=B_star, alpha_B=alpha_B)

    @classmethod
    def published(cls, name: str = "kaplan") -> Self:
        """A law with published numbers, from memory: `"kaplan"` or `"unraveling"`."""
        return cls(**PUBLISHED[validation.one_of("name", name, tuple(PUBLISHED))])

    @classmethod
    def fit(cls, runs: Runs, exclude: Sequence[int] = ()) -> Self:
        """The law that describes points of trajectories best.

        As the papers do, each point's updates are converted to S_min with the critical batch at its measured loss. Then the
        sum of Huber(log(prediction) - log(loss)), delta = 0.001, is minimized from a grid of exponents.

        Args:
            runs: A `RunTable`, or what `RunTable.read` reads, with `parameters`, `steps`, `batch_tokens` (or `tokens`),
                `loss`, and the label of the `run` if it has several points.
            exclude: Rows that are not used. Defaults to `()`.

        Raises:
            ValueError: If there are fewer than four runs or seven points, or all have the same parameters, updates or batch.
        """
        return cls(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)._fitted(runs, exclude)

    def value_at(self, *columns: np.ndarray) -> np.ndarray:
        parameters, steps, batch = np.broadcast_arrays(*columns)
        by_size = (self.N_c / parameters) ** self.alpha_N
        # Below: any batch costs updates. Above: the term of the updates if the batch were as small as at the lowest loss.
        low, high = by_size, by_size + self._by_steps(steps, batch, by_size)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            is_above = by_size + self._by_steps(steps, batch, middle) < middle
            low, high = np.where(is_above, low, middle), np.where(is_above, middle, high)
        return 0.5 * (low + high)

    def loss(self, parameters: Any, steps: Any, batch_tokens: Any) -> Any:
        """The predicted loss after `steps` updates with batches of `batch_tokens` tokens; numbers or arrays.

        Warns:
            ExtrapolationWarning: If one of them lies outside of those that the law was fitted to.
        """
        return self._predict(parameters, steps, batch_tokens)

    def critical_batch(self, loss: float) -> float:
        """The tokens of the batch at which reaching this loss costs twice the fewest updates and twice the fewest tokens."""
        return float(self.B_star * validation.positive_float("loss", loss) ** (-1 / self.alpha_B))

    def minimal_costs(self, loss: float, steps: float, batch_tokens: float) -> MinimalCosts:
        """The fewest updates, and the fewest tokens, of a run that reached a loss with some batch."""
        ratio = self.critical_batch(loss) / validation.positive_float("batch_tokens", batch_tokens)
        steps = validation.positive_float("steps", steps)
        return MinimalCosts(steps / (1 + ratio), batch_tokens * steps / (1 + 1 / ratio))

    def steps_for(self, loss: float, parameters: float, batch_tokens: float) -> float:
        """The updates with which a model reaches a loss; infinite if it never does."""
        ratio = self.critical_batch(loss) / validation.positive_float("batch_tokens", batch_tokens)
        left = loss - (self.N_c / validation.positive_float("parameters", parameters)) ** self.alpha_N
        return float(self.S_c / left ** (1 / self.alpha_S) * (1 + ratio)) if left > 0 else np.inf

    def tokens_for(self, loss: float, parameters: float, batch_tokens: float) -> float:
        """The tokens with which a model reaches a loss; infinite if it never does."""
        return self.steps_for(loss, parameters, batch_tokens) * batch_tokens

    def optimal(self, compute: float, batch_tokens: float, flops_per_token_parameter: float = FLOPS) -> Optimum:
        """The parameters and tokens with the lowest loss for a compute, with a given batch, and that loss."""
        factor = validation.positive_float("flops_per_token_parameter", flops_per_token_parameter)
        product = validation.positive_float("compute", compute) / factor
        batch = validation.positive_float("batch_tokens", batch_tokens)

        def loss(log_size: float) -> float:
            size = np.exp(log_size)
            return float(self.value_at(np.array(size), np.array(product / size / batch), np.array(batch)))

        top = np.log(product / batch)  # one update
        found = scipy.optimize.minimize_scalar(loss, bounds=(0.0, top), method="bounded", options={"xatol": 1e-8})
        parameters = float(np.exp(found.x))
        tokens = product / parameters
        return Optimum(parameters, tokens, self._predict(parameters, tokens / batch, batch))

    def check_identified(self, runs: RunTable) -> None:
        super().check_identified(runs)
        if len(runs) <= len(self.coefficients):
            raise ValueError(f"{type(self).__name__} has six numbers and needs seven points. Received: {len(runs)} points")

    def fit_to(self, runs: RunTable) -> Self:
        size, steps, batch, loss = (np.log(runs.column(name)) for name in (*self.columns, "loss"))
        middle = size.mean(), steps.mean(), batch.mean()
        data = size - middle[0], steps - middle[1], batch - middle[2], loss
        starts = [self._logs(middle)] if self.fitted else [_start(alphas, data) for alphas in STARTS]
        found = min((_search(start, data) for start in starts), key=lambda each: each.cost)
        by_size, alpha_N, by_steps, alpha_S, by_batch, alpha_B = found.x
        return type(self)(
            N_c=np.exp(by_size / alpha_N + middle[0]),
            alpha_N=alpha_N,
            S_c=np.exp(by_steps / alpha_S + middle[1]),
            alpha_S=alpha_S,
            B_star=np.exp(by_batch + middle[2]),
            alpha_B=alpha_B,
        )

    def _by_steps(self, steps: np.ndarray, batch: np.ndarray, loss: np.ndarray) -> np.ndarray:
        critical = self.B_star * loss ** (-1 / self.alpha_B)
        return (self.S_c / steps * (1 + critical / batch)) ** self.alpha_S

    def _logs(self, middle: tuple) -> list[float]:
        """The numbers of `_search`: logarithms of both terms in the middle of the points, and of B_star."""
        return [
            self.alpha_N * (np.log(self.N_c) - middle[0]),
            self.alpha_N,
            self.alpha_S * (np.log(self.S_c) - middle[1]),
            self.alpha_S,
            np.log(self.B_star) - middle[2],
            self.alpha_B,
        ]


def _start(alphas: tuple[float, float], data: tuple) -> list[float]:
    """Both terms are half of the loss, and the batch is critical, in the middle of the points."""
    half = float(data[3].mean()) - np.log(2)
    return [half, alphas[0], half - alphas[1] * np.log(2), alphas[1], float(data[3].mean()) / 0.2, 0.2]


def _search(start: list[float], data: tuple) -> Any:
    size, steps, batch, loss = data

    def residuals(numbers: np.ndarray) -> np.ndarray:
        by_size, alpha_N, by_steps, alpha_S, by_batch, alpha_B = numbers
        ratio = by_batch - loss / alpha_B - batch
        terms = by_size - alpha_N * size, by_steps + alpha_S * (np.logaddexp(0, ratio) - steps)
        return np.logaddexp(*terms) - loss

    def jacobian(numbers: np.ndarray) -> np.ndarray:
        by_size, alpha_N, by_steps, alpha_S, by_batch, alpha_B = numbers
        ratio = by_batch - loss / alpha_B - batch
        extra, share_of_ratio = np.logaddexp(0, ratio), scipy.special.expit(ratio)
        terms = by_size - alpha_N * size, by_steps + alpha_S * (extra - steps)
        share = scipy.special.expit(terms[0] - terms[1])
        rest = 1 - share
        by_ratio = rest * alpha_S * share_of_ratio
        columns = [share, -share * size, rest, rest * (extra - steps), by_ratio, by_ratio * loss / alpha_B**2]
        return np.stack(columns, axis=1)

    bounds = [-np.inf, 1e-3, -np.inf, 1e-3, -np.inf, 0.02], [np.inf, 3.0, np.inf, 5.0, np.inf, 10.0]
    return scipy.optimize.least_squares(
        residuals, start, jacobian, bounds, loss="huber", f_scale=DELTA, x_scale="jac", ftol=1e-14, xtol=1e-14, max_nfev=500
    )
