"""The law of updates and batches: values of the formula, the root of the trajectory, and its fit."""

import itertools

import numpy as np
import pytest

from keras_lrsched.laws import RunTable, StepsAndBatchLaw

LAW = StepsAndBatchLaw.published("kaplan")


def test_critical_batch():
    found = [LAW.critical_batch(loss) for loss in (4, 3, 2.5)]
    assert found == pytest.approx([285277.129, 1122569.711, 2674649.467], rel=1e-9)


def test_minimal_costs():
    assert LAW.minimal_costs(loss=3.0, steps=1e5, batch_tokens=5e5) == pytest.approx((30815.3170, 3.45923415e10), rel=1e-9)
    batch = LAW.critical_batch(3.0)
    assert LAW.minimal_costs(3.0, 1e4, batch) == pytest.approx((5e3, 5e3 * batch))  # both twice their minimum


def test_unlimited_batch():
    found = LAW.loss([1e8, 1e9], [1e4, 1e5], 1e18)
    assert found == pytest.approx([3.10822672, 2.40051366], rel=3e-9)


def test_trajectories():
    assert LAW.loss(1e8, [1e4, 1e5], 5e5) == pytest.approx([3.3745809294, 2.9395509646], abs=1e-10)
    assert StepsAndBatchLaw.published("unraveling").loss(1e9, 2e4, 2**20) == pytest.approx(2.8717944097, abs=1e-10)


@pytest.mark.parametrize("batch", [1.0, 1e3, 1e6, 1e12])
@pytest.mark.parametrize("steps", [1.0, 1e3, 1e9])
def test_the_loss_solves_its_equation(batch, steps):
    loss = LAW.value_at(np.array(1e8), np.array(steps), np.array(batch))
    minimal = steps / (1 + 2.1e8 * loss ** (-1 / 0.21) / batch)
    assert (6.5e13 / 1e8) ** 0.077 + (2.1e3 / minimal) ** 0.76 == pytest.approx(loss, rel=1e-12)


def test_what_follows():
    loss = LAW.loss(1e8, 1e5, 5e5)
    assert LAW.steps_for(loss, 1e8, 5e5) == pytest.approx(1e5)
    assert LAW.tokens_for(loss, 1e8, 5e5) == pytest.approx(5e10)
    assert LAW.steps_for(2.0, 1e8, 5e5) == np.inf
    best = LAW.optimal(1e19, 5e5)
    assert 6 * best.parameters * best.tokens == pytest.approx(1e19)
    for factor in (0.9, 1.1):
        assert LAW.loss(factor * best.parameters, best.tokens / factor / 5e5, 5e5) > best.loss


def points(noise):
    sizes, steps, batch = np.array(list(itertools.product([1e6, 1e7, 1e8], [1e3, 3e3, 1e4, 3e4], [3e4, 3e5, 3e6]))).T
    loss = LAW.value_at(sizes, steps, batch) * np.exp(noise * np.random.default_rng(0).normal(size=len(sizes)))
    return RunTable(parameters=sizes, steps=steps, batch_tokens=batch, loss=loss, run=sizes + batch, check_units=False)


@pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 1e-5), (0.002, 0.02)])
def test_fit_recovers_a_formula(noise, tolerance):
    found = StepsAndBatchLaw.fit(points(noise))
    assert (found.alpha_N, found.alpha_S, found.alpha_B) == pytest.approx((0.077, 0.76, 0.21), rel=tolerance)
    assert (found.N_c, found.S_c, found.B_star) == pytest.approx((6.5e13, 2.1e3, 2.1e8), rel=10 * tolerance)


def test_points_of_a_trajectory_are_one_run():
    found = StepsAndBatchLaw.fit(points(0.002))
    assert len(found.refits(method="leave_one_out")) == 9
    few = points(0.0)
    with pytest.raises(ValueError, match=r"needs 4 runs or more. Received: 3 runs"):
        StepsAndBatchLaw.fit(few.take(few.batch_tokens == 3e4))


def test_too_few_points():
    runs = points(0.0)
    with pytest.raises(ValueError, match=r"needs seven points. Received: 6 points"):
        StepsAndBatchLaw.fit(runs.take(np.array([0, 4, 13, 17, 26, 30])))


@pytest.mark.parametrize("bad", [{"loss": 0}, {"parameters": 0}, {"batch_tokens": -1}])
def test_bad_goals(bad):
    with pytest.raises(ValueError, match="Received: "):
        LAW.steps_for(**({"loss": 3.0, "parameters": 1e8, "batch_tokens": 5e5} | bad))
