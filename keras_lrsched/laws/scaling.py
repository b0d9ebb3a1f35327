"""Scaling rules: how a hyper-parameter moves with the batch, the length of the run, and the size of the network.

Plain functions of plain numbers. They start a search for a learning rate; none replaces one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from keras_lrsched._core import validation

STEP_LAW = {  # learning rate: factor, power of the parameters, power of the tokens; batch: factor, power of the tokens
    "rounded": ((1.79, -0.713, 0.307), (0.58, 0.571)),
    "fitted": ((1.7973, -0.7129, 0.3075), (0.5807, 0.5709)),
}


def linear_scaling(learning_rate: float, batch_size: float, base_batch_size: float) -> float:
    """The learning rate of SGD for another batch size: learning_rate * batch_size / base_batch_size.

    Goyal et al. 2017, arXiv:1706.02677, who warm up over 5 epochs and stop at a batch of 8192 (from memory, well known;
    neither text nor code was read). Batch sizes are in examples, or both in tokens.

    >>> linear_scaling(0.1, batch_size=8192, base_batch_size=256)
    3.2
    """
    return validation.positive_float("learning_rate", learning_rate) * _ratio(
        batch_size=batch_size, base_batch_size=base_batch_size
    )


def square_root_scaling(learning_rate: float, batch_size: float, base_batch_size: float) -> float:
    """The learning rate of Adam and its kin for another batch size: learning_rate * sqrt(batch_size / base_batch_size).

    Granziol et al. 2020, arXiv:2006.09092 (from memory; the text was not read).

    >>> square_root_scaling(4e-4, batch_size=4096, base_batch_size=1024)
    0.0008
    """
    ratio = _ratio(batch_size=batch_size, base_batch_size=base_batch_size)
    return validation.positive_float("learning_rate", learning_rate) * ratio**0.5


def surge_scaling(max_learning_rate: float, batch_size: float, noise_batch_size: float) -> float:
    """The best learning rate of Adam: max_learning_rate / (0.5 * (sqrt(B_n / B) + sqrt(B / B_n))).

    B is `batch_size` and B_n = `noise_batch_size` that at which the best learning rate is largest, `max_learning_rate`;
    both must be fitted. Beyond B_n it falls again: the surge. It grows with sqrt(B) far below B_n. Valid for batches far
    below that at which the sign of the gradient is sure. B_n grows during training.

    Li et al. 2024, arXiv:2405.14578 (the text was read).

    >>> surge_scaling(1e-3, batch_size=256, noise_batch_size=1024)
    0.0008
    """
    ratio = _ratio(batch_size=batch_size, noise_batch_size=noise_batch_size)
    return validation.positive_float("max_learning_rate", max_learning_rate) * 2 * ratio**0.5 / (1 + ratio)


def surge_scaling_sgd(max_learning_rate: float, batch_size: float, noise_batch_size: float) -> float:
    """The best learning rate of SGD: max_learning_rate / (1 + B_n / B), without a surge. See `surge_scaling`.

    Li et al. 2024, arXiv:2405.14578 (the text was read, which warns not to use a power of this for Adam).

    >>> round(surge_scaling_sgd(1e-3, batch_size=64, noise_batch_size=1024), 9)
    5.8824e-05
    """
    ratio = _ratio(batch_size=batch_size, noise_batch_size=noise_batch_size)
    return validation.positive_float("max_learning_rate", max_learning_rate) * ratio / (1 + ratio)


def token_horizon_ratio(tokens: float, base_tokens: float, beta: float = 0.32) -> float:
    """The factor of the best learning rate for a run of another length: (base_tokens / tokens)^beta.

    Bjorck et al. 2024, arXiv:2409.19913: beta = 0.32 for 760 million parameters and more; for smaller networks other
    sources give 0.70 (50M), 0.65 (125M), 0.38 (350M). Exponents from the abstract and notes on it. `step_law` has the
    opposite sign, since its batch grows with the tokens.

    >>> round(token_horizon_ratio(tokens=100e9, base_tokens=25e9), 6)
    0.641713
    """
    return _ratio(base_tokens=base_tokens, tokens=tokens) ** validation.non_negative_float("beta", beta)


def token_horizon_scaling(learning_rate: float, tokens: float, base_tokens: float, beta: float = 0.32) -> float:
    """The learning rate for a run of another length: learning_rate * (base_tokens / tokens)^beta.

    Source as of `token_horizon_ratio`.

    >>> round(token_horizon_scaling(1e-3, tokens=1e12, base_tokens=25e9), 9)
    0.000307143
    """
    return validation.positive_float("learning_rate", learning_rate) * token_horizon_ratio(tokens, base_tokens, beta)


class StepLaw(NamedTuple):
    """A peak learning rate, and a batch size in tokens."""

    learning_rate: float
    batch_tokens: float


def step_law(parameters: float, tokens: float, constants: str = "rounded") -> StepLaw:
    """The best peak learning rate and batch size for a language model: 1.79 N^-0.713 D^0.307 and 0.58 D^0.571 tokens.

    N is the number of `parameters` without the embeddings, D that of the `tokens` of the run. `constants` are `"rounded"`,
    as the paper prints them, or `"fitted"`, the means of its 1004 fits to four digits, with which the learning rate comes
    out 2 % higher at N = 7e9, D = 1.4e12: 1.7973 N^-0.7129 D^0.3075 and 0.5807 D^0.5709.

    Li et al. 2025, arXiv:2503.04715 (official fits, step-law/steplaw, were recomputed). For AdamW with a cosine to about
    1e-5 (this last is unverified).

    >>> law = step_law(parameters=7e9, tokens=1.4e12)
    >>> round(law.learning_rate, 9), round(law.batch_tokens)
    (0.000916557, 4998815)
    """
    (factor, by_parameters, by_tokens), (batch_factor, batch_by_tokens) = STEP_LAW[
        validation.one_of("constants", constants, tuple(STEP_LAW))
    ]
    parameters, tokens = validation.positive_float("parameters", parameters), validation.positive_float("tokens", tokens)
    return StepLaw(factor * parameters**by_parameters * tokens**by_tokens, batch_factor * tokens**batch_by_tokens)


def half_life(beta: float) -> float:
    """The updates after which an average with decay `beta` has forgotten half: ln(1 / 2) / ln(beta).

    Marek et al. 2025, arXiv:2507.07101 (official code was read).

    >>> round(half_life(0.95), 4)
    13.5134
    """
    return float(np.log(0.5) / np.log(validation.inner_fraction("beta", beta)))


def beta_2_for_batch_size(beta_2: float, batch_size: float, base_batch_size: float) -> float:
    """Adam's beta_2 for another batch size: beta_2^(batch_size / base_batch_size).

    So the half-life of the second moment stays the same in examples or tokens. Marek et al. 2025, arXiv:2507.07101
    (official code, martin-marek/batch-size, was read).

    >>> round(beta_2_for_batch_size(0.95, batch_size=1, base_batch_size=512), 6)
    0.9999
    """
    return validation.inner_fraction("beta_2", beta_2) ** _ratio(batch_size=batch_size, base_batch_size=base_batch_size)


def mup_learning_rate(learning_rate: float, width: float, base_width: float) -> float:
    """Adam's learning rate of a hidden matrix in a network of another width: learning_rate * base_width / width.

    Yang et al. 2022 (muP), arXiv:2203.03466, from memory, unverified. Matrices between layers only: embeddings, biases and
    the gains of normalizations keep theirs.

    >>> mup_learning_rate(1e-2, width=1024, base_width=256)
    0.0025
    """
    return validation.positive_float("learning_rate", learning_rate) * _ratio(base_width=base_width, width=width)


def mup_initialization_std(standard_deviation: float, width: float, base_width: float) -> float:
    """The standard deviation of a hidden matrix's initial values: standard_deviation * sqrt(base_width / width).

    Yang et al. 2022 (muP), arXiv:2203.03466, from memory, unverified.

    >>> mup_initialization_std(0.02, width=1024, base_width=256)
    0.01
    """
    standard_deviation = validation.positive_float("standard_deviation", standard_deviation)
    return standard_deviation * _ratio(base_width=base_width, width=width) ** 0.5


def mup_weight_decay(weight_decay: float, width: float, base_width: float) -> float:
    """AdamW's weight decay of a hidden matrix: weight_decay * width / base_width.

    The decay of an update is learning rate times weight decay; it stays the same beside `mup_learning_rate`. From memory,
    unverified: the rule is not of the muP paper itself but of later work (Wang & Aitchison 2024, arXiv:2405.13698).

    >>> mup_weight_decay(0.1, width=1024, base_width=256)
    0.4
    """
    return validation.non_negative_float("weight_decay", weight_decay) * _ratio(width=width, base_width=base_width)


class PowerDecayExponents(NamedTuple):
    """The power of the decay, and that of the number of updates by which the best peak falls."""

    power: float
    peak: float


def power_decay_exponents(source: float, capacity: float) -> PowerDecayExponents:
    """The exponents of the best schedule under the theory of `FunctionalLaw`: peak * (1 - x)^power, peak ~ updates^-nu.

    power = 2 * capacity - 1 and nu = (1 + source * capacity - capacity) / (1 + source * capacity), which is 0 on hard tasks,
    where source < 1 - 1 / capacity: there the peak is the largest stable rate. See `PowerDecayToZero`.

    arXiv:2602.06797 (the abstract was read; nu is derived here, and was confirmed by tuned peaks).

    >>> power_decay_exponents(source=0.5, capacity=1.5)
    PowerDecayExponents(power=2.0, peak=0.14285714285714285)
    """
    source, capacity = validation.positive_float("source", source), validation.at_least_one("capacity", capacity)
    reach = source * capacity
    return PowerDecayExponents(2 * capacity - 1, max(0.0, (1 + reach - capacity) / (1 + reach)))


def power_decay_fraction(
    source: float, capacity: float, total_steps: float, max_learning_rate: float, noise: float = 1.0
) -> float:
    """The part of a run on a hard task that its decay takes, behind a plateau at the largest stable rate.

    With N = total_steps, D updates of decay and p = 2 - 1 / capacity, it minimizes the loss of `power_law_regression_loss`
    in the continuous limit:

        T^-source + noise * (lr^2 * D * u^-p + lr * (u^(1 - p) - T^(1 - p)) / (p - 1))
        u = lr * D / (2 * capacity),  T = lr * (N - D) + u

    Derived here after arXiv:2602.06797.

    >>> round(power_decay_fraction(source=0.3, capacity=2.0, total_steps=10_000, max_learning_rate=0.01), 4)
    0.197
    """
    source, noise = validation.positive_float("source", source), validation.positive_float("noise", noise)
    capacity = validation.at_least_one("capacity", capacity)
    if source >= 1 - 1 / capacity:
        raise ValueError(
            "`source` must be below 1 - 1 / capacity: on easier tasks the decay takes the whole run. "
            f"Received: source={source}, capacity={capacity}"
        )
    steps = validation.positive_float("total_steps", total_steps)
    rate = validation.positive_float("max_learning_rate", max_learning_rate)
    p = 2 - 1 / capacity

    def loss(log_fraction: float) -> float:
        decay = steps * np.exp(log_fraction)
        left = rate * decay / (2 * capacity)
        time = rate * (steps - decay) + left
        noisy = rate**2 * decay * left**-p + rate * (left ** (1 - p) - time ** (1 - p)) / (p - 1)
        return float(time**-source + noise * noisy)

    return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=(np.log(1e-6), 0.0), options={"xatol": 1e-10}).x))


def power_law_regression_loss(
    learning_rates: Sequence[float] | np.ndarray,
    source: float,
    capacity: float,
    noise: float = 1.0,
    batch_size: float = 1.0,
) -> float:
    """The excess loss of kernel regression by SGD at the end of a run: the theory behind `FunctionalLaw`.

        e(T) + sum over n of lr_n^2 / batch_size * K(T - t_(n+1)) * (e(t_n) + noise)
        e(t) = (1 + t)^-source,  K(u) = (1 + u)^-(2 - 1 / capacity)

    t_n = lr_0 + ... + lr_(n-1) is the intrinsic time before update n and T that after the last; `noise` is the variance of
    the labels. The minimum of the loss and the model's size, which add to it, are left out.

    Li et al. 2025, arXiv:2509.19189 (two descriptions were read).

    >>> round(power_law_regression_loss(np.full(100, 0.1), source=1.0, capacity=2.0), 6)
    0.255771
    """
    rates = np.array(validation.each("learning_rates", learning_rates, validation.non_negative_float))
    source, noise = validation.positive_float("source", source), validation.non_negative_float("noise", noise)
    capacity = validation.at_least_one("capacity", capacity)
    time = np.concatenate([[0.0], np.cumsum(rates)])
    bias = (1 + time) ** -source
    kernel = (1 + time[-1] - time[1:]) ** -(2 - 1 / capacity)
    noisy = rates**2 / validation.positive_float("batch_size", batch_size) * kernel * (bias[:-1] + noise)
    return float(bias[-1] + noisy.sum())


class MovingAverage(NamedTuple):
    """The weight of each update in the final parameters, and that of the initial ones."""

    coefficients: np.ndarray
    residual: float


def adamw_as_ema(learning_rates: Sequence[float] | np.ndarray, weight_decay: float) -> MovingAverage:
    """The share of each update of an AdamW run in its final parameters, which are a moving average of them.

    With a_t = learning_rates[t] * weight_decay, coefficients c_t = a_t * (1 - a_(t+1)) * (1 - a_(t+2)) * ... and residual
    (1 - a_0) * (1 - a_1) * ... of the initial parameters; they sum to 1. The learning rates are those of every update, for
    instance `schedule.values(steps)`.

    Bergsma et al. 2025, arXiv:2502.15938 (the formula follows from AdamW's update).

    >>> adamw_as_ema([1.0, 0.75, 0.5, 0.25], weight_decay=0.1).coefficients.round(7)
    array([0.0856781, 0.0694688, 0.04875  , 0.025    ])
    """
    decay = validation.positive_float("weight_decay", weight_decay)
    parts = decay * np.array(validation.each("learning_rates", learning_rates, validation.non_negative_float))
    if not parts.size or parts.max() > 1:
        raise ValueError(
            "`learning_rates` must be one or more, each at most 1 / `weight_decay`. "
            f"Received: learning_rates={learning_rates!r:.200}, weight_decay={weight_decay}"
        )
    kept = np.append(np.cumprod((1 - parts)[::-1])[::-1], 1.0)
    return MovingAverage(parts * kept[1:], float(kept[0]))


def _ratio(**numbers: float) -> float:
    above, below = (validation.positive_float(name, value) for name, value in numbers.items())
    return above / below
