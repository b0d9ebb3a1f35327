"""Usual proportions of a budget where the contract's cases, 40 steps with a warmup of 10, show only one of several."""

import numpy as np
import pytest

from keras_lrsched import schedules


class TestInverseSqrtDecay:
    def test_inverse_square_root_decays_from_a_tenth_of_the_budget(self):
        values = schedules.get("inverse_sqrt", 1.0, 400).values(400)
        assert values[40] == 1
        assert values[160] == pytest.approx(0.5)


class TestSlowStartFastDecay:
    def test_slow_start_rises_over_half_of_the_budget(self):
        values = schedules.get("slow_start", 1.0, 40).values(41)
        assert np.argmax(values) == 20
        assert values[40] == values.min() < values[39]


class TestMultiplicativeCyclic:
    def test_cycles_of_a_budget_grow_by_a_factor_and_fill_it(self):
        schedule = schedules.get("multiplicative_cyclic:cycles=4:t_mul=3", 1.0, 400)
        assert np.flatnonzero(schedule.values(401) == 1).tolist() == [0, 10, 40, 130, 400]


class TestLearningRateRewinding:
    def test_a_replay_that_does_not_divide_the_training(self):
        line = schedules.LinearDecay(1.0, 10)
        replays = schedules.LearningRateRewinding(line, 10, 3, cycles=2)
        np.testing.assert_array_equal(replays.values(16), line.values(np.array([*range(10), 7, 8, 9, 7, 8, 9])))
