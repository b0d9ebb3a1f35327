"""The loss curves of Luo et al. 2025 (arXiv:2503.12811), from the data folder."""

import csv

import numpy as np

from keras_lrsched.laws import LossCurve
from tests.laws.official_runs import END, PEAK, RAMP, WARMUP, WSD, WSDLD

ONE_LENGTH = ("constant_24000", "cosine_24000", "wsd_20000_24000", "wsdld_20000_24000")


def rates_of(schedule):
    if schedule.startswith("wsd"):
        return WSD if schedule.startswith("wsd_") else WSDLD
    shape, steps = schedule.split("_")
    after = np.arange(int(steps) - WARMUP) / (int(steps) - WARMUP)
    return np.concatenate([RAMP, END + (PEAK - END) * (0.5 + 0.5 * np.cos(np.pi * after * (shape == "cosine")))])


def read(folder, millions):
    """The curves of the model of so many million parameters, by schedule; those of two stages are left out."""
    points = {}
    with (folder / "multi_power_curves.csv").open() as file:
        for row in csv.DictReader(file):
            if row["model_millions"] == str(millions) and not row["schedule"].startswith("wsdcon"):
                points.setdefault(row["schedule"], []).append((int(row["step"]), float(row["loss"])))
    curves = {}
    for schedule, pairs in points.items():
        rates = rates_of(schedule)
        step, loss = zip(*(pair for pair in pairs if pair[0] < len(rates)), strict=True)
        curves[schedule] = LossCurve(loss, rates, step, name=schedule)
    return curves


def final_error(law, curve):
    """The relative error of the predicted mean loss of the last 2 % of a run."""
    last = curve.between(int(0.98 * len(curve.rates)))
    return law.predict(curve.rates, at=last.step).mean() / last.loss.mean() - 1
