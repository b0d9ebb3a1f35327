"""The schedules of pre-training that goes on: several cooldowns, several data sets, pruning, a target that moves."""

import math

from keras_lrsched import schedules
from keras_lrsched.schedules import (
    ContinuedPretraining,
    DistributionShift,
    InfiniteLearningRate,
    LearningRateRewinding,
    LinearDecay,
    MiniCPMDecay,
    ModerateDecay,
    RewarmRedecay,
    WarmupStableDecaySimplified,
)

from . import Case, about, cosine, decayed


def budget(name, values):
    return Case(f"budget {name}", lambda: schedules.get(name, 1.0, 40, 10), values, "form")


# WSD-S


def wsd_s(cooldowns, end, floor, cooldown, warmup_steps=0, peak=1.0):
    """`cooldowns`: the start and the end of each; the end is already at the peak again, but for the last."""

    def value(t):
        if t < warmup_steps:
            return peak * t / warmup_steps
        if t >= end:
            return floor
        return next((cooldown((t - first) / (last - first)) for first, last in cooldowns if first <= t < last), peak)

    return value


def inverse(peak, floor):
    return lambda x: 1 / (x / floor + (1 - x) / peak)


PERIODS = {"peak_learning_rate": 1.0, "period_ends": [1000, 2000, 4000]}
WSD_S = [
    Case(
        "WarmupStableDecaySimplified",
        lambda: WarmupStableDecaySimplified(**PERIODS, warmup_steps=100),
        about(
            wsd_s([(900, 1000), (1900, 2000), (3800, 4000)], 4000, 0.1, inverse(1, 0.1), 100),
            *(50, 100, 900, 950, 1000, 1900, 2000, 3800, 4000),
        ),
        "spec 4 [form]: x = .1, .25, .5, .75, and 1 where no period follows",
        printed={900: 1, 910: 0.526316, 925: 0.307692, 950: 0.181818, 975: 0.129032}
        | {3800: 1, 3820: 0.526316, 3850: 0.307692, 3900: 0.181818, 3950: 0.129032, 4000: 0.1},
        bad=(
            {**PERIODS, "alpha": 0.0},
            {**PERIODS, "alpha": 1.0},
            {**PERIODS, "alpha": 0.0, "cooldown": "exponential"},
            {**PERIODS, "cooldown": "zigzag"},
            {**PERIODS, "alpha": 0.1, "cooldown": {"name": "inverse_proportional", "floor": 0.2}},
            {**PERIODS, "warmup_steps": 901},
            {**PERIODS, "warmup_steps": 1000},
            {**PERIODS, "period_ends": []},
            {**PERIODS, "period_ends": [0, 1000]},
            {**PERIODS, "period_ends": [2000, 1000]},
            {**PERIODS, "period_ends": [1000, 1000]},
            {**PERIODS, "period_ends": [1000, 1004]},  # 0.4 of a step of cooldown
            {**PERIODS, "period_ends": [4]},
            {**PERIODS, "period_ends": [1000.5]},
            {**PERIODS, "period_ends": 1000},
            {**PERIODS, "period_ends": "1000"},
            {**PERIODS, "period_ends": None},
        ),
    ),
    Case(
        "WarmupStableDecaySimplified of the first period without a stable phase",
        lambda: WarmupStableDecaySimplified(**PERIODS, warmup_steps=900),
        about(wsd_s([(900, 1000), (1900, 2000), (3800, 4000)], 4000, 0.1, inverse(1, 0.1), 900), 900, 1000),
        "form",
    ),
    Case(
        "WarmupStableDecaySimplified to a hundredth",
        lambda: WarmupStableDecaySimplified(1.0, [1000], decay_fraction=1, alpha=0.01),
        about(lambda t: inverse(1, 0.01)(min(t, 1000) / 1000), 500, 1000),
        "spec 4 [form]",
        printed={100: 0.0917431, 500: 0.019802},
    ),
    Case(
        "WarmupStableDecaySimplified Levanter",
        lambda: WarmupStableDecaySimplified(3e-4, [10_000]),
        about(wsd_s([(9000, 10_000)], 10_000, 3e-5, inverse(3e-4, 3e-5), peak=3e-4), 9000, 9500, 10_000),
        "spec 4 [impl Levanter], but for its count 0, which repeats the value of count 1",
        printed={9001: 2.97324e-4, 9100: 1.57895e-4, 9250: 9.23077e-5, 9500: 5.45455e-5, 10_000: 3e-5},
    ),
    Case(
        "WarmupStableDecaySimplified OLMo",
        lambda: WarmupStableDecaySimplified(**PERIODS, warmup_steps=100, alpha=0, cooldown="linear"),
        about(
            wsd_s([(900, 1000), (1900, 2000), (3800, 4000)], 4000, 0.0, lambda x: 1 - x, 100),
            *(50, 100, 900, 950, 1000, 1900, 2000, 3800, 4000),
        ),
        "spec 4 [impl OLMo WSDS], but for the steps 1000 and 2000, which are 0 there and the peak here",
        printed={50: 0.5, 100: 1, 900: 1, 950: 0.5, 999: 0.01, 1001: 1, 1950: 0.5, 2001: 1, 3800: 1, 3900: 0.5, 4000: 0},
    ),
    budget("wsd_s", about(wsd_s([(18, 20), (38, 40)], 40, 0.1, inverse(1, 0.1), 10), 10, 18, 20, 38, 40)),
]


# Infinite learning rate, re-warming, and the one that does neither


def infinite(cooldown):
    def value(t):
        if t < 100:
            return 3e-4 * t / 100
        if t < 400:
            return cooldown((t - 100) / 300)
        return 1.65e-4 * (3e-5 / 1.65e-4) ** (max(0, min(t, 1000) - 800) / 200)

    return value


INFINITE = {
    **{"peak_learning_rate": 3e-4, "constant_learning_rate": 1.65e-4, "min_learning_rate": 3e-5},
    **{"warmup_steps": 100, "cooldown_steps": 300, "constant_steps": 400, "annealing_steps": 200},
}
CONTINUED = [
    Case(
        "InfiniteLearningRate",
        lambda: InfiniteLearningRate(**INFINITE),
        about(infinite(lambda y: 1.65e-4 + 1.35e-4 * cosine(y)), 50, 100, 250, 400, 800, 900, 1000),
        "spec 5 [form]",
        printed={50: 1.5e-4, 100: 3e-4, 175: 2.8023e-4, 250: 2.325e-4, 325: 1.8477e-4, 400: 1.65e-4, 600: 1.65e-4}
        | {800: 1.65e-4, 850: 1.07744e-4, 900: 7.03562e-5, 1000: 3e-5},
        bad=(
            {**INFINITE, "constant_learning_rate": 3e-4},
            {**INFINITE, "constant_learning_rate": 4e-4},
            {**INFINITE, "min_learning_rate": 1.65e-4},
            {**INFINITE, "min_learning_rate": 2e-4},
            {**INFINITE, "peak_learning_rate": 1e-4},
            {**INFINITE, "cooldown": "zigzag"},
        ),
    ),
    Case(
        "InfiniteLearningRate inverse_sqrt",
        lambda: InfiniteLearningRate(**INFINITE, cooldown="inverse_sqrt"),
        about(infinite(lambda y: 3e-4 / math.sqrt(1 + y * ((3e-4 / 1.65e-4) ** 2 - 1))), 50, 100, 250, 400, 800, 900, 1000),
        "spec 5 [form]",
        printed={100: 3e-4, 175: 2.38936e-4, 250: 2.04461e-4, 325: 1.8159e-4, 400: 1.65e-4},
    ),
    Case(
        "InfiniteLearningRate before its end is known",
        lambda: InfiniteLearningRate(2.0, 1.0, 0.5, 0, 4, 0, 0, cooldown="linear"),
        {0: 2, 1: 1.75, 3: 1.25, 4: 1, 5: 1, 10**6: 1},
        "form",
    ),
    budget(
        "infinite",  # of 30 steps: 18 of cooldown, 8 constant, 4 of annealing
        about(
            lambda t: (
                t / 10
                if t < 10
                else 0.55 + 0.45 * cosine(min(1, (t - 10) / 18))
                if t < 36
                else 0.55 * (0.1 / 0.55) ** (min(t - 36, 4) / 4)
            ),
            *(10, 28, 36, 40),
        ),
    ),
    Case(
        "RewarmRedecay",
        lambda: RewarmRedecay(3e-4, 10, 990, initial_learning_rate=3e-5),
        about(decayed(cosine, 990, 10, peak=3e-4, alpha=0.1, initial=3e-5), 5, 10, 505, 1000),
        "spec 5 [form]",
        printed={5: 1.65e-4, 10: 3e-4, 505: 1.65e-4, 1000: 3e-5},
        bad=(
            {"peak_learning_rate": 3e-4, "warmup_steps": 10, "decay_steps": 990, "initial_learning_rate": 3e-4},
            {"peak_learning_rate": 3e-4, "warmup_steps": 10, "decay_steps": 990, "initial_learning_rate": 1e-3},
        ),
    ),
    Case(
        "RewarmRedecay from zero to zero",
        lambda: RewarmRedecay(1.0, 4, 8, alpha=0.0),
        about(decayed(cosine, 8, 4), 4, 8, 12),
        "form",
    ),
    Case(
        "RewarmRedecay at once", lambda: RewarmRedecay(2, 0, 8), about(decayed(cosine, 8, peak=2, alpha=0.1), 4, 8), "form"
    ),
    budget("rewarm_redecay", about(decayed(cosine, 30, 10, alpha=0.1), 10, 25, 40)),
    Case(
        "ContinuedPretraining",
        lambda: ContinuedPretraining(4.5e-5, 1000),
        about(decayed(cosine, 1000, peak=4.5e-5, alpha=0.01), 250, 500, 711, 750, 1000),
        "spec 5 [form]",
        printed={0: 4.5e-5, 250: 3.84758e-5, 500: 2.2725e-5, 750: 6.9742e-6, 1000: 4.5e-7},
    ),
    Case(
        "ContinuedPretraining to the fifth",
        lambda: ContinuedPretraining(4.5e-5, 1_000_000),
        {0: 4.5e-5, 711_313: 4.5e-5 * (0.01 + 0.99 * cosine(0.711313))},
        "spec 5 [form]: a fifth of the start at x = .711313",
        printed={711_313: 9e-6},
    ),
    budget("continued_pretraining", about(decayed(cosine, 30, 10, alpha=0.01), 10, 25, 40)),
]


# WSD with another decay


def wsd(decay, warmup_steps, decay_start, end):
    return lambda t: t / warmup_steps if t < warmup_steps else decay(max(0, min(t, end) - decay_start))


HALVES = {"peak_learning_rate": 1.0, "warmup_steps": 10, "stable_steps": 90, "decay_steps": 20_000}
WSD = [
    Case(
        "MiniCPMDecay",
        lambda: MiniCPMDecay(**HALVES),
        about(wsd(lambda since: 0.5 ** (since / 5000), 10, 100, 20_100), 5, 10, 100, 5_100, 20_100),
        "spec 3 [form]",
        printed={100: 1, 2600: 0.707107, 5100: 0.5, 10_100: 0.25, 20_100: 0.0625},
        bad=({**HALVES, "half_life": 499}, {**HALVES, "half_life": 1e300}),
    ),
    Case(
        "MiniCPMDecay from a hundredth, to less than a half",
        lambda: MiniCPMDecay(0.01, 4, 0, 3, half_life=2.5, warmup_start=0.01),
        {
            0: 1e-4,
            1: 2.575e-3,
            3: 7.525e-3,
            4: 0.01,
            5: 0.01 * 0.5**0.4,
            6: 0.01 * 0.5**0.8,
            7: 0.01 * 0.5**1.2,
            8: 0.01 * 0.5**1.2,
        },
        "form",
    ),
    Case(
        "MiniCPMDecay of forty half-lives",
        lambda: MiniCPMDecay(1, 0, 0, 400, half_life=10),
        about(lambda t: 0.5 ** (min(t, 400) / 10), 200, 400),
        "form",
    ),
    budget("minicpm", about(wsd(lambda since: 0.5**since, 10, 36, 40), 10, 36, 40)),
    Case(
        "ModerateDecay",
        lambda: ModerateDecay(3e-3, 0, 0, 100),
        about(lambda t: 3e-3 * (1 - math.sqrt(min(t, 100) / 100)) + 1e-3 * math.sqrt(min(t, 100) / 100), 25, 50, 100),
        "spec 17 [form]",
        printed={0: 0.003, 25: 0.002, 50: 0.00158579, 100: 0.001},
    ),
    Case(
        "ModerateDecay as usual",
        lambda: ModerateDecay(1.0, 100, 200, 100, alpha=1 / 300, warmup_start=0.5),
        about(
            lambda t: 0.5 + t / 200 if t < 100 else 1 - (1 - 1 / 300) * math.sqrt(max(0, min(t, 400) - 300) / 100),
            *(100, 300, 400),
        ),
        "spec 17, the pair for data in random order",
    ),
    budget("moderate", about(wsd(lambda since: 1 - 2 / 3 * math.sqrt(since / 8), 10, 32, 40), 10, 32, 40)),
]


# The target moves; the network is pruned


def greedy(count, drifts=None, scale=1.0):
    """Spec 15, d = 10, B = 8, s2 = .25, in the order of the textbook."""
    values, v = {}, 1.0
    for t in range(count):
        lr = v / (v * (1 + 11 / 8) + 0.25 * 10 / 8)
        values[t] = scale * lr
        v = v * (1 - lr) + (drifts[t] ** 2 if drifts else 0.0)
    values[count] = values[count - 1]
    return values


def chosen(values, *steps):
    return {t: values[t] for t in steps}


JUMP = [0.0] * 49 + [1.0] + [0.0] * 50
RUN = {"schedule": 1.0, "training_steps": 10, "rewind_steps": 4}
OTHERS = [
    Case(
        "DistributionShift without drift",
        lambda: DistributionShift(200),
        chosen(greedy(200), 0, 1, 2, 50, 198, 199, 200),
        "spec 15 [form]",
        printed={0: 0.372093, 1: 0.348106, 10: 0.125285, 50: 0.022176, 199: 0.00520747},
        bad=(
            {"total_steps": 3, "drift": [0.0, 1.0]},
            {"total_steps": 1, "drift": []},
            {"total_steps": 2, "drift": [0.0, -1.0]},
            {"total_steps": 2, "drift": [0.0, math.nan]},
            {"total_steps": 2, "drift": [0.0, "far"]},
        ),
    ),
    Case(
        "DistributionShift",
        lambda: DistributionShift(1000, dimension=10, batch_size=8, noise_variance=0.25, initial_error=1, drift=0.1),
        chosen(greedy(1000, [0.1] * 1000), 0, 1, 10, 100, 998, 999, 1000),
        "spec 15 [form]: a drift of 0.1, whose square is 0.01, and the plateau",
        printed={10: 0.170102, 999: 0.144877, 1000: 0.144877},
    ),
    Case(
        "DistributionShift in a jump",
        lambda: DistributionShift(100, drift=JUMP, scale=2),
        chosen(greedy(100, JUMP, scale=2), 0, 1, 48, 49, 50, 51, 98, 99, 100),
        "form",
    ),
    budget(
        "distribution_shift",
        {0: 0, 1: 0.1, 9: 0.9} | {t + 10: v for t, v in greedy(30, scale=1 / greedy(1)[0]).items()},
    ),
    Case(
        "LearningRateRewinding",
        lambda: LearningRateRewinding(LinearDecay(1.0, 10), 10, 4, cycles=2),
        {0: 1, 1: 0.9, 9: 0.1, 10: 0.4, 11: 0.3, 13: 0.1, 14: 0.4, 15: 0.3, 17: 0.1, 18: 0, 19: 0},
        "form",
        bad=({**RUN, "rewind_steps": 11}, {**RUN, "schedule": "linear"}, {**RUN, "schedule": -1.0}),
    ),
    Case(
        "LearningRateRewinding of all, of a schedule without end",
        lambda: LearningRateRewinding(LinearDecay(0.0, 100, warmup_target=1.0, warmup_steps=5), 5, 5),
        {0: 0, 1: 0.2, 4: 0.8, 5: 0, 6: 0.2, 9: 0.8, 10: 1, 11: 1},
        "form",
    ),
]

CASES = [*WSD_S, *CONTINUED, *WSD, *OTHERS]
