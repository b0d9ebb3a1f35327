"""Laws that are a sum of two power laws, of the parameters and of the tokens, with what follows in closed form."""

from typing import Any, NamedTuple

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched.laws.run_law import RunLaw
from keras_lrsched.laws.run_table import FLOPS, RunTable


class Optimum(NamedTuple):
    """The model and the tokens with the lowest loss for some compute."""

    parameters: float
    tokens: float
    loss: float


class TwoPowers(NamedTuple):
    """E + A * N^-alpha + B * D^-beta."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def value(self, parameters: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return self.E + self.A * parameters**-self.alpha + self.B * tokens**-self.beta

    def optimum(self, product: float) -> tuple[float, float]:
        """N and D with the lowest value among those with N * D = `product`: alpha A N^-alpha = beta B D^-beta there."""
        share = self.beta / (self.alpha + self.beta)
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return ratio * product**share, product ** (1 - share) / ratio

    def tokens_for(self, value: float, parameters: float) -> float:
        """D at which N parameters reach a value; infinite if they never do."""
        left = value - self.E - self.A * parameters**-self.alpha
        return float((self.B / left) ** (1 / self.beta)) if left > 0 else np.inf


class TwoPowerLaw(RunLaw):
    """A law whose loss is a sum of two powers, raised to one more power."""

    power: float = 1.0

    @property
    def powers(self) -> TwoPowers:
        """The sum; the loss is this to the `power`."""
        raise NotImplementedError

    def value_at(self, *columns: np.ndarray) -> np.ndarray:
        return self.powers.value(*columns) ** self.power

    def loss(self, parameters: Any, tokens: Any) -> Any:
        """The predicted final loss; numbers or arrays.

        Warns:
            ExtrapolationWarning: If parameters, tokens or compute lie outside of those that the law was fitted to.
        """
        return self._predict(parameters, tokens)

    def optimal(self, compute: float, flops_per_token_parameter: float = FLOPS) -> Optimum:
        """The parameters N and tokens D with the lowest loss for a compute, and that loss.

        Args:
            compute: Floating-point operations of the run.
            flops_per_token_parameter: The compute divided by N * D. Defaults to `6.0`.
        """
        factor = validation.positive_float("flops_per_token_parameter", flops_per_token_parameter)
        parameters, tokens = self.powers.optimum(validation.positive_float("compute", compute) / factor)
        return Optimum(parameters, tokens, self._predict(parameters, tokens))

    def tokens_for(self, loss: float, parameters: float) -> float:
        """The tokens with which a model reaches a loss; infinite if it never does."""
        value = validation.positive_float("loss", loss) ** (1 / self.power)
        return self.powers.tokens_for(value, validation.positive_float("parameters", parameters))

    def check_identified(self, runs: RunTable) -> None:
        """As `RunLaw.check_identified`; the runs must differ in tokens for each parameter, too."""
        super().check_identified(runs)
        ratios = runs.column("tokens") / runs.column("parameters")
        if ratios.max() <= 1.01 * ratios.min():
            raise ValueError(
                "The runs must differ in tokens for each parameter, or the two terms cannot be separated: "
                f"`PowerLaw.fit(runs, variable='compute')` fits their sum. Received: {ratios[0]:.4g} in all runs"
            )
