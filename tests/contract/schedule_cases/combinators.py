"""The schedules that are made of others, also of Keras' own and of one another."""

import math

from keras.optimizers.schedules import CosineDecay, ExponentialDecay, InverseTimeDecay

from keras_lrsched.schedules import Chain, Constant, LinearDecay, PerUpdate, ProfileDecay, Scale, Tabulated, Warmup

from . import Case, about, cosine, decayed


def inverse_time():
    """Of Keras' own: 1 / (1 + t / 4)."""
    return InverseTimeDecay(1.0, decay_steps=4, decay_rate=1.0)


LINE = LinearDecay(1.0, 4)


def goyal(t):
    """Spec 9, with 100 updates an epoch: five epochs from 0.1 to 3.2, then a tenth of it at epochs 30, 60 and 80."""
    return 0.1 + 3.1 * t / 500 if t < 500 else 3.2 * 10.0 ** -sum(t >= 100 * epoch for epoch in (30, 60, 80))


def restarts(t):
    """Spec 8, with 100 updates an epoch: eight epochs of warmup, then cosines of 8, 8 * 2, ... epochs."""
    if t < 800:
        return 2.048 * t / 800
    start, length = 800, 800
    while t >= start + length and start < 3200:
        start, length = start + length, start + length
    return 2.048 * cosine(min(1.0, (t - start) / length))


CASES = [
    Case("Constant", lambda: Constant(0.1), {0: 0.1, 1: 0.1, 10**9: 0.1}, "form"),
    Case("Constant zero", lambda: Constant(0), {0: 0.0, 7: 0.0}, "form"),
    Case(
        "Warmup of a line",
        lambda: Warmup(LinearDecay(2.0, 40), 10, warmup_start=0.25),
        about(decayed(lambda x: 1 - x, 40, 10, peak=2.0, initial=0.5), 10, 50),
        "form",
        bad=(
            {"schedule": "linear", "warmup_steps": 5},
            {"schedule": -1.0, "warmup_steps": 5},
            {"schedule": None, "warmup_steps": 5},
            {"schedule": 1.0, "warmup_steps": 5, "profile": "zigzag"},
            {"schedule": 1.0, "warmup_steps": 5, "profile": "exponential"},
        ),
    ),
    Case("Warmup of no length", lambda: Warmup(LINE, 0), {0: 1, 1: 0.75, 4: 0, 5: 0}, "form"),
    Case("Warmup of a number", lambda: Warmup(0.5, 5), {0: 0, 1: 0.1, 4: 0.4, 5: 0.5, 6: 0.5}, "form"),
    Case(
        "Warmup along a cosine",
        lambda: Warmup(0.5, 8, profile="cosine"),
        about(lambda t: 0.5 * (1 - math.cos(math.pi * min(t, 8) / 8)) / 2, 4, 8),
        "form",
    ),
    Case(
        "Warmup along a parabola",  # backwards: slow at first, as the end of the polynomial is
        lambda: Warmup(1.0, 10, profile={"name": "polynomial", "power": 2}),
        {0: 0, 1: 0.01, 5: 0.25, 9: 0.81, 10: 1, 11: 1},
        "form",
    ),
    Case(
        "Warmup geometric",
        lambda: Warmup(1.0, 4, warmup_start=1 / 16, profile="exponential"),
        {0: 1 / 16, 1: 1 / 8, 2: 1 / 4, 3: 1 / 2, 4: 1, 5: 1},
        "form",
    ),
    Case(
        "Warmup of Keras' own",
        lambda: Warmup(inverse_time(), 2),
        {0: 0, 1: 0.5, 2: 1, 3: 0.8, 6: 0.5, 14: 0.25},
        "form",
        rtol=1e-6,
    ),
    Case(
        "Chain",
        lambda: Chain([1, LINE, 0.25], [3, 5]),
        {0: 1, 2: 1, 3: 1, 4: 0.75, 5: 0.25, 6: 0.25},
        "form",
        bad=(
            {"schedules": [1.0, 0.5], "boundaries": [0]},
            {"schedules": [1.0, 0.5], "boundaries": [2.5]},
            {"schedules": [1.0, 0.5], "boundaries": [3, 4]},
            {"schedules": [1.0, 0.5], "boundaries": 3},
            {"schedules": [1.0, 0.5], "boundaries": [True]},
            {"schedules": [1.0, 0.5], "boundaries": [math.inf]},
            {"schedules": [1.0, 0.5], "boundaries": "3"},
            {"schedules": [1.0, 0.5], "boundaries": None},
            {"schedules": [1.0, 0.5, 0.2], "boundaries": [3, 3]},
            {"schedules": [1.0, 0.5, 0.2], "boundaries": [4, 3]},
            {"schedules": [1.0], "boundaries": []},
            {"schedules": 1.0, "boundaries": [3]},
            {"schedules": [1.0, -0.5], "boundaries": [3]},
            {"schedules": [1.0, "linear"], "boundaries": [3]},
        ),
    ),
    Case(
        "Chain end to end",
        lambda: Chain([LinearDecay(1.0, 4), LinearDecay(2.0, 2), Tabulated([0.3, 0.7])]),
        {0: 1, 3: 0.25, 4: 2, 5: 1, 6: 0.3, 7: 0.7, 8: 0.7},
        "form",
    ),
    Case(
        "Chain Goyal",
        lambda: Warmup(Chain([3.2, 0.32, 0.032, 0.0032], [2500, 5500, 7500]), 500, warmup_start=1 / 32),
        about(goyal, 250, 500, 3000, 6000, 8000),
        "spec 9 [form], the warmup included in the epochs",
        printed={0: 0.1, 250: 1.65, 500: 3.2, 2999: 3.2, 3000: 0.32, 6000: 0.032, 8000: 0.0032},
    ),
    Case(
        "Chain with restarts",
        lambda: Warmup(Chain([ProfileDecay(2.048, n, profile="cosine") for n in (800, 1600, 3200)]), 800),
        about(restarts, 400, 800, 1200, 1600, 2400, 3200, 6400),
        "spec 8 [form], multiplicative",
        printed={400: 1.024, 800: 2.048, 1200: 1.024, 1600: 2.048, 2400: 1.024},
    ),
    Case(
        "Chain of Keras' own",
        lambda: Chain([ExponentialDecay(1.0, 3, 0.5, staircase=True), inverse_time()], [5]),
        {0: 1, 2: 1, 3: 0.5, 4: 0.5, 5: 1, 6: 0.8, 9: 0.5},
        "form",
        rtol=1e-6,
    ),
    Case("Scale", lambda: 3 * LINE, {0: 3, 1: 2.25, 3: 0.75, 4: 0, 5: 0}, "form"),
    Case("Scale to nothing", lambda: 0 * LINE, {0: 0, 1: 0, 4: 0}, "form"),
    Case("Scale down", lambda: LINE / 4, {0: 0.25, 1: 0.1875, 4: 0, 5: 0}, "form"),
    Case(
        "Scale of Keras' own",
        lambda: Scale(CosineDecay(1.0, 8), 0.5),
        about(lambda t: 0.5 * cosine(min(t, 8) / 8), 4),
        "form",
        rtol=1e-6,
        bad=({"schedule": "linear", "factor": 2.0}, {"schedule": math.nan, "factor": 2.0}),
    ),
    Case(
        "Tabulated",
        lambda: Tabulated((0.1, 3, 0, 1e-9)),
        {0: 0.1, 1: 3, 2: 0, 3: 1e-9, 4: 1e-9, 10**6: 1e-9},
        "form",
        bad=tuple(
            {"values": values}
            for values in ([], [[0.1]], [-0.1], [math.nan], [math.inf], 0.1, "fast", ["fast"], None, [None], {"a": 1})
        ),
    ),
    Case(
        "PerUpdate",
        lambda: PerUpdate(LINE, 3),
        {0: 1, 2: 1, 3: 0.75, 4: 0.75, 11: 0.25, 12: 0, 13: 0},
        "form",
        bad=({"schedule": "linear", "accumulation_steps": 2}, {"schedule": -1, "accumulation_steps": 2}),
    ),
    Case(
        "PerUpdate of Keras' own",
        lambda: PerUpdate(inverse_time(), 2),
        {0: 1, 1: 1, 2: 0.8, 3: 0.8, 8: 0.5, 9: 0.5, 24: 0.25},
        "form",
        rtol=1e-6,
    ),
    Case(
        "nested",
        lambda: PerUpdate(Scale(Chain([Warmup(LINE, 2), Tabulated([0.5, 0.125])]), 2), 2),
        {0: 0, 2: 1, 3: 1, 4: 2, 6: 1.5, 11: 0.5, 12: 1, 13: 1, 14: 0.25, 15: 0.25, 16: 0.25},
        "form",
    ),
    Case(
        "accumulated warmup of Keras' own",
        lambda: PerUpdate(Warmup(inverse_time(), 2) * 0.5, 2),
        {0: 0, 1: 0, 2: 0.25, 4: 0.5, 5: 0.5, 6: 0.4, 12: 0.25},
        "form",
        rtol=1e-6,
    ),
]
