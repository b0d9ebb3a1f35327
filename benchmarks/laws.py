"""The laws over schedules on published loss curves: schedules left out, a larger model, and runs that are under way.

    python benchmarks/laws.py --data-dir FOLDER

The folder has multi_power_curves.csv, the curves of arXiv:2503.12811: models of 25, 100 and 400 million parameters under a
constant rate, a cosine and two WSD schedules. It takes half a minute. Errors are those of the mean loss of the last 2 %.
"""

import argparse
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from keras_lrsched.laws import AnnealingLaw, ConvexBound, FunctionalLaw, MultiPowerLaw, SizedAnnealingLaw, forecast
from tests.laws import published_curves
from tests.laws.published_curves import ONE_LENGTH, final_error

LAWS = (FunctionalLaw, MultiPowerLaw, ConvexBound, AnnealingLaw)
SIZES = (25, 100, 400)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with multi_power_curves.csv")
    curves = {size: published_curves.read(parser.parse_args().data_dir, size) for size in SIZES}
    warnings.simplefilter("ignore")  # extrapolation is the question here
    console = Console(width=150)
    for table in (left_out(curves), other_schedules(curves[100]), larger_model(curves), under_way(curves)):
        console.print(table)


def left_out(curves):
    """Each of four schedules of 24,000 updates, predicted by a law that is fitted to the three others."""
    table = Table("law", *(f"{size}M" for size in SIZES), title="a schedule left out: mean size of the error, the largest")
    for law in LAWS:
        errors = [np.abs(law.fit([curves[size][name] for name in ONE_LENGTH]).leave_one_out().errors) for size in SIZES]
        table.add_row(law.__name__, *(f"{each.mean():.2%}, {each.max():.2%}" for each in errors))
    return table


def other_schedules(curves):
    """`FunctionalLaw` from two runs, one of them constant: errors on all runs of the model, also longer ones."""
    pairs = [("constant_24000", other) for other in ("cosine_24000", "wsd_20000_24000")]
    laws = [FunctionalLaw.fit([curves[name] for name in pair]) for pair in pairs]
    table = Table("run", *(f"from {' and '.join(pair)}" for pair in pairs), title="FunctionalLaw, 100M, from two runs")
    for name, curve in curves.items():
        table.add_row(name, *(f"{final_error(law, curve):+.2%}" for law in laws))
    return table


def larger_model(curves):
    """`SizedAnnealingLaw` from the runs of the two small models."""
    small = [replace(curves[size][name], model_parameters=size * 1e6) for size in SIZES[:2] for name in ONE_LENGTH]
    law = SizedAnnealingLaw.fit(small).at_size(SIZES[2] * 1e6)
    table = Table("run", "error", title="SizedAnnealingLaw, 400M from 25M and 100M")
    for name in ONE_LENGTH:
        table.add_row(name, f"{final_error(law, curves[SIZES[2]][name]):+.2%}")
    return table


def under_way(curves):
    """Forecasts from a part of each run, by itself and with `AnnealingLaw` of other schedules of the model."""
    columns = ("median error", "largest", "covered")
    table = Table("seen", "law", *columns, title="forecasts of runs that are under way, with intervals of 90 %")
    for part in (0.25, 0.5, 0.75):
        for with_law in (False, True):
            errors, covered = [], []
            for own in curves.values():
                for name, curve in own.items():
                    others = [own[other] for other in ONE_LENGTH if other[:3] != name[:3]]
                    law = AnnealingLaw.fit(others) if with_law else None
                    low, predicted, high = forecast(curve.between(0, int(part * len(curve.rates))), law=law)
                    final = curve.between(int(0.98 * len(curve.rates))).loss.mean()
                    errors.append(abs(predicted / final - 1))
                    covered.append(low <= final <= high)
            numbers = f"{np.median(errors):.1%}", f"{max(errors):.1%}", f"{sum(covered)} of {len(covered)}"
            table.add_row(f"{part:.0%}", "AnnealingLaw" if with_law else "none", *numbers)
    return table


if __name__ == "__main__":
    main()
