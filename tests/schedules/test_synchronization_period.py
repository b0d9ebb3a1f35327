"""QSR: the averages that follow from the periods."""

import itertools

import numpy as np
import pytest

from keras_lrsched.schedules import LinearDecay, SynchronizationPeriod, Warmup


def test_synchronization_ends_with_the_run():
    schedule = SynchronizationPeriod(Warmup(LinearDecay(0.01, 300), 20), 0.02, warmup_steps=20)
    averages = schedule.averages()
    assert averages[-1] == 320
    for start, end in itertools.pairwise([0, *averages]):
        assert end - start == schedule.values(start + np.arange(1))[0]
    assert SynchronizationPeriod(0.01, 0.0).averages(10) == [4, 8, 10]
    with pytest.raises(ValueError, match="Received: total_steps=None"):
        SynchronizationPeriod(0.01, 0.0).averages()


def test_synchronization_period_is_the_same_in_every_part_of_the_warmup():
    schedule = SynchronizationPeriod(Warmup(LinearDecay(0.01, 300), 20), 0.055, warmup_steps=20)
    assert set(schedule.values(21)) == {30.0}
