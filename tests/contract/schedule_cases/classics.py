"""The schedules behind a warmup that is a part of them: Noam, Goyal's steps, the power law, slow start and fast decay."""

import math

from keras_lrsched import schedules
from keras_lrsched.schedules import NoamDecay, PowerDecay, SlowStartFastDecay, StepDecayWithWarmup

from . import Case, about


def budget(name, values):
    return Case(f"budget {name}", lambda: schedules.get(name, 1.0, 40, 10), values, "form")


NOAM = [
    Case(
        "NoamDecay",
        lambda: NoamDecay(512),
        about(lambda t: 512**-0.5 * min((t + 1) ** -0.5, (t + 1) * 4000**-1.5), 399, 3999, 15_999, 99_999),
        "spec 9 [form], s = t + 1",
        printed={0: 1.74693e-7, 399: 6.98771e-5, 3999: 6.98771e-4, 15_999: 3.49386e-4, 99_999: 1.39754e-4},
    ),
    Case(
        "NoamDecay without a warmup",
        lambda: NoamDecay(64, 1, scale=8.0),
        {0: 1, 1: math.sqrt(0.5), 3: 0.5, 99: 0.1, 999_999: 0.001},
        "form",
    ),
    budget("noam", about(lambda t: min((t + 1) / 11, math.sqrt(11 / (t + 1))), 10, 40)),
]


def goyal(t):
    """Spec 9, with 100 updates an epoch: five epochs from 0.1 to 3.2, then a tenth of it at epochs 30, 60 and 80."""
    return 0.1 + 3.1 * t / 500 if t < 500 else 3.2 * 10.0 ** -sum(t >= 100 * epoch for epoch in (30, 60, 80))


GOYAL = {"base_learning_rate": 0.1, "warmup_steps": 500, "boundaries": [3000, 6000, 8000], "batch_scale": 32}
STEPS = [
    Case(
        "StepDecayWithWarmup",
        lambda: StepDecayWithWarmup(**GOYAL),
        about(goyal, 250, 500, 3000, 6000, 8000, 9000),
        "spec 9 [form]",
        printed={0: 0.1, 250: 1.65, 500: 3.2, 2999: 3.2, 3000: 0.32, 6000: 0.032, 8000: 0.0032},
        bad=(
            {**GOYAL, "boundaries": [6000, 3000]},
            {**GOYAL, "boundaries": [3000, 3000]},
            {**GOYAL, "boundaries": [500, 3000]},
            {**GOYAL, "boundaries": [400]},
            {**GOYAL, "boundaries": []},
            {**GOYAL, "boundaries": [2500.5]},
            {**GOYAL, "boundaries": 3000},
            {**GOYAL, "boundaries": None},
            {**GOYAL, "boundaries": "3000"},
            {**GOYAL, "batch_scale": 0.5},
            {**GOYAL, "factor": 1.0},
            {**GOYAL, "factor": 1.5},
        ),
    ),
    Case(
        "StepDecayWithWarmup without a warmup",
        lambda: StepDecayWithWarmup(2, 0, [3], factor=0.25),
        {0: 2, 1: 2, 2: 2, 3: 0.5, 4: 0.5, 10**6: 0.5},
        "form",
    ),
    Case(
        "StepDecayWithWarmup of the usual batch",  # its warmup has nothing to rise
        lambda: StepDecayWithWarmup(0.1, 5, [10, 20]),
        {0: 0.1, 4: 0.1, 5: 0.1, 9: 0.1, 10: 0.01, 19: 0.01, 20: 0.001, 21: 0.001},
        "form",
    ),
    budget(
        "step",
        about(lambda t: (1 + 31 * min(t, 10) / 10) / 32 * 10.0 ** -sum(t >= b for b in (13, 27, 36)), 10, 13, 27, 36, 40),
    ),
]


# The power law. B * a is all that counts of the two, so a = 4096 and B = 1 is the paper's a = 4 and B = 1024.


def power(n, total, warmup, decay, amplitude=4096, cap=0.02, cooldown=lambda x: 1 - x):
    """The value at `n` tokens."""

    def eta(tokens):
        return min(cap, amplitude * tokens**-0.51)

    if n < warmup:
        return n / warmup * eta(warmup)
    if n < total - decay:
        return eta(n)
    return eta(total - decay) * cooldown((min(n, total) - total + decay) / decay)


RUN = {"total_tokens": 1.1e12, "warmup_tokens": 1e9, "decay_tokens": 1e11, "cooldown": "linear"}
C = 1024 * 4096
POWER = [
    Case(
        "PowerDecay",
        lambda: PowerDecay(**RUN, batch_size=1, sequence_length=500_000_000, a=4096),
        about(lambda t: power(5e8 * t, 1.1e12, 1e9, 1e11), 2, 51, 52, 1000, 2000, 2100, 2200),
        "spec 6 [form], the full schedule",
        printed={0: 0, 1: 0.01, 2: 0.02, 1000: 0.00442471, 2000: 0.00310713, 2100: 0.00155357, 2200: 0},
        bad=(
            {**RUN, "batch_size": 1024, "total_tokens": 240_000},  # updates
            {**RUN, "batch_size": 1024, "warmup_tokens": 250},
            {**RUN, "batch_size": 1024, "decay_tokens": 24_000},
            {**RUN, "batch_size": 1024 * 4096},  # tokens
            {**RUN, "batch_size": 1024, "decay_tokens": 1.1e12},
            {**RUN, "batch_size": 1024, "warmup_tokens": 1e12 + 1e9},
            {**RUN, "batch_size": 1024, "b": 0.51},
            {**RUN, "batch_size": 1024, "b": -2.0},
            {**RUN, "batch_size": 1024, "cooldown": "exponential"},
            {**RUN, "batch_size": 1024, "cooldown": "zigzag"},
        ),
    ),
    Case(
        "PowerDecay of 1024 sequences",  # 1.6e7 tokens an update
        lambda: PowerDecay(**{**RUN, "total_tokens": 1.2e12}, batch_size=1024, sequence_length=15_625),
        about(lambda t: power(1.6e7 * t, 1.2e12, 1e9, 1e11), 62, 63, 625, 1622, 1623, 6250, 62_500, 68_750, 75_000),
        "spec 6 [form]: eta at 1e9, 1e10, 1e11, 1e12 tokens",
        printed={63: 0.02, 625: 0.02, 6250: 0.0100545, 62_500: 0.00310713},
    ),
    Case(
        "PowerDecay of 128 sequences",  # 1e7 tokens an update
        lambda: PowerDecay(**{**RUN, "total_tokens": 1.2e12, "warmup_tokens": 1e8}, batch_size=128, sequence_length=78_125),
        about(lambda t: power(1e7 * t, 1.2e12, 1e8, 1e11, 512), 10, 44, 45, 100, 1000, 10_000, 100_000, 110_000, 120_000),
        "spec 6 [form]: eta at 1e8, 1e9, 1e10, 1e11, 1e12 tokens",
        printed={10: 0.02, 44: 0.02, 100: 0.0131604, 1000: 0.00406696, 10_000: 0.00125681, 100_000: 3.88392e-4},
    ),
    Case(
        "PowerDecay of the larger amplitude",
        lambda: PowerDecay(2e13, 1e10, 5e12, batch_size=1024, sequence_length=9_765_625, a=4.6, cooldown="linear"),
        about(lambda t: power(1e10 * t, 2e13, 1e10, 5e12, 4.6 * 1024), 1, 3, 4, 100, 1000, 1500, 2000),
        "spec 6 [form, a=4.6]: at 1e12 and 1e13 tokens; the paper prints 0.0011 for the latter",
        printed={100: 0.0035732, 1000: 0.00110423},
    ),
    Case(
        "PowerDecay dolomite",
        lambda: PowerDecay(300_000 * C, 250 * C, 1000 * C, batch_size=1024),
        about(
            lambda t: power(C * t, 300_000 * C, 250 * C, 1000 * C, cooldown=lambda x: 2 * 0.5**x - 1),
            *(125, 250, 1000, 10_000, 240_000, 299_000, 299_500, 300_000),
        ),
        "spec 6 [impl dolomite], which has no cooldown",
        printed={125: 0.01, 250: 0.02, 1000: 0.02, 10_000: 0.0156604, 240_000: 0.00309668},
    ),
    Case(
        "PowerDecay without a warmup, to a floor",  # and edges between steps
        lambda: PowerDecay(1e9, 0, 1e8, batch_size=16, max_learning_rate=1, alpha=0.1, cooldown="exponential"),
        about(
            lambda t: power(16 * 4096 * t, 1e9, 0, 1e8, 64, 1, lambda x: 0.1**x) if t else 1.0,
            *(1, 13_733, 14_000, 15_259),
        ),
        "form",
    ),
    Case(
        "PowerDecay under its cap",
        lambda: PowerDecay(100, 10, 20, batch_size=1, sequence_length=1, max_learning_rate=1, a=100, cooldown="linear"),
        about(lambda t: min(t / 10, 1.0, (100 - min(t, 100)) / 20), 10, 80, 100),
        "form",
    ),
    budget("power", about(lambda t: power(t, 40, 10, 4, 10**0.51, 1.0, lambda x: 2 * 0.5**x - 1), 10, 36, 40)),
]


def slow_fast(t):
    return 0.1 * 0.01 ** (1 - t / 10) if t < 10 else 0.1 * 0.01 ** ((min(t, 20) - 10) / 10)


FINE_TUNING = {"peak_learning_rate": 0.1, "warmup_steps": 10, "decay_steps": 10}
SLOW_FAST = [
    Case(
        "SlowStartFastDecay",
        lambda: SlowStartFastDecay(**FINE_TUNING),
        about(slow_fast, 5, 10, 15, 20),
        "spec 10 [form], two steps for each of its",
        printed={0: 0.001, 5: 0.01, 10: 0.1, 15: 0.01, 20: 0.001},
        bad=(
            {**FINE_TUNING, "alpha": 0.0},
            {**FINE_TUNING, "warmup_start": 0.0},
            {**FINE_TUNING, "warmup_steps": 0},
            {**FINE_TUNING, "warmup": "zigzag"},
            {**FINE_TUNING, "cooldown": "zigzag"},
            {**FINE_TUNING, "alpha": 0.01, "cooldown": {"name": "exponential", "floor": 0.1}},
        ),
    ),
    Case(
        "SlowStartFastDecay linear",
        lambda: SlowStartFastDecay(2, 4, 8, warmup_start=0.125, alpha=0.0, warmup="linear", cooldown="cosine"),
        about(lambda t: 0.25 + 1.75 * t / 4 if t < 4 else 1 + math.cos(math.pi * (min(t, 12) - 4) / 8), 4, 8, 12),
        "form",
    ),
    budget("slow_start", about(lambda t: 0.01 ** (1 - t / 10) if t < 10 else 0.01 ** ((min(t, 40) - 10) / 30), 10, 40)),
]

CASES = [*NOAM, *STEPS, *POWER, *SLOW_FAST]
