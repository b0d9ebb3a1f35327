"""The curves of the schedule explorer, each of them computed by the package.

For each schedule of the catalog, every combination of the choices below is built and evaluated at `POINTS` + 1 steps, and
the line of Python that builds it is written down. The line is then executed: what it gives must be what is stored. Curves
are stored for a peak of 1, once for all lengths and warmups that give the same; other peaks are checked to be a multiple.

`make docs` calls this for each schedule and puts the results beside docs/methods/explorer/explorer.js.
"""

import inspect
import itertools
import json

import numpy as np

from keras_lrsched import schedules
from keras_lrsched.schedules import catalog, profiles

POINTS = 500
STEPS = (1_000, 10_000, 100_000)
PEAKS = (1.0, 0.1, 0.01, 0.003, 0.001, 0.0003, 0.0001)
WARMUPS = (0.0, 0.05, 0.1)

FLOORS = (0.0, 0.01, 0.1, 0.3)
SHAPES = ("linear", "cosine", "mirror_cosine", "one_minus_sqrt", "sqrt_of_remaining", "square", "lowered_linear", "rex")

# For each schedule its options and their values, and where they stand at first.
CHOICES: dict[str, dict] = {
    "constant": {},
    "continued_pretraining": {"alpha": (FLOORS, 0.01)},
    "cosine": {"alpha": (FLOORS, 0.0)},
    "cyclical": {"cycles": ((1, 2, 4, 8), 4)},
    "cyclical2": {"cycles": ((1, 2, 4, 8), 4)},
    "distribution_shift": {"drift": ((0.0, 0.01, 0.1), 0.01)},
    "infinite": {"cooldown": (("cosine", "inverse_sqrt"), "cosine")},
    "inverse_sqrt": {"alpha": ((0.0, 0.4, 0.6), 0.0)},
    "linear": {"alpha": (FLOORS, 0.0)},
    "minicpm": {"decay_fraction": ((0.05, 0.1, 0.2, 0.4), 0.1)},
    "moderate": {"alpha": ((0.1, 0.2, 1 / 3, 0.5), 1 / 3), "decay_fraction": ((0.1, 0.2, 0.4, 0.8), 0.2)},
    "multiplicative_cyclic": {"cycles": ((1, 2, 3, 4), 3), "t_mul": ((1, 2, 3), 2)},
    "noam": {},
    "one_cycle": {
        "pct_start": ((0.1, 0.2, 0.3, 0.5), 0.3),
        "div_factor": ((5.0, 25.0, 100.0), 25.0),
        "anneal": (("cosine", "linear"), "cosine"),
        "three_phase": ((False, True), False),
    },
    "power": {"b": ((-0.7, -0.51, -0.3), -0.51), "decay_fraction": ((0.05, 0.1, 0.2, 0.4), 0.1)},
    "profile": {
        "profile": (SHAPES, "one_minus_sqrt"),
        "alpha": ((0.0, 0.1), 0.0),
        "sample_points": ((None, (0.5, 0.75), (0.25, 0.5, 0.75)), None),
    },
    "rewarm_redecay": {"alpha": (FLOORS, 0.1)},
    "rex": {"a": ((0.1, 0.25, 0.5, 0.75, 0.9), 0.5), "alpha": (FLOORS, 0.0)},
    "slow_start": {"alpha": ((0.001, 0.01, 0.1), 0.01), "cooldown": (("exponential", "cosine", "linear"), "exponential")},
    "step": {"factor": ((0.1, 0.2, 0.5), 0.1)},
    "uba": {"phi": ((0.25, 0.5, 1.0, 2.0, 5.0, 10.0), 1.0), "alpha": (FLOORS, 0.0)},
    "wsd": {
        "decay_fraction": ((0.05, 0.1, 0.2, 0.4), 0.2),
        "cooldown": (SHAPES, "one_minus_sqrt"),
        "alpha": ((0.0, 0.1), 0.0),
    },
    "wsd_s": {"periods": ((1, 2, 3, 4), 3), "decay_fraction": ((0.05, 0.1, 0.2), 0.1)},
}


def data(entry):
    """All that the explorer knows of a schedule, for `json.dumps`.

    `curves` holds the different curves; `curve_of` and `lines` hold a number and a line of Python for each combination. The
    first option turns slowest, then the others, then warmup and steps; in `lines` the peak turns fastest.
    """
    options = CHOICES[entry.name]
    curves: dict[tuple, int] = {}
    curve_of, lines = [], []
    for *chosen, warmup, steps in itertools.product(*(values for values, _ in options.values()), WARMUPS, STEPS):
        arguments = _arguments(entry, dict(zip(options, chosen, strict=True)), warmup, steps)
        curve = sampled(entry.for_budget(1.0, **arguments), steps)
        rounded = tuple(float(f"{value:.6g}") for value in curve)
        curve_of.append(curves.setdefault(rounded, len(curves)))
        lines += [_checked_line(entry.for_budget(peak, **arguments), peak * curve, steps) for peak in PEAKS]
    return {
        "name": entry.name,
        "title": entry.title,
        "class": entry.schedule.__name__,
        "options": [{"name": name, "values": values, "start": start} for name, (values, start) in options.items()],
        "curves": list(curves),
        "curve_of": curve_of,
        "lines": lines,
    }


def grid():
    """What is the same for all schedules."""
    rows = [{"name": entry.name, "title": entry.title} for entry in catalog.CATALOG]
    return {"schedules": rows, "steps": STEPS, "peaks": PEAKS, "warmups": WARMUPS, "points": POINTS}


def files():
    """Name and content of each file, as scripts, so that the page also works when it is opened from a folder."""
    yield "grid.js", f"scheduleExplorer.start({json.dumps(grid())})\n"
    for entry in catalog.CATALOG:
        yield f"{entry.name}.js", f"scheduleExplorer.add({json.dumps(data(entry), separators=(',', ':'))})\n"


def sampled(schedule, steps):
    return schedule.values(np.arange(POINTS + 1) * (steps // POINTS))


def python_line(value):
    """The call that builds a schedule, without arguments that are at their defaults, and without labels."""
    if isinstance(value, float):
        return repr(float(f"{value:.12g}"))
    if not isinstance(value, schedules.Schedule):
        return repr(value).replace("'", '"')
    parameters = inspect.signature(type(value)).parameters.values()
    words = [(each.name, _argument(value, each.name)) for each in parameters]
    given = [word for word, each in zip(words, parameters, strict=True) if word[1] != _default(each) and each.name != "name"]
    (_, first), *others = given
    return f"{type(value).__name__}({', '.join([first, *(f'{name}={text}' for name, text in others)])})"


def _arguments(entry, options, warmup, steps):
    if entry.name == "rex":
        options["b"] = round(1 - options["a"], 12)
    return {"total_steps": steps, "warmup_steps": round(warmup * steps), **options}


def _checked_line(schedule, values, steps):
    line = python_line(schedule)
    built = eval(line, vars(schedules).copy())
    np.testing.assert_allclose(sampled(built, steps), values, rtol=1e-9, atol=1e-12 * max(values), err_msg=line)
    return line


def _argument(schedule, name):
    value = getattr(schedule, name)
    if not isinstance(value, profiles.Profile):
        return python_line(value)
    plain = profiles.get(value.name, floor=getattr(schedule, "alpha", None) or value.end or None)
    return python_line(value.name if plain == value else value.get_config())


def _default(parameter):
    return None if parameter.default is parameter.empty else python_line(parameter.default)
