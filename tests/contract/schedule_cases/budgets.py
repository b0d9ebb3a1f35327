"""Schedules by name for a run of 40 updates, 10 of them warmup: one case for every name."""

import math

from keras_lrsched import schedules

from . import Case, about, cosine, decayed

VALUES = {
    "constant": about(lambda t: min(t / 10, 1.0), 10, 40),
    "cosine": about(decayed(cosine, 30, 10), 10, 40),
    "cyclical": about(lambda t: 0.25 + 0.75 * min(t % 10, 10 - t % 10) / 5, 5, 10, 40),
    "cyclical2": about(lambda t: 0.25 + 0.75 * min(t % 10, 10 - t % 10) / 5 * 0.5 ** (t // 10), 5, 10, 40),
    "inverse_sqrt": about(lambda t: min(t / 10, math.sqrt(10 / max(t, 1))), 10, 40),
    "linear": about(decayed(lambda x: 1 - x, 30, 10), 10, 40),
    "multiplicative_cyclic": about(
        lambda t: t / 10 if t < 10 else cosine((t - 10) / 5 if t < 15 else (t - 15) / 10 if t < 25 else (t - 25) / 20),
        10,
        15,
        40,
    ),
    "one_cycle": {0: 0.04, 11: 1.0, 39: 4e-6, 40: 4e-6, 41: 4e-6},  # its rise is its own: 0.3 * 40 - 1 = 11
    "power_to_zero": about(decayed(lambda x: (1 - x) ** 2, 30, 10), 10, 40),
    "profile": about(decayed(lambda x: 1 - x, 30, 10), 10, 40),
    "rex": about(decayed(lambda x: (1 - x) / (1 - x / 2), 30, 10), 10, 40),
    "uba": about(decayed(lambda x: 2 * cosine(x) / (1 + cosine(x)), 30, 10), 10, 40),
    "wsd": about(lambda t: min(t / 10, 1.0, 1 - math.sqrt(max(0, min(t, 40) - 32) / 8)), 10, 32, 40),
}

CASES = [
    Case(f"budget {name}", lambda name=name: schedules.get(name, 1.0, 40, 10), values, "form")
    for name, values in VALUES.items()
]
