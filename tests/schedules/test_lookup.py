"""Schedules by name: `schedules.get`."""

import keras
import numpy as np
import pytest

from keras_lrsched import schedules
from keras_lrsched._core import registry
from keras_lrsched.schedules import LinearDecay, REXDecay, WarmupStableDecay

OTHERS = {row.name: row for row in registry.entries("schedules") if row.name and row.kind != "learning rate"}
RUN = {"peak_learning_rate": 0.3, "total_steps": 50}


def test_alphabetical_and_unique():
    names = registry.names("schedules")
    assert names == sorted(set(names))
    assert schedules.names() == [name for name in names if name not in OTHERS]


@pytest.mark.parametrize("row", OTHERS.values(), ids=OTHERS)
def test_others_are_not_learning_rates_of_a_budget(row):
    assert row.kind != "learning rate"
    with pytest.raises(ValueError, match=f"it schedules a {row.kind}: use .*{row.target.__name__}"):
        schedules.get(row.name, **RUN)


def test_rows_are_complete():
    for row in registry.entries("schedules"):
        assert row.title
        assert row.kind
        assert row.paper is None or row.paper.startswith("arXiv:")
        assert row.paper or not row.checked


def test_name_alone():
    schedule = schedules.get("rex", **RUN, warmup_steps=5)
    assert schedule.get_config() == REXDecay(0.0, 45, warmup_target=0.3, warmup_steps=5).get_config()


def test_options_are_numbers_words_and_lists():
    schedule = schedules.get("wsd:cooldown=linear:decay_fraction=0.4:alpha=1e-2", **RUN)
    assert schedule.get_config() == WarmupStableDecay(0.3, 0, 30, 20, cooldown="linear", alpha=0.01).get_config()
    assert schedules.get("rex:sample_points=[0.5,0.75]", **RUN).sample_points == [0.5, 0.75]
    assert schedules.get("one_cycle:three_phase=true", **RUN).three_phase is True


def test_options_win_over_those_of_the_name():
    assert schedules.get("cosine", **RUN).name == "cosine"
    assert schedules.get("cosine:name=mine", **RUN).name == "mine"


def test_schedules_and_configs_pass_through():
    schedule = LinearDecay(0.1, 10)
    assert schedules.get(schedule) is schedule
    again = schedules.get(keras.optimizers.schedules.serialize(schedule))
    assert again.get_config() == schedule.get_config()


@pytest.mark.parametrize("identifier", [None, 0.1, ["rex"]])
def test_refuses_other_identifiers(identifier):
    with pytest.raises(ValueError, match="must be a name, a config or a schedule"):
        schedules.get(identifier, **RUN)


def test_a_name_needs_a_budget():
    with pytest.raises(ValueError, match="Received: peak_learning_rate=None, total_steps=10"):
        schedules.get("rex", total_steps=10)


def test_both_names_of_a_line():
    np.testing.assert_array_equal(schedules.get("profile", **RUN).values(50), schedules.get("linear", **RUN).values(50))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin", "Unknown schedule 'cosin'. Did you mean cosine?"),
        ("zzz", "Unknown schedule 'zzz'. Known: constant, "),
        ("", "Unknown schedule ''. Known: "),
        ("rex:c=1", "'rex' has no option 'c'. It has: alpha, a, b, "),
        ("constant:alpha=0.1", "'constant' has no option 'alpha'. It has: none."),
        ("rex:a", "Options are given as name:option=value. Received: 'rex:a'"),
        ("rex:a=", "Received: 'rex:a='"),
        ("rex:=1", "Received: 'rex:=1'"),
        ("rex:", "Received: 'rex:'"),
        ("rex:a=0.2", "`a` and `b` must sum to 1"),
        ("uba:phi=fast", "Received: phi='fast'"),
        ("uba:phi=true", "Received: phi=True"),
        ("uba:phi=NaN", "Received: phi=nan"),
        ("wsd:decay_fraction=1.5", "Received: decay_fraction=1.5"),
        ("profile:profile=zigzag", "Unknown profile"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        schedules.get(text, **RUN)
    assert message in str(error.value)
