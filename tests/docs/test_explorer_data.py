"""The explorer draws the values that the package returns, for every position of its sliders."""

import itertools

import make_explorer_data as explorer
import numpy as np
import pytest

from keras_lrsched import schedules
from keras_lrsched._core import registry
from tests.nightly import some


def test_every_schedule_is_there():
    assert [entry.name for entry in explorer.entries()] == schedules.names()


@pytest.mark.parametrize("name", some(["rex", "step", "cyclical", "wsd"], first=3))
def test_lines_give_the_curves(name):
    """The place of a line and of a curve is found as explorer.js finds it."""
    data = explorer.data(registry.find("schedules", name))
    options = [option["values"] for option in data["options"]]
    places = list(itertools.product(*options, explorer.WARMUPS, explorer.STEPS))
    assert len(data["curve_of"]) == len(places)
    assert len(data["lines"]) == len(places) * len(explorer.PEAKS)
    for number in range(0, len(places), 7):
        steps = places[number][-1]
        for k, peak in enumerate(explorer.PEAKS):
            schedule = eval(data["lines"][number * len(explorer.PEAKS) + k], vars(schedules).copy())
            curve = peak * np.array(data["curves"][data["curve_of"][number]])
            np.testing.assert_allclose(explorer.sampled(schedule, steps), curve, rtol=1e-5, atol=1e-6 * peak)


@pytest.mark.parametrize("name", schedules.names())
def test_options_change_the_curve_and_start_at_a_value(name):
    entry = registry.find("schedules", name)
    starts = {option: start for option, (_, start) in entry.choices.items()}
    for option, (values, start) in entry.choices.items():
        assert start in values
        arguments = [explorer._arguments(entry, {**starts, option: value}, 0.05, 1000) for value in values]
        curves = {explorer.sampled(explorer.built(entry, 1.0, **each), 1000).tobytes() for each in arguments}
        assert len(curves) == len(values), option


def test_a_line_that_gives_other_values_is_an_error():
    schedule = schedules.LinearDecay(0.1, 1000)
    with pytest.raises(AssertionError, match=r"LinearDecay\(0.1, decay_steps=1000\)"):
        explorer._checked_line(schedule, np.ones(explorer.POINTS + 1), 1000)


@pytest.mark.parametrize(
    ("schedule", "line"),
    [
        (schedules.LinearDecay(0.0, 950, warmup_target=0.1, warmup_steps=50), None),
        (schedules.Warmup(0.1, 50), "Warmup(Constant(0.1), warmup_steps=50)"),
        (schedules.WarmupStableDecay(0.1, 0, 8, 2), "WarmupStableDecay(0.1, warmup_steps=0, stable_steps=8, decay_steps=2)"),
        (schedules.ProfileDecay(0.1, 9, profile="cosine"), 'ProfileDecay(0.1, decay_steps=9, profile="cosine")'),
    ],
)
def test_python_line(schedule, line):
    line = line or "LinearDecay(0.0, decay_steps=950, warmup_target=0.1, warmup_steps=50)"
    assert explorer.python_line(schedule) == line
