"""The batch as a means to an end: Seesaw, which lets it grow instead of the learning rate fall, and goodput."""

from typing import NamedTuple

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.laws.law import RunRates, rates
from keras_lrsched.schedules import PiecewiseConstant, Tabulated


class SeesawSchedules(NamedTuple):
    """A learning rate and a batch size, both by updates, and the number of updates."""

    learning_rate: Tabulated
    batch_size: PiecewiseConstant
    total_steps: int


@register(
    "seesaw",
    title="Seesaw: growing batches for falling learning rates",
    paper="arXiv:2510.14717",
    checked="read",
    against="the abstract, and our own derivation",
    deviations="no official code; a smooth schedule is cut where it has fallen by each further factor",
    kind="scaling rule",
)
def seesaw(
    schedule: RunRates,
    total_steps: int | None,
    batch_size: int,
    cut: float = 2.0,
    max_batch_size: float | None = None,
    learning_rate_rule: str = "sqrt",
) -> SeesawSchedules:
    """The pair of schedules that sees the same examples in fewer updates: larger batches in place of lower learning rates.

    Where the reference has fallen from its peak by another factor of `cut`, the batch is multiplied by `cut`, and the
    learning rate divided by sqrt(cut) only (Adam, `"sqrt"`) or not at all (SGD, `"linear"`). Each of these phases keeps its
    examples, but for what rounding to whole updates costs, so it takes fewer of them. A cosine to 0 would take 1 / 2 of its
    updates, a quarter of a cosine 2 / pi. Warmup stays.

    It holds while the noise of the gradient is most of it, up to the critical batch: give that as `max_batch_size` (see
    `GradientNoiseScale`); the learning rate then falls by `cut` as in the reference. Gradient clipping and Adam's epsilon
    see gradients of another norm, and weight decay acts on fewer updates: all three are left to the user.

    Args:
        schedule: The reference: a schedule, a number, or the rates of all updates.
        total_steps: Its updates. `None`: as many as there are rates.
        batch_size: Its batch size, in examples.
        cut: The factor of a phase, above 1. Defaults to `2.0`.
        max_batch_size: The limit of the batch, not below `batch_size`. Defaults to `None`, for none.
        learning_rate_rule: `"sqrt"` or `"linear"`. Defaults to `"sqrt"`.

    Returns:
        `SeesawSchedules(learning_rate, batch_size, total_steps)`, for an optimizer and `BatchSizeSchedule`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: Meterez et al. 2025, arXiv:2510.14717.

    Example:

    >>> reference = np.repeat([1.0, 0.5, 0.25, 0.125], [500, 250, 125, 125])
    >>> pair = seesaw(reference, None, batch_size=32)
    >>> pair.total_steps, pair.learning_rate.values([0, 500, 625]).round(4), pair.batch_size.values([0, 500, 625])
    (672, array([1.    , 0.7071, 0.5   ]), array([ 32.,  64., 128.]))
    """
    reference = rates(schedule, total_steps)
    batch_size, cut = validation.positive_int("batch_size", batch_size), validation.at_least_one("cut", cut)
    if cut == 1:
        raise ValueError(f"`cut` must be above 1. Received: cut={cut}")
    limit = np.inf if max_batch_size is None else validation.positive_float("max_batch_size", max_batch_size)
    if limit < batch_size:
        raise ValueError(
            "`max_batch_size` must not be below `batch_size`. "
            f"Received: max_batch_size={max_batch_size}, batch_size={batch_size}"
        )
    power = {"sqrt": 0.5, "linear": 1.0}[validation.one_of("learning_rate_rule", learning_rate_rule, ("sqrt", "linear"))]
    peak_at = int(np.argmax(reference))
    fallen = np.minimum.accumulate(reference[peak_at:]) / reference.max()
    with np.errstate(divide="ignore"):
        phases = np.floor(-np.log(fallen) / np.log(cut) + 1e-9)
    phases[np.isinf(phases)] = phases[np.isfinite(phases)].max()  # the last rate may be 0
    learning_rates, sizes, boundaries = list(reference[:peak_at]), [batch_size], []
    updates = float(peak_at)  # of the pair, before they are rounded
    for phase in np.unique(phases):
        size = batch_size * cut ** min(phase, np.floor(np.log(limit / batch_size) / np.log(cut) + 1e-9))
        updates += np.sum(phases == phase) * batch_size / size
        rate = reference.max() * cut**-phase * (size / batch_size) ** power
        count = round(updates) - len(learning_rates)
        if count and round(size) > sizes[-1]:
            boundaries.append(len(learning_rates))
            sizes.append(round(size))
        learning_rates += [rate] * count
    batches = PiecewiseConstant(boundaries, sizes) if boundaries else PiecewiseConstant([1], [batch_size, batch_size])
    return SeesawSchedules(Tabulated(learning_rates), batches, len(learning_rates))


@register(
    "goodput",
    title="goodput: throughput times statistical efficiency",
    paper="arXiv:2008.12260",
    code=("petuum/adaptdl",),
    checked="vectors",
    against="the official code, which was run",
    kind="scaling rule",
)
def goodput(
    batch_size: float,
    noise_scale: float,
    base_batch_size: float,
    seconds: float,
    seconds_per_example: float,
    accumulation_steps: int = 1,
) -> float:
    """The examples a second that count: throughput, times the efficiency relative to a base batch.

        goodput = B / (J * (seconds + seconds_per_example * B / J)) * (noise_scale + base) / (noise_scale + B)

    A step costs its fixed `seconds` and those of each example; B is the batch of an update, of J = `accumulation_steps`
    parts. The noise scale is that of `GradientNoiseScale`, in examples. Measure step times after compilation.

    Qiao et al. 2020 (Pollux), arXiv:2008.12260.

    Example:

    >>> round(goodput(128, noise_scale=640, base_batch_size=32, seconds=0.02, seconds_per_example=0.001), 3)
    756.757
    """
    batch = validation.positive_float("batch_size", batch_size)
    noise, base = (
        validation.positive_float("noise_scale", noise_scale),
        validation.positive_float("base_batch_size", base_batch_size),
    )
    fixed = validation.non_negative_float("seconds", seconds)
    each = validation.positive_float("seconds_per_example", seconds_per_example)
    time = validation.positive_int("accumulation_steps", accumulation_steps) * fixed + each * batch
    return batch / time * (noise + base) / (noise + batch)


@register(
    "goodput_batch_size",
    title="batch size with the highest goodput",
    paper="arXiv:2008.12260",
    checked="read",
    against="the maximum of the formula, which is derived here",
    kind="scaling rule",
)
def goodput_batch_size(noise_scale: float, seconds: float, seconds_per_example: float) -> float:
    """The batch size with the highest `goodput`: sqrt(noise_scale * seconds / seconds_per_example), whatever the base.

    Derived here from the formula of Pollux, arXiv:2008.12260.

    Example:

    >>> round(goodput_batch_size(noise_scale=640, seconds=0.02, seconds_per_example=0.001), 3)
    113.137
    """
    noise, fixed = validation.positive_float("noise_scale", noise_scale), validation.non_negative_float("seconds", seconds)
    return (noise * fixed / validation.positive_float("seconds_per_example", seconds_per_example)) ** 0.5
