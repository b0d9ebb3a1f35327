"""The curves of the schedule explorer, each of them computed by the package.

For each schedule that has a name, every combination of the `choices` of its entry in the registry is built and evaluated
at `POINTS` + 1 steps, and the line of Python that builds it is stored with it. The line is then executed: its values must
be those that are stored. Curves are stored for a peak of 1, once for all lengths and warmups that have the same; other
peaks are checked to be a multiple.

`make docs` calls this for each schedule and puts the results beside docs/methods/explorer/explorer.js.
"""

import inspect
import itertools
import json

import numpy as np

from keras_lrsched import schedules
from keras_lrsched._core import registry
from keras_lrsched.schedules import profiles

POINTS = 500
STEPS = (1_000, 10_000, 100_000)
PEAKS = (1.0, 0.1, 0.01, 0.003, 0.001, 0.0003, 0.0001)
WARMUPS = (0.0, 0.05, 0.1)


def data(entry):
    """All data of a schedule that the explorer shows, for `json.dumps`.

    `curves` holds the different curves; `curve_of` and `lines` hold a number and a line of Python for each combination. The
    first option turns slowest, then the others, then warmup and steps; in `lines` the peak turns fastest.
    """
    options = entry.choices
    curves: dict[tuple, int] = {}
    curve_of, lines = [], []
    for *chosen, warmup, steps in itertools.product(*(values for values, _ in options.values()), WARMUPS, STEPS):
        arguments = _arguments(entry, dict(zip(options, chosen, strict=True)), warmup, steps)
        curve = sampled(built(entry, 1.0, **arguments), steps)
        rounded = tuple(float(f"{value:.6g}") for value in curve)
        curve_of.append(curves.setdefault(rounded, len(curves)))
        lines += [_checked_line(built(entry, peak, **arguments), peak * curve, steps) for peak in PEAKS]
    return {
        "name": entry.name,
        "title": entry.title,
        "class": entry.target.__name__,
        "options": [{"name": name, "values": values, "start": start} for name, (values, start) in options.items()],
        "curves": list(curves),
        "curve_of": curve_of,
        "lines": lines,
    }


def entries():
    return [entry for entry in registry.entries("schedules", "learning rate") if entry.name]


def built(entry, peak, total_steps, warmup_steps, **options):
    """The schedule of an entry with these options, by its name."""
    words = [entry.name, *(f"{name}={json.dumps(value)}" for name, value in options.items())]
    return schedules.get(":".join(words), peak, total_steps, warmup_steps)


def grid():
    """The data that all schedules share."""
    rows = [{"name": entry.name, "title": entry.title} for entry in entries()]
    return {"schedules": rows, "steps": STEPS, "peaks": PEAKS, "warmups": WARMUPS, "points": POINTS}


def files():
    """Name and content of each file, as scripts, so that the page also works when it is opened from a folder."""
    yield "grid.js", f"scheduleExplorer.start({json.dumps(grid())})\n"
    for entry in entries():
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
    again = eval(line, vars(schedules).copy())
    np.testing.assert_allclose(sampled(again, steps), values, rtol=1e-9, atol=1e-12 * max(values), err_msg=line)
    return line


def _argument(schedule, name):
    value = getattr(schedule, name)
    if not isinstance(value, profiles.Profile):
        return python_line(value)
    plain = profiles.get(value.name, floor=getattr(schedule, "alpha", None) or value.end or None)
    return python_line(value.name if plain == value else value.get_config())


def _default(parameter):
    return None if parameter.default is parameter.empty else python_line(parameter.default)
