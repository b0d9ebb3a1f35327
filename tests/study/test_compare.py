"""A comparison trains as `compile` and `fit` would, fairly and repeatably."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import LossRecorder
from keras_lrsched.schedules import REXDecay
from keras_lrsched.study import workloads
from keras_lrsched.study.compare import Trainer, plan
from tests.nightly import some


@pytest.fixture(scope="module")
def digits():
    return workloads.load("digits")


@pytest.fixture(scope="module")
def trainer(digits):
    return Trainer(digits, use_xla=False)


def job(digits, schedule="rex", budget=23, seed=1):
    return next(job for job in plan([digits], [schedule], seeds=seed + 1, budgets=[budget]) if job.seed == seed)


@pytest.mark.parametrize("use_xla", some([False, True]))
def test_a_run_is_what_compile_and_fit_do(digits, trainer, use_xla):
    """The schedule is set from outside, update by update; inside the compiled step it must give the same weights."""
    schedule = REXDecay(0.0, 22, warmup_target=0.1, warmup_steps=1)
    trainer = Trainer(digits) if use_xla else trainer
    run = trainer.run(job(digits))
    np.testing.assert_allclose(run.learning_rate, schedule.values(23), rtol=1e-6)

    model = digits.compiled_model(schedule, seed=1, jit_compile="auto" if use_xla else False)
    recorder = LossRecorder()
    keras.utils.set_random_seed(1)
    model.fit(digits.stream(1), steps_per_epoch=23, shuffle=False, verbose=0, callbacks=[recorder])
    np.testing.assert_allclose(run.loss, recorder.loss, rtol=2e-3)
    for mine, plain in zip(trainer._model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, plain, atol=2e-4)


def test_a_run_leaves_no_trace_in_the_next(digits, trainer):
    first = trainer.run(job(digits), 2)
    trainer.run(job(digits, schedule="constant", seed=0), 2)
    again = trainer.run(job(digits), 2)
    np.testing.assert_array_equal(first.validation_loss, again.validation_loss)
    np.testing.assert_allclose(first.loss, again.loss, rtol=1e-6)


@pytest.mark.parametrize(
    ("budget", "evaluations", "ends"), [(23, 4, [6, 12, 18, 23]), (6, 10, [1, 2, 3, 4, 5, 6]), (5, 1, [5])]
)
def test_a_run_has_exactly_its_budget(digits, trainer, budget, evaluations, ends):
    run = trainer.run(job(digits, budget=budget), evaluations)
    assert len(run.loss) == len(run.learning_rate) == budget
    assert run.evaluated_at.tolist() == ends
    assert len(run.validation_loss) == len(run.metric) == len(ends)
    assert int(keras.ops.convert_to_numpy(trainer._model.optimizer.iterations)) == budget


def test_updates_to_the_target(digits, trainer, monkeypatch):
    monkeypatch.setattr(type(digits), "target", 0.0)
    run = trainer.run(job(digits))
    assert run.steps_to_target == 3
    monkeypatch.setattr(type(digits), "target", 1.1)
    assert dataclasses.replace(run).steps_to_target is None


def test_a_plan_is_balanced_and_complete(digits):
    jobs = plan([digits], ["linear", "wsd"], seeds=2, budgets=[10, 20], peak_learning_rate=0.3, warmup=0.1)
    assert [(j.budget, j.seed, j.label) for j in jobs[:3]] == [(10, 0, "linear"), (10, 0, "wsd"), (10, 1, "linear")]
    assert len(jobs) == 8
    assert max(jobs[-1].schedule.values(20)) == 0.3
    assert jobs[-1].schedule.values([0, 2]).tolist() == [0, 0.3]


def test_a_plan_refuses_what_it_does_not_know(digits):
    with pytest.raises(ValueError, match=r"Unknown schedule 'lineer'\. Did you mean linear"):
        plan([digits], ["lineer"], seeds=1)
