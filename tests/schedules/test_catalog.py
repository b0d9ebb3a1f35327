"""The catalog: what a name on a command line means."""

import numpy as np
import pytest

from keras_lrsched.schedules import REXDecay, WarmupStableDecay, catalog

RUN = {"peak_learning_rate": 0.3, "total_steps": 50}


def test_alphabetical_and_unique():
    others = [row.name for row in catalog.OTHERS]
    assert catalog.names() == sorted(set(catalog.names()))
    assert others == sorted({*others} - {*catalog.names()})


@pytest.mark.parametrize("row", catalog.OTHERS, ids=lambda row: row.name)
def test_others_are_not_learning_rates_of_a_budget(row):
    assert row.kind != "learning rate"
    with pytest.raises(ValueError, match=f"it schedules a {row.kind}: use .*{row.schedule.__name__}"):
        catalog.parse(row.name, **RUN)


def test_rows_are_complete():
    for row in catalog.CATALOG:
        assert catalog.get(row.name) is row
        assert row.kind == "learning rate"
    for row in (*catalog.CATALOG, *catalog.OTHERS):
        assert row.title
        assert row.reference == "-" or row.reference.startswith("arXiv:")


def test_name_alone():
    schedule = catalog.parse("rex", **RUN, warmup_steps=5)
    assert schedule.get_config() == REXDecay(0.0, 45, warmup_target=0.3, warmup_steps=5).get_config()


def test_options_are_numbers_words_and_lists():
    schedule = catalog.parse("wsd:cooldown=linear:decay_fraction=0.4:alpha=1e-2", **RUN)
    assert schedule.get_config() == WarmupStableDecay(0.3, 0, 30, 20, cooldown="linear", alpha=0.01).get_config()
    assert catalog.parse("rex:sample_points=[0.5,0.75]", **RUN).sample_points == [0.5, 0.75]
    assert catalog.parse("one_cycle:three_phase=true", **RUN).three_phase is True


def test_options_win_over_those_of_the_name():
    assert catalog.parse("cosine", **RUN).name == "cosine"
    assert catalog.parse("cosine:name=mine", **RUN).name == "mine"


def test_both_names_of_a_line():
    np.testing.assert_array_equal(catalog.parse("profile", **RUN).values(50), catalog.parse("linear", **RUN).values(50))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin", "Unknown schedule 'cosin'. Did you mean cosine?"),
        ("zzz", "Unknown schedule 'zzz'. Known: constant, "),
        ("", "Unknown schedule ''. Known: "),
        ("rex:c=1", "'rex' has no option 'c'. It has: alpha, a, b, "),
        ("constant:alpha=0.1", "'constant' has no option 'alpha'. It has: none."),
        ("rex:a", "Write options as name:option=value. Received: 'rex:a'"),
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
        catalog.parse(text, **RUN)
    assert message in str(error.value)
