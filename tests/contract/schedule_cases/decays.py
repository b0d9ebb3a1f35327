"""The schedules that come down once."""

import math

from keras_lrsched.schedules import (
    InverseSqrtDecay,
    LinearDecay,
    PowerDecayToZero,
    ProfileDecay,
    REXDecay,
    UnifiedBudgetAwareDecay,
    WarmupStableDecay,
)

from . import Case, about, cosine, decayed


def rex(a, b):
    return lambda x: (1 - x) / (a + b * (1 - x))


def uba(phi):
    def shape(x):
        c = 1 + math.cos(math.pi * x)
        return 2 * c / (2 * phi + (2 - phi) * c)

    return shape


# The formulas as the papers print them (spec 1, 3, 4, 7). A shape with a floor of its own stands here with alpha = 0.
SHAPES = {
    "cosine": cosine,
    "exponential": lambda x: 0.01**x,
    "exponential_to_zero": lambda x: 2 * 0.5**x - 1,
    "inverse_power": lambda x: (1 + x * (0.1 ** (-1 / 0.51) - 1)) ** -0.51,
    "inverse_proportional": lambda x: 1 / (x / 0.1 + (1 - x) / 1),
    "inverse_sqrt": lambda x: 1 / math.sqrt(1 + x * (0.55**-2 - 1)),
    "linear": lambda x: 1 - x,
    "lowered_linear": lambda x: 0.7 * (1 - x),
    "mirror_cosine": lambda x: 2 * (1 - x) - cosine(x),
    "one_minus_sqrt": lambda x: 1 - math.sqrt(x),
    "polynomial": lambda x: (1 - x) ** 2.7,
    "rex": rex(0.1, 0.9),
    "sqrt_of_remaining": lambda x: math.sqrt(1 - x),
    "square": lambda x: 1 - x * x,
    "uba": uba(5.0),
}
CONFIGS = {"inverse_power": {"power": 0.51}, "polynomial": {"power": 2.7}, "rex": {"a": 0.1, "b": 0.9}, "uba": {"phi": 5.0}}
FLOORS = {"exponential": 0.01, "inverse_power": 0.1, "inverse_proportional": 0.1, "inverse_sqrt": 0.55}

WARM = {"initial_learning_rate": 0.1, "warmup_target": 2.0, "warmup_steps": 100, "decay_steps": 900}
RUN = {"initial_learning_rate": 1.0, "decay_steps": 1000}

PROFILES = [
    Case(
        f"ProfileDecay {name}",
        lambda name=name: ProfileDecay(**WARM, alpha=FLOORS.get(name, 0.0), profile={"name": name, **CONFIGS.get(name, {})}),
        about(decayed(shape, 900, 100, peak=2.0, initial=0.1), 1, 50, 100, 550, 1000),
        "form",
        bad=(
            {**WARM, "warmup_target": None},
            {**WARM, "profile": "zigzag"},
            {**WARM, "profile": {"name": "rex", "c": 1}},
            {**WARM, "profile": "exponential"},
            {**WARM, "profile": {"name": "exponential", "floor": 0.5}, "alpha": 0.1},
            {**WARM, "sample_every": 5, "sample_points": [0.5]},
            {**WARM, "sample_every": 0},
            {**WARM, "sample_every": 2.5},
            {**WARM, "sample_points": [0.5, 0.25]},
            {**WARM, "sample_points": [0.5, 0.5]},
            {**WARM, "sample_points": [0.5, 1.0]},
            {**WARM, "sample_points": [-0.5]},
            {**WARM, "sample_points": [math.nan]},
            {**WARM, "sample_points": []},
            {**WARM, "sample_points": 0.5},
            {**WARM, "sample_points": "half"},
        ),
    )
    for name, shape in SHAPES.items()
]

SAMPLED = [
    Case(
        "ProfileDecay linear 50-75",
        lambda: ProfileDecay(**RUN, sample_points=(0.5, 0.75)),
        {0: 1.0, 499: 1.0, 500: 0.5, 501: 0.5, 749: 0.5, 750: 0.25, 999: 0.25, 1000: 0.25, 1001: 0.25},
        "spec 1 [form]",
        printed={0: 1, 100: 1, 250: 1, 500: 0.5, 750: 0.25, 900: 0.25, 990: 0.25},
    ),
    Case(
        "REXDecay 50-75",
        lambda: REXDecay(**RUN, sample_points=[0, 0.5, 0.75]),
        {0: 1.0, 499: 1.0, 500: 2 / 3, 501: 2 / 3, 749: 2 / 3, 750: 0.4, 999: 0.4, 1000: 0.4, 1001: 0.4},
        "spec 1 [form]",
        printed={0: 1, 100: 1, 250: 1, 500: 0.666667, 750: 0.4, 900: 0.4, 990: 0.4},
    ),
    Case(
        # In binary fractions, the lengths between these points do not add up to 1, 3 and 10.
        "ProfileDecay sampled at tenths",
        lambda: ProfileDecay(1.0, 10, sample_points=[0.1, 0.3], warmup_target=2.0, warmup_steps=5),
        {0: 1, 4: 1.8, 5: 2, 6: 1.8, 7: 1.8, 8: 1.4, 9: 1.4, 14: 1.4, 15: 1.4, 16: 1.4},
        "form",
    ),
    Case(
        "ProfileDecay every 7th step, to a floor",
        lambda: ProfileDecay(0.0, 21, alpha=0.1, warmup_target=1.0, warmup_steps=10, sample_every=7),
        {0: 0, 9: 0.9, 10: 1, 11: 1, 16: 1, 17: 0.7, 18: 0.7, 23: 0.7, 24: 0.4, 30: 0.4, 31: 0.1, 32: 0.1},
        "form",
    ),
    Case(
        "ProfileDecay exponential 0.01 to a higher floor",
        lambda: ProfileDecay(1.0, 100, alpha=0.1, profile={"name": "exponential", "floor": 0.01}),
        about(decayed(lambda x: (0.01**x - 0.01) / 0.99, 100, alpha=0.1), 50, 100),
        "form",
    ),
]

LINES = [
    Case(
        "LinearDecay D2Z",
        lambda: LinearDecay(0.0, 900, warmup_target=1.0, warmup_steps=100),
        about(decayed(SHAPES["linear"], 900, 100), 50, 100, 550, 1000),
        "spec 2 [form]",
        printed={0: 0, 50: 0.5, 99: 0.99, 100: 1, 101: 0.998889, 550: 0.5, 999: 0.00111111, 1000: 0},
        bad=({"initial_learning_rate": 1.0, "decay_steps": 900, "warmup_steps": 100},),
    ),
    Case(
        "LinearDecay 10x",
        lambda: LinearDecay(0.0, 900, alpha=0.1, warmup_target=1.0, warmup_steps=100),
        about(decayed(SHAPES["linear"], 900, 100, alpha=0.1), 100, 550, 1000),
        "spec 2 [form]",
        printed={550: 0.55, 999: 0.101},
    ),
    Case("LinearDecay of ints", lambda: LinearDecay(1, 10), {0: 1, 1: 0.9, 5: 0.5, 9: 0.1, 10: 0, 11: 0}, "form"),
    Case("LinearDecay one step", lambda: LinearDecay(0.3, 1), {0: 0.3, 1: 0, 2: 0}, "form"),
    Case("LinearDecay all floor", lambda: LinearDecay(0.3, 4, alpha=1.0), {0: 0.3, 3: 0.3, 4: 0.3, 5: 0.3}, "form"),
    Case(
        "LinearDecay warmup from above",
        lambda: LinearDecay(3.0, 4, warmup_target=1.0, warmup_steps=4),
        {0: 3, 1: 2.5, 3: 1.5, 4: 1, 5: 0.75, 7: 0.25, 8: 0, 9: 0},
        "form",
    ),
]

REX_STEPS = (0, 100, 250, 500, 750, 900, 990)
REX = [
    Case(
        f"REXDecay a={a}",
        lambda a=a, b=b: REXDecay(**RUN, a=a, b=b),
        about(decayed(rex(a, b), 1000), *REX_STEPS, 1000),
        "spec 1 [form]",
        printed=dict(zip(REX_STEPS, printed, strict=True)),
        bad=({**RUN, "a": 0.5, "b": 0.4}, {**RUN, "a": 1, "b": 1}, {**RUN, "sample_every": 2, "sample_points": [0.5]}),
    )
    for a, b, printed in (
        (0.5, 0.5, (1, 0.947368, 0.857143, 0.666667, 0.4, 0.181818, 0.019802)),
        (0.1, 0.9, (1, 0.989011, 0.967742, 0.909091, 0.769231, 0.526316, 0.0917431)),
    )
] + [
    Case(
        "REXDecay warmup and floor",
        lambda: REXDecay(0.0, 30, alpha=0.2, warmup_target=0.5, warmup_steps=10),
        about(decayed(rex(0.5, 0.5), 30, 10, peak=0.5, alpha=0.2), 10, 25, 40),
        "form",
    )
]

UBA_STEPS = (0, 250, 500, 750, 900, 1000)
UBA = [
    Case(
        f"UnifiedBudgetAwareDecay phi={phi}",
        lambda phi=phi: UnifiedBudgetAwareDecay(**RUN, phi=phi),
        about(decayed(uba(phi), 1000), *UBA_STEPS),
        "spec 7 [form]",
        printed=dict(zip(UBA_STEPS, printed, strict=True)),
        bad=({**RUN, "warmup_steps": 5},),
    )
    for phi, printed in (
        (0.25, (1, 0.979004, 0.888889, 0.578518, 0.167142, 0)),
        (0.5, (1, 0.958871, 0.8, 0.406983, 0.0911921, 0)),
        (1, (1, 0.920991, 0.666667, 0.255479, 0.0477744, 0)),
        (2, (1, 0.853553, 0.5, 0.146447, 0.0244717, 0)),
        (5, (1, 0.699823, 0.285714, 0.0642217, 0.00993457, 0)),
        (10, (1, 0.538252, 0.166667, 0.0331761, 0.00499208, 0)),
    )
]

# Steps 820, 850, 900, 950, 980, 999, 1000 of a run of 1000 with a warmup of 100 from 1 % and a cooldown of 200.
COOLDOWNS = {
    "linear": (0.9, 0.75, 0.5, 0.25, 0.1, 0.005, 0),
    "cosine": (0.975528, 0.853553, 0.5, 0.146447, 0.0244717, 6.16838e-5, 0),
    "mirror_cosine": (0.824472, 0.646447, 0.5, 0.353553, 0.175528, 0.00993832, 0),
    "square": (0.99, 0.9375, 0.75, 0.4375, 0.19, 0.009975, 0),
    "one_minus_sqrt": (0.683772, 0.5, 0.292893, 0.133975, 0.0513167, 0.00250313, 0),
    "exponential": (0.630957, 0.316228, 0.1, 0.0316228, 0.0158489, 0.0102329, 0.01),
    "lowered_linear": (0.63, 0.525, 0.35, 0.175, 0.07, None, 0),
    "exponential_to_zero": (0.866066, 0.681793, 0.414214, 0.189207, 0.0717735, None, 0),
    "inverse_proportional": (0.526316, 0.307692, 0.181818, None, None, None, 0.1),
    "sqrt_of_remaining": (None,) * 7,
}
EPFML = {"peak_learning_rate": 1.0, "warmup_steps": 100, "stable_steps": 700, "decay_steps": 200, "warmup_start": 0.01}


def wsd(cooldown):
    """Not `decayed`: a cooldown may jump at its start, and its warmup ends elsewhere."""

    def value(t):
        if t < 100:
            return 0.01 + 0.99 * t / 100
        return cooldown((min(t, 1000) - 800) / 200) if t >= 800 else 1.0

    return value


WARMUP_STABLE_DECAY = [
    Case(
        f"WarmupStableDecay {name}",
        lambda name=name: WarmupStableDecay(**EPFML, cooldown=name, alpha=FLOORS.get(name, 0.0)),
        about(wsd(SHAPES[name]), 50, 100, 800, 900, 1000),
        "spec 3 [off, epfml]; lowered_linear, exponential_to_zero: spec 3 [form]; inverse_proportional: spec 4 [form]",
        printed={0: 0.01, 50: 0.505, 99: 0.9901, 100: 1, 800: 0.7 if name == "lowered_linear" else 1}
        | {t: v for t, v in zip((820, 850, 900, 950, 980, 999, 1000), printed, strict=True) if v is not None},
        bad=(
            {**EPFML, "cooldown": "exponential"},
            {**EPFML, "cooldown": {"name": "exponential", "floor": 0.5}, "alpha": 0.1},
            {**EPFML, "cooldown": "zigzag"},
        ),
    )
    for name, printed in COOLDOWNS.items()
] + [
    Case(
        "WarmupStableDecay half-life",
        lambda: WarmupStableDecay(1.0, 0, 10, 20_000, cooldown={"name": "exponential", "floor": 1 / 16}),
        {0: 1, 9: 1, 10: 1, 11: 0.5 ** (1 / 5000), 20_009: 0.5 ** (19_999 / 5000), 20_010: 0.0625, 20_011: 0.0625},
        "spec 3 [form], MiniCPM",
        printed={10: 1, 2510: 0.707107, 5010: 0.5, 10_010: 0.25, 20_010: 0.0625},
    ),
    Case(
        "WarmupStableDecay for a curriculum",
        lambda: WarmupStableDecay(3e-3, 0, 0, 100, alpha=1 / 3),
        about(lambda t: 3e-3 - 2e-3 * math.sqrt(min(t, 100) / 100), 25, 50, 100),
        "spec 17 [form]",
        printed={0: 0.003, 25: 0.002, 50: 0.00158579, 100: 0.001},
    ),
]

INVERSE_SQRT = [
    Case(
        "InverseSqrtDecay Levanter",
        lambda: InverseSqrtDecay(0.0, 10_000, alpha=0.1, warmup_target=3e-4, warmup_steps=100),
        about(
            lambda t: 3e-4 * (t / 100 if t < 100 else max(0.1, min(1.0, math.sqrt(10_000 / t)))),
            *(100, 10_000, 40_000, 1_000_000, 2_000_000),
        ),
        "spec 9 [impl Levanter], which counts from the end of the warmup",
        printed={10_000: 3e-4, 40_000: 1.5e-4, 1_000_000: 3e-5},
        bad=(
            {"initial_learning_rate": 0.0, "decay_steps": 100, "warmup_target": 1.0, "warmup_steps": 101},
            {"initial_learning_rate": 1.0, "decay_steps": 100, "warmup_steps": 5},
        ),
    ),
    Case(
        "InverseSqrtDecay Noam",
        lambda: InverseSqrtDecay(0.0, 4000, warmup_target=(512 * 4000) ** -0.5, warmup_steps=4000),
        about(lambda t: 512**-0.5 * min(t * 4000**-1.5, max(t, 1) ** -0.5), 1, 400, 4000, 16_000, 100_000),
        "spec 9 [form], whose s is our t",
        printed={1: 1.74693e-7, 400: 6.98771e-5, 4000: 6.98771e-4, 16_000: 3.49386e-4, 100_000: 1.39754e-4},
    ),
    Case(
        "InverseSqrtDecay without warmup",
        lambda: InverseSqrtDecay(0.5, 4),
        {0: 0.5, 3: 0.5, 4: 0.5, 5: 0.5 * math.sqrt(0.8), 16: 0.25, 400: 0.05},
        "form",
    ),
]

POWER_TO_ZERO = [
    Case(
        "PowerDecayToZero cubic",
        lambda: PowerDecayToZero(1.0, 1000, capacity=2.0),
        about(decayed(lambda x: (1 - x) ** 3, 1000), 100, 250, 500, 750, 900, 1000),
        "beyond 2.2 [form]",
        printed={0: 1, 100: 0.729, 250: 0.421875, 500: 0.125, 750: 0.015625, 900: 0.001},
        bad=({"peak_learning_rate": 1.0, "decay_steps": 10, "capacity": 0.5},),
    ),
    Case(
        "PowerDecayToZero behind a plateau",
        lambda: PowerDecayToZero(0.5, 200, stable_steps=700, warmup_steps=100),
        about(decayed(lambda x: 1 if x < 7 / 9 else (4.5 * (1 - x)) ** 2, 900, 100, peak=0.5), 50, 100, 800, 900, 1000),
        "form",
    ),
]

CASES = [*PROFILES, *SAMPLED, *LINES, *REX, *UBA, *WARMUP_STABLE_DECAY, *INVERSE_SQRT, *POWER_TO_ZERO]
