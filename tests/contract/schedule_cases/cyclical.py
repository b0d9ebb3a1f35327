"""The learning rates that go up and down again and again, and the one that a run's gradients call for."""

import math
from statistics import median

from keras_lrsched.schedules import (
    CyclicalLearningRate,
    ExponentialCyclicalLearningRate,
    MultiplicativeCyclic,
    RefinedSchedule,
    Triangular2CyclicalLearningRate,
    TriangularCyclicalLearningRate,
)

from . import Case, about, cosine

CLR = {"initial_learning_rate": 0.001, "maximal_learning_rate": 0.006, "step_size": 2000}
BAD_CLR = (
    {**CLR, "maximal_learning_rate": 0.0005},
    {**CLR, "scale_mode": "epoch"},
    {**CLR, "scale_mode": None},
)
CLR_STEPS = (0, 1000, 2000, 3000, 4000, 6000, 10_000)


def clr(scale, base=0.001, top=0.006, s=2000, mode="cycle"):
    """The formula as the community's callback has it (spec 8)."""

    def value(t):
        cycle = math.floor(1 + t / (2 * s))
        y = abs(t / s - 2 * cycle + 1)
        return base + (top - base) * max(0, 1 - y) * scale(cycle if mode == "cycle" else t)

    return value


def exponential(count):
    return 0.99994**count


def published(*values):
    return dict(zip(CLR_STEPS, values, strict=True))


BCKENSTLER = "spec 8 [impl bckenstler/CLR]"
CLR_CASES = [
    Case(
        "CyclicalLearningRate triangular",
        lambda: CyclicalLearningRate(**CLR, scale_fn="triangular"),
        about(clr(lambda c: 1), 2000, 4000, 6000),
        BCKENSTLER,
        printed=published(0.001, 0.0035, 0.006, 0.0035, 0.001, 0.006, 0.006),
        bad=tuple(
            {**arguments, "scale_fn": "triangular"} for arguments in (*BAD_CLR, {**CLR, "gamma": 0.5}, {**CLR, "gamma": 1.5})
        )
        + tuple({**CLR, "scale_fn": bad} for bad in ("sawtooth", None, 1.0, "", ["triangular"])),
    ),
    Case(
        "CyclicalLearningRate exp_range",
        lambda: CyclicalLearningRate(**CLR, scale_fn="exp_range", scale_mode="iterations", gamma=0.99994),
        about(clr(exponential, mode="iterations"), 2000, 4000, 6000),
        BCKENSTLER,
        printed=published(0.001, 0.00335441, 0.00543459, 0.00308816, 0.001, 0.00448834, 0.00374401),
    ),
    Case(
        "CyclicalLearningRate exp_range of the cycle",
        lambda: CyclicalLearningRate(0.25, 1.0, 5, "exp_range", gamma=0.5),
        about(clr(lambda c: 0.5**c, 0.25, 1.0, 5), 5, 10, 15, 20),
        "form",
    ),
    Case(
        "TriangularCyclicalLearningRate",
        lambda: TriangularCyclicalLearningRate(0, 1, 1, "iterations"),
        {0: 0, 1: 1, 2: 0, 3: 1, 4: 0, 2**24 + 1: 1, 2**24 + 2: 0, 2**24 + 3: 1},
        "form",
        bad=BAD_CLR,
    ),
    Case(
        "Triangular2CyclicalLearningRate",
        lambda: Triangular2CyclicalLearningRate(**CLR),
        about(clr(lambda c: 2.0 ** (1 - c)), 2000, 4000, 6000, 12_000),
        BCKENSTLER,
        printed=published(0.001, 0.0035, 0.006, 0.0035, 0.001, 0.0035, 0.00225),
        bad=BAD_CLR,
    ),
    Case(
        "Triangular2CyclicalLearningRate of the iteration",
        lambda: Triangular2CyclicalLearningRate(0.25, 1.0, 3, "iterations"),
        about(clr(lambda t: 2.0 ** (1 - t), 0.25, 1.0, 3, "iterations"), 3, 6, 9),
        "form",
    ),
    Case(
        "ExponentialCyclicalLearningRate",
        lambda: ExponentialCyclicalLearningRate(**CLR, gamma=0.99994),
        about(clr(exponential, mode="iterations"), 2000, 4000, 10_000),
        BCKENSTLER,
        printed=published(0.001, 0.00335441, 0.00543459, 0.00308816, 0.001, 0.00448834, 0.00374401),
        bad=BAD_CLR,
    ),
]


def restarts(t, peak=2.048, first=800, mul=2, warmup=800):
    if t < warmup:
        return peak * t / warmup
    start, length = warmup, first
    while t >= start + length:
        start, length = start + length, length * mul
    return peak * cosine((t - start) / length)


EPOCH = 100
MULTIPLICATIVE = [
    Case(
        "MultiplicativeCyclic",
        lambda: MultiplicativeCyclic.from_epochs(2.048, EPOCH),
        about(restarts, 400, 800, 1200, 1600, 3200, 51_200, 800 * 2**17),
        "spec 8 [form], 100 updates an epoch",
        printed={400: 1.024, 800: 2.048, 1200: 1.024, 1600: 2.048, 2400: 1.024, 9600: 1.024, 19_200: 1.024},
    ),
    Case(
        "MultiplicativeCyclic thrice as long, without warmup",
        lambda: MultiplicativeCyclic(0.1, 5, t_mul=3),
        about(lambda t: restarts(t, 0.1, 5, 3, 0), 2, 5, 20, 65),
        "form",
    ),
    Case(
        "MultiplicativeCyclic equally long",
        lambda: MultiplicativeCyclic(0.1, 7, t_mul=1, warmup_steps=3),
        about(lambda t: restarts(t, 0.1, 7, 1, 3), 3, 10, 17, 2**24),
        "form",
    ),
]


def refined(norms, power=2.0, tau=0.0):
    """Spec 13, literally: the filter, the weights, the sum over all later ones."""
    half = int(tau * len(norms) / 2)
    padded = [norms[0]] * half + norms + norms[-2 : -2 - half : -1]
    norms = [median(padded[i : i + 2 * half + 1]) for i in range(len(norms))]
    weights = [norm**-power for norm in norms]
    values = [weight * sum(weights[t + 1 :]) for t, weight in enumerate(weights)]
    return dict(enumerate(value / max(values) for value in [*values, values[-1]]))


TEN = [5, 4, 3, 2, 1, 1, 1, 1, 2, 4]
LONG = [5 - 4 * t / 49 for t in range(50)] + [1] * 100 + [1 + 2 * t / 49 for t in range(50)]
OFFICIAL = "spec 13 [off]"


def case(name, norms, printed, **options):
    power = {"l2": 2.0, "l1": 1.0}[options.get("norm", "l2")]
    return Case(
        f"RefinedSchedule {name}",
        lambda: RefinedSchedule(norms, **options),
        refined(norms, power, options.get("tau", 0.1)),
        OFFICIAL,
        printed=printed if isinstance(printed, dict) else dict(enumerate(printed)),
        bad=tuple(
            {"gradient_norms": bad}
            for bad in ([], [1], [0, 0], [1, -1], [1, math.nan], [1, math.inf], ["a", "b"], None, 3.0, "ab", [1e300, 1])
        )
        + tuple(
            {"gradient_norms": [1, 2], **bad} for bad in ({"norm": "l3"}, {"norm": 2}, {"tau": 1.5}, {"total_steps": 1})
        ),
    )


REFINED = [
    case("constant", [1, 1, 1, 1, 1], (1, 0.75, 0.5, 0.25, 0)),
    case("falling", [4, 2, 1, 1, 1], (0.101562, 0.375, 1, 0.5, 0)),
    case("rising", [1, 1, 2, 4, 8], (1, 0.247059, 0.0147059, 0.000735294, 0)),
    case("ten", TEN, (0.0571908, 0.0881813, 0.15304, 0.325472, 1, 0.698113, 0.396226, 0.0943396, 0.00471698, 0)),
    case(
        "ten l1",
        TEN,
        (0.311111, 0.372222, 0.466667, 0.633333, 1, 0.733333, 0.466667, 0.2, 0.0333333, 0),
        norm="l1",
    ),
    case("median", [1, 9, 2, 3, 4, 5, 6, 7, 8, 20], {}, tau=0.3),
    case(
        "long",
        LONG,
        {0: 0.0435223, 25: 0.122566, 49: 1, 100: 0.563713, 150: 0.13598, 175: 0.00815896, 199: 0},
        tau=0.0,
    ),
    Case(
        "RefinedSchedule stretched, with zeros, to a peak",
        lambda: RefinedSchedule([0, 2, 0, 0, 4, 2], tau=0.0, total_steps=11, peak_learning_rate=0.3),
        {t: 0.3 * value for t, value in refined([2, 2, 2, 2, 2, 2, 2, 3, 4, 3, 2]).items()},
        "form",
    ),
]

CASES = [*CLR_CASES, *MULTIPLICATIVE, *REFINED]
