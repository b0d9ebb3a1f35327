"""The best size of a vocabulary, by three estimators."""

from typing import Any, NamedTuple

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register

CAP = 200_000
"""The largest vocabulary that the fit of tokens for each character holds for; it is constant above."""
SQUARE, LINEAR, CONSTANT = 0.00639222, -0.15811069, 1.20470122
ISOFLOP_PARAMETERS = -2.48465102
"""Parameters = exp(this) * FLOP^0.5 at the optimum."""
ISOFLOP_VOCABULARY = (-1.5890313, 0.41636226)
"""Parameters of the vocabulary = exp(first) * FLOP^second."""
DERIVATIVE = (3_145_728, 33e6, 0.8353974)
"""Parameters of the vocabulary at a model size, and the power with which they grow."""
A2, ALPHA2, B, BETA = 0.195842, 0.670737, 2.124112, 0.446606
"""Of the parametric loss, in units of 1e6 parameters, 1e3 tokens of vocabulary, a width of 1e3, and 1e9 characters."""


class VocabularySizes(NamedTuple):
    """The best vocabulary size by each estimator, in tokens."""

    isoflop: int
    derivative: int
    parametric: int


@register(
    "tokens_per_character",
    title="tokens for each character of English text",
    paper="arXiv:2407.13623",
    code=("sail-sg/scaling-with-vocab",),
    checked="numbers",
    against="the official code",
    deviations="of one BPE on one English corpus",
    kind="scaling rule",
)
def tokens_per_character(vocabulary_size: Any) -> Any:
    """Tokens for each character with a vocabulary of V tokens: 0.00639222 ln^2 V - 0.15811069 ln V + 1.20470122.

    It is constant above V = 200,000. Of one BPE on one English corpus: fit your own for other languages.

    Reference: Tao et al. 2024, arXiv:2407.13623 (official code, sail-sg/scaling-with-vocab).

    >>> float(tokens_per_character(32768).round(6))
    0.251803
    """
    log = np.log(np.minimum(vocabulary_size, CAP))
    return SQUARE * log**2 + LINEAR * log + CONSTANT


@register(
    "vocabulary_size",
    title="best vocabulary size from parameters and width",
    paper="arXiv:2407.13623",
    code=("sail-sg/scaling-with-vocab",),
    checked="numbers",
    against="the official code, which was run for the first two estimators, for seven model sizes",
    deviations="constants as published; the grid fit of the parametric estimator was not repeated",
    kind="scaling rule",
)
def vocabulary_size(parameters: float, width: float, compute: float | None = None) -> VocabularySizes:
    """The best vocabulary size of a language model, by three estimators that agree within about a fifth.

    - `isoflop`: V * width = exp(-1.58903) FLOP^0.416362, from runs with the lowest loss for their FLOP.
    - `derivative`: V * width = 3145728 (parameters / 33e6)^0.8353974, from the FLOP for a number of characters. It does not
      depend on the compute.
    - `parametric`: where the derivative of a fitted loss by V is zero for given FLOP.

    All are for the loss normalized by that of unigrams, which vocabularies of any size can be compared by, and for English.

    Args:
        parameters: Parameters without those of the vocabulary, two matrices in the paper's models: input and output.
        width: Width of the embedding; `V * width` counts one matrix, tied or not.
        compute: FLOP of the run. Defaults to `None`: the best for these parameters, (parameters e^2.48465)^2.

    Returns:
        `VocabularySizes`, in tokens.

    Raises:
        ValueError: If an argument is not positive.

    Reference: Tao et al. 2024, arXiv:2407.13623 (official code, sail-sg/scaling-with-vocab).

    Example:

    >>> vocabulary_size(parameters=70e9, width=8192)
    VocabularySizes(isoflop=211860, derivative=230861, parametric=217961)
    """
    parameters, width = validation.positive_float("parameters", parameters), validation.positive_float("width", width)
    best = (parameters * np.exp(-ISOFLOP_PARAMETERS)) ** 2
    compute = best if compute is None else validation.positive_float("compute", compute)
    factor, power = ISOFLOP_VOCABULARY
    isoflop = np.exp(factor) * compute**power / width
    known, size, growth = DERIVATIVE
    derivative = known * (parameters / size) ** growth / width
    return VocabularySizes(int(isoflop), int(derivative), int(_parametric(parameters, width, compute)))


def _parametric(parameters: float, width: float, compute: float) -> float:
    """The zero of the derivative of A2 (V d)^-alpha2 + B (FLOP / (6 (N + V d)))^-beta by V."""
    N, d, flop = parameters / 1e6, width / 1e3, compute / 1e15

    def slope(log_V: float) -> float:
        vocabulary = np.exp(log_V) * d
        data = flop / (6 * (N + vocabulary))
        by_data = BETA * B * data ** -(BETA + 1) * flop * d / (6 * (N + vocabulary) ** 2)
        return float(by_data - ALPHA2 * A2 * d * vocabulary ** -(ALPHA2 + 1))

    return 1e3 * float(np.exp(scipy.optimize.brentq(slope, np.log(1e-3), np.log(1e9), xtol=1e-12)))


def cheapest_vocabulary(parameters: float, width: float) -> float:
    """The vocabulary size with the fewest FLOP for a number of characters: d f(V) + (N + d V) f'(V) = 0.

    The derivative estimator is a power law through these for seven model sizes.
    """

    def slope(V: float) -> float:
        derivative = (2 * SQUARE * np.log(V) + LINEAR) / V
        return float(width * tokens_per_character(V) + (parameters + width * V) * derivative)

    return float(scipy.optimize.brentq(slope, 100.0, CAP, xtol=1e-6))
