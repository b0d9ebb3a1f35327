"""Parameterizations: how initial values and learning rates scale with the width and depth of a network."""

import math
from typing import NamedTuple

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register

PARAMETERIZATIONS = {  # (a, b) of embedding, hidden and output: weights n^-a W with W ~ N(0, n^-2b)
    "mup": ((-0.5, 0.5), (0.0, 0.5), (0.5, 0.5)),
    "mean_field": ((0.0, 0.0), (0.5, 0.0), (1.0, 0.0)),
    "standard": ((0.0, 0.0), (0.0, 0.5), (0.0, 0.5)),
    "ntk": ((0.0, 0.0), (0.5, 0.0), (0.5, 0.0)),
}
ALIGNMENTS = {"full": 1.0, "none": 0.5}
"""The power of the width by which a sum of as many products of an update and the data grows."""

FAMILIES = ("adam", "sgd", "adafactor", "muon")
MULTIPLIER_POWERS = {"adam": 1, "muon": 1, "sgd": 2, "adafactor": 0}
"""A multiplier c of W becomes part of the kernel c W: this power of it is then part of the learning rate.

A step of Adam and Muon does not depend on the size of the gradient, which is c times as small for c W, one of SGD is
proportional to it, and one of Adafactor is a fraction of the weights.
"""


class Multipliers(NamedTuple):
    """Factors of the standard deviation of initial values and of the learning rate."""

    initial: float
    learning_rate: float


@register(
    title="how initial values and learning rates scale with the width, by parameterization and optimizer",
    paper="arXiv:2407.05872",
    checked="vectors",
    against="rates of microsoft/mup, which was run; other parameterizations are derived",
    deviations="the table of the paper was not seen",
    kind="rule",
)
def width_multipliers(
    kind: str,
    inputs: float,
    outputs: float,
    rule: str = "mup",
    family: str = "adam",
    alignment: str = "full",
) -> Multipliers:
    """Factors for a variable of a network that is wider than its base, with all multipliers of its forward pass in kernels.

    With the ratios m_in = `inputs` and m_out = `outputs` of wide to base, x = 1 for full alignment of updates and data and
    0.5 for none, and y = 1 for `"mup"` and `"mean_field"`, 0.5 for `"standard"` and `"ntk"`:

                     initial        Adam        SGD               Adafactor
        input        1              1           m_out^y           1
        vector       1              1           m_out^y           1
        hidden       m_in^-0.5      m_in^-x     m_in^-x m_out^y   m_in^(0.5-x)
        output       m_in^-y        m_in^-x     m_in^-x           m_in^(y-x)

    With all multipliers in the kernel, parameterizations of the same y are one. Muon has Adam's factors where it leaves
    variables to Adam; its own matrices are the subject of `muon_multiplier`.

    Args:
        kind: `"input"` for matrices of which only the outputs grow, such as embeddings; `"vector"` for biases, gains and
            offsets; `"hidden"` for matrices whose inputs and outputs grow; `"output"` for those of which only the inputs do.
        inputs: m_in, positive.
        outputs: m_out, positive.
        rule: `"mup"`, `"mean_field"`, `"standard"` or `"ntk"`. Defaults to `"mup"`.
        family: `"adam"` for methods whose step does not grow with the gradient, `"sgd"`, `"adafactor"` for steps relative
            to the RMS of the weights, or `"muon"`. Defaults to `"adam"`.
        alignment: `"full"` or `"none"`. Defaults to `"full"`.

    Returns:
        The factors of the standard deviation of the initial values and of the learning rate.

    Raises:
        ValueError: If an argument is unknown or out of its range.

    Reference:
        Everett et al., Scaling Exponents Across Parameterizations and Optimizers, arXiv:2407.05872; derived from the
        conditions there, not compared with the table of the paper. For `"mup"`: Yang et al., arXiv:2203.03466, whose code,
        microsoft/mup, gives the same rates with the multiplier 1 / m outside of the output kernel.

    Example:

    >>> width_multipliers("output", inputs=4, outputs=1)
    Multipliers(initial=0.25, learning_rate=0.25)
    """
    validation.one_of("kind", kind, ("input", "vector", "hidden", "output"))
    validation.one_of("family", family, FAMILIES)
    inputs, outputs = validation.positive_float("inputs", inputs), validation.positive_float("outputs", outputs)
    x = ALIGNMENTS[validation.one_of("alignment", alignment, tuple(ALIGNMENTS))]
    y = output_power(rule)
    initial = {"hidden": inputs**-0.5, "output": inputs**-y}.get(kind, 1.0)
    rate = inputs**-x if kind in ("hidden", "output") else 1.0
    if family == "sgd" and kind != "output":  # whose gradient alone is not passed through the output kernel
        rate *= outputs**y
    if family == "adafactor":
        rate /= initial
    return Multipliers(initial, rate)


def output_power(rule: str) -> float:
    """The power of the width by which an output kernel, and so the gradient of all below it, shrinks."""
    return sum(PARAMETERIZATIONS[validation.one_of("rule", rule, tuple(PARAMETERIZATIONS))][2])


def muon_multiplier(base_shape: tuple[int, int], shape: tuple[int, int], base_scale: float, scale: float) -> float:
    """The factor of the learning rate of a matrix (inputs, outputs) under Muon: what its own scale leaves to be done.

    An orthogonalized step times q has the spectral norm q, and should have sqrt(outputs / inputs). So `"spectral_norm"` has
    1, `"original"` has 1 where the aspect stays the same, and q = 0.2 sqrt(max(inputs, outputs)), which matches the RMS of
    Adam's steps, has m^-0.5: all singular values are equal, while those of Adam's, with full alignment, are one that grows
    like m. Yang et al., A Spectral Condition for Feature Learning, arXiv:2310.17813 (from memory).
    """
    wanted, base_wanted = (math.sqrt(outputs / inputs) for inputs, outputs in (shape, base_shape))
    return (wanted / base_wanted) / (scale / base_scale)


class Exponents(NamedTuple):
    """Powers -c of the width n, by which learning rates scale: n^-c."""

    embedding: float
    hidden: float
    output: float


def exponents(rule: str = "mup", family: str = "adam", alignment: str = "full") -> Exponents:
    """The exponents c of the learning rates n^-c of a parameterization, whose weights are n^-a W with W ~ N(0, n^-2b).

    (a, b) of embedding, hidden and output are (-0.5, 0.5), (0, 0.5), (0.5, 0.5) for `"mup"`; (0, 0), (0.5, 0), (1, 0) for
    `"mean_field"`; (0, 0), (0, 0.5), (0, 0.5) for `"standard"`; (0, 0), (0.5, 0), (0.5, 0) for `"ntk"`. They are those of
    `width_multipliers`, with the multiplier n^-a taken out of the kernel.

    Args:
        rule: See `width_multipliers`. Defaults to `"mup"`.
        family: `"adam"`, `"sgd"` or `"adafactor"`. Defaults to `"adam"`.
        alignment: `"full"`, or `"none"`: 0.5 less for hidden and output. Defaults to `"full"`.

    Raises:
        ValueError: If an argument is unknown.

    Reference:
        As of `width_multipliers`.

    Example:

    >>> exponents("standard", "sgd")
    Exponents(embedding=-0.5, hidden=0.5, output=1.0)
    """
    validation.one_of("family", family, ("adam", "sgd", "adafactor"))
    output_power(rule)
    rates = [width_multipliers(kind, 2, 2, rule, family, alignment).learning_rate for kind in ("input", "hidden", "output")]
    multiplied = [MULTIPLIER_POWERS[family] * a for a, _ in PARAMETERIZATIONS[rule]]
    return Exponents(*(0.0 + round(-math.log2(rate) - power, 9) for rate, power in zip(rates, multiplied, strict=True)))


class DepthMultipliers(NamedTuple):
    """Factors of a residual branch, of the learning rate of all that is in it, and of Adam's epsilon."""

    branch: float
    learning_rate: float
    epsilon: float


def depth_multipliers(ratio: float, power: float = 1.0, family: str = "adam") -> DepthMultipliers:
    """Factors for a network with `ratio` = r times as many residual branches: r^-power of each branch.

    The learning rate within branches has r^(power - 1); under SGD, whose gradient has passed the factor of the branch, too,
    r^(2 power - 1). So L branches change the output by the same amount at each depth. Epsilon has r^-power.
    """
    ratio, power = validation.positive_float("ratio", ratio), validation.non_negative_float("power", power)
    passes = 2 if family == "sgd" else 1
    return DepthMultipliers(ratio**-power, ratio ** (passes * power - 1), ratio**-power)


def branch_weights(residual_multiplier: float, residual_attention_ratio: float) -> tuple[float, float]:
    """The constants A of attention and feed-forward branches of u-muP."""
    ratio = validation.positive_float("residual_attention_ratio", residual_attention_ratio)
    feed_forward = validation.positive_float("residual_multiplier", residual_multiplier) * math.sqrt(2 / (1 + ratio**2))
    return ratio * feed_forward, feed_forward


class Residual(NamedTuple):
    """Weights of a residual connection: x = branch f(x) + skip x."""

    branch: float
    skip: float


@register(
    title="the residual connections of u-muP",
    paper="arXiv:2407.17465",
    code=("graphcore-research/unit-scaling",),
    checked="read",
    against="the formula of the official code",
    kind="rule",
)
def unit_scaled_residuals(
    branches: int, residual_multiplier: float = 1.0, residual_attention_ratio: float = 1.0
) -> list[Residual]:
    """The weights of u-muP's residual connections, which keep a sum of independent terms of RMS 1 at RMS 1.

        x = tau / sqrt(1 + tau^2) f(x) + 1 / sqrt(1 + tau^2) x
        tau^2 = A^2 / (branches / 2 + the sum of A^2 over all branches below)

    with A of a feed-forward branch sqrt(2 / (1 + residual_attention_ratio^2)) residual_multiplier, and of an attention
    branch residual_attention_ratio times this. Attention comes first, then they alternate. All attention branches contribute
    the same to the result, as do all feed-forward branches.

    In a network that normalizes the input of each branch and the last output, this is the same as branches times
    A / sqrt(branches / 2) beside skips of 1: the factors of Depth-muP, with two constants of their own.

    Args:
        branches: The number of residual branches, two for each block of a Transformer.
        residual_multiplier: The ratio of the contribution of all branches to that of the embedding. Defaults to `1`.
        residual_attention_ratio: The ratio of the contributions of attention to feed-forward branches. Defaults to `1`.

    Returns:
        A list of `Residual(branch, skip)`, from the first branch to the last.

    Raises:
        ValueError: If an argument is not positive.

    Reference:
        Blake et al., u-muP: The Unit-Scaled Maximal Update Parametrization, arXiv:2407.17465, appendix G; the code,
        graphcore-research/unit-scaling, was read.

    Example:

    >>> [tuple(round(weight**2, 4) for weight in residual) for residual in unit_scaled_residuals(2)]
    [(0.5, 0.5), (0.3333, 0.6667)]
    """
    validation.positive_int("branches", branches)
    weights = branch_weights(residual_multiplier, residual_attention_ratio)
    residuals, below = [], branches / 2
    for index in range(branches):
        part = weights[index % 2] ** 2
        residuals.append(Residual(math.sqrt(part / (below + part)), math.sqrt(below / (below + part))))
        below += part
    return residuals
