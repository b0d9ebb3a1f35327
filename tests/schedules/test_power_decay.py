"""Tokens and updates: which is which, and what happens when they are mixed up."""

import math

import numpy as np
import pytest

from keras_lrsched.schedules import PowerDecay

RUN = {"total_tokens": 1e12, "warmup_tokens": 1e9, "decay_tokens": 1e11, "batch_size": 1024}


@pytest.mark.parametrize(
    ("tokens", "expected"), [(4096 * 1024, 1), (4096 * 1024 + 1, 2), (1e9, 239), (1e12, 238_419), (10 * 4096 * 1024, 10)]
)
def test_steps_from_tokens(tokens, expected):
    steps = PowerDecay.steps_from_tokens(tokens, batch_size=1024, sequence_length=4096)
    assert isinstance(steps, int)
    assert steps == expected == PowerDecay.steps_from_tokens(tokens, 1024)


def test_the_schedule_is_as_long_as_its_tokens():
    for total in (1e12, 3.3e11, 1.25e12, 4096 * 1024 * 50_000):
        schedule = PowerDecay(**{**RUN, "total_tokens": total})
        assert schedule.total_steps == PowerDecay.steps_from_tokens(total, 1024)
        before, after = schedule.values([schedule.total_steps - 1, schedule.total_steps])
        assert before > after == 0


@pytest.mark.parametrize("name", ["total_tokens", "warmup_tokens", "decay_tokens"])
def test_updates_in_place_of_tokens(name):
    with pytest.raises(ValueError, match=rf"`{name}` must be no less than .* Received: {name}=238000\.0, batch_size=1024"):
        PowerDecay(**{**RUN, name: 238_000})


def test_a_batch_of_tokens():
    with pytest.raises(ValueError, match=r"`batch_size` counts sequences, not tokens.* batch_size=4194304"):
        PowerDecay(**{**RUN, "batch_size": 1024 * 4096})


@pytest.mark.parametrize("bad", [{"tokens": 0}, {"tokens": 100}, {"batch_size": 0}, {"sequence_length": 1.5}])
def test_steps_from_tokens_refuses(bad):
    with pytest.raises(ValueError, match=f"Received: {next(iter(bad))}="):
        PowerDecay.steps_from_tokens(**{"tokens": 1e9, "batch_size": 1024, "sequence_length": 4096, **bad})


@pytest.mark.parametrize(("batch_size", "tokens"), [(128, 4.40157e8), (1024, 2.59641e10)])
def test_the_cap_is_left_where_the_spec_says(batch_size, tokens):
    schedule = PowerDecay(**{**RUN, "batch_size": batch_size, "warmup_tokens": 1e8})
    values = schedule.values(int(1e11 / (batch_size * 4096)))
    below = np.flatnonzero((values < 0.02 * (1 - 1e-12)) & (np.arange(values.size) * batch_size * 4096 > 1e8))
    assert below[0] == math.ceil(tokens / (batch_size * 4096))


@pytest.mark.filterwarnings("error")
def test_a_cap_that_ends_with_the_warmup_has_no_phase_of_its_own():
    """Where rounding would leave it one of 1e-14 updates."""
    schedule = PowerDecay.for_budget(0.01, 1000, warmup_steps=50, b=-0.3)
    np.testing.assert_allclose(schedule.values([49, 50, 51]), [0.0098, 0.01, 0.01 * (51 / 50) ** -0.3], rtol=1e-6)
