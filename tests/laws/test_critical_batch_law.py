"""The critical batch from the updates to some losses."""

import itertools

import numpy as np
import pytest

from keras_lrsched.laws import CriticalBatchLaw, RunTable
from keras_lrsched.laws.critical_batch_law import critical_batch

LAW = CriticalBatchLaw(B_star=2.1e8, alpha_B=0.21)
BATCHES = np.array([1e5, 3e5, 1e6, 3e6, 1e7])


def updates(losses, noise=0.0):
    """The rows of a table: S = S_min (1 + B_crit / B), S_min = 2000 / loss."""
    loss, batch = np.array(list(itertools.product(losses, BATCHES))).T
    steps = 2000 / loss * (1 + LAW.value_at(loss) / batch)
    steps = steps * np.exp(noise * np.random.default_rng(0).normal(size=len(steps)))
    return RunTable(loss=loss, batch_tokens=batch, steps=steps)


def test_values():
    assert LAW.critical_batch([4, 3, 2.5]) == pytest.approx([285277.129, 1122569.711, 2674649.467], rel=1e-9)
    assert LAW.steps_ratio(3.0, 5e5) == pytest.approx(1e5 / 30815.3170)


def test_one_loss():
    steps = 500 * (1 + 2e6 / BATCHES)
    found = critical_batch(steps, BATCHES)
    assert found == pytest.approx((500, 1e9, 2e6), rel=1e-9)
    products = (steps / found.steps - 1) * (BATCHES * steps / found.tokens - 1)
    assert products == pytest.approx(np.ones(5))


@pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 1e-8), (0.02, 0.1)])
def test_fit_recovers_a_formula(noise, tolerance):
    found = CriticalBatchLaw.fit(updates([4.0, 3.5, 3.0, 2.5], noise))
    assert found.alpha_B == pytest.approx(0.21, rel=tolerance)
    assert found.critical_batch(3.0) == pytest.approx(LAW.critical_batch(3.0), rel=tolerance)
    assert found.fitted == {"loss": [2.5, 4.0]}


def test_rows_can_be_left_out():
    runs = updates([4.0, 3.5, 3.0])
    steps = runs.steps.copy()
    steps[3] *= 2
    wrong = RunTable(loss=runs.loss, steps=steps, batch_tokens=runs.batch_tokens)
    assert CriticalBatchLaw.fit(wrong, exclude=[3]).alpha_B == pytest.approx(0.21)
    assert CriticalBatchLaw.fit(wrong).alpha_B != pytest.approx(0.21, rel=0.01)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (updates([4.0, 3.0]), r"needs 3 runs or more. Received: 2 runs"),
        (updates([4.0, 3.5, 3.0]).take(np.arange(12)), r"Each loss needs three batches or more"),
        (RunTable(loss=np.full(5, 3.0), steps=1e9 / BATCHES, batch_tokens=BATCHES), "must lie near the critical one"),
        (RunTable(loss=np.full(5, 3.0), steps=np.full(5, 1e3), batch_tokens=BATCHES), "must lie near the critical one"),
    ],
)
def test_runs_without_a_law(runs, message):
    with pytest.raises(ValueError, match=message):
        CriticalBatchLaw.fit(runs)


def test_a_critical_batch_that_falls():
    runs = updates([4.0, 3.5, 3.0])
    with pytest.raises(ValueError, match="must grow as the loss falls"):
        CriticalBatchLaw.fit(RunTable(loss=7 - runs.loss, steps=runs.steps, batch_tokens=runs.batch_tokens))
