"""Grouped falls against the sum over all updates as it stands."""

import numpy as np
import pytest

from keras_lrsched.laws._lr_decrements import counted, lr_decrements, warmup_end

STEPS = 3000
AT = np.array([0, 1, 2, 50, 63, 64, 65, 99, 100, 101, 500, 1499, 1500, 2000, 2999])


def cyclic(steps):
    return 0.55 - 0.45 * np.cos(2 * np.pi * np.arange(steps) / 700)


def walk(steps):
    return np.exp(np.clip(np.cumsum(np.random.default_rng(3).normal(0, 0.05, steps)), -3, 0))


SCHEDULES = {
    "cosine": 0.55 + 0.45 * np.cos(np.pi * np.arange(STEPS) / STEPS),
    "linear": 1 - 0.999 * np.arange(STEPS) / STEPS,
    "steps": 0.5 ** (np.arange(STEPS) // 400),
    "up and down": np.where(np.arange(STEPS) // 150 % 2, 0.3, 1.0),
    "cyclic": cyclic(STEPS),
    "walk": walk(STEPS),
    "warmup": np.minimum(1.0, (1 + np.arange(STEPS)) / 300),
}


def gain(rate, since):
    """With the powers of the published laws; the scale puts since / rate^0.65 where theirs is."""
    return 1 - (2.1 * rate**-0.65 * 0.06 * since + 1) ** -0.6


def as_it_stands(rates, at):
    falls, before = -np.diff(rates), np.concatenate([[0.0], np.cumsum(rates)])
    return np.array([np.sum(falls[:t] * gain(rates[1 : t + 1], before[t + 1] - before[1 : t + 1])) for t in at])


@pytest.mark.parametrize("name", SCHEDULES)
def test_sum_over_all_falls(name):
    """The rates are up to 1, so this is an error of 2.5e-4 of the largest: 3e-5 in the loss where B * peak is 0.13."""
    past = lr_decrements(SCHEDULES[name], AT)
    found = np.sum(past.fall * gain(np.where(past.fall == 0, 1.0, past.rate), past.since), axis=1)
    assert np.abs(found - as_it_stands(SCHEDULES[name], AT)).max() < 2.5e-4


@pytest.mark.parametrize("name", ["steps", "up and down"])
def test_single_steps_keep_their_place(name):
    past = lr_decrements(SCHEDULES[name], AT)
    found = np.sum(past.fall * gain(np.where(past.fall == 0, 1.0, past.rate), past.since), axis=1)
    assert found == pytest.approx(as_it_stands(SCHEDULES[name], AT), abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_groups_lose_no_fall(name):
    rates = SCHEDULES[name]
    assert lr_decrements(rates, AT).fall.sum(axis=1) == pytest.approx(rates[0] - rates[AT], abs=1e-12)


def test_the_latest_falls_are_taken_one_by_one():
    rates = SCHEDULES["cosine"]
    past = lr_decrements(rates, np.array([2999]))
    assert past.fall[0, :64] == pytest.approx(-np.diff(rates)[::-1][:64], abs=1e-15)
    assert past.rate[0, :64] == pytest.approx(rates[::-1][:64], rel=1e-9)
    assert past.since[0, :64] == pytest.approx(np.cumsum(rates[::-1])[:64], rel=1e-5)


def test_no_falls():
    past = lr_decrements(np.ones(10), np.arange(10))
    assert past.fall.shape == past.rate.shape == past.since.shape == (10, 0)


def test_no_updates_to_look_from():
    assert lr_decrements(SCHEDULES["cosine"], np.array([], int)).fall.shape[0] == 0


def test_memory_grows_with_the_logarithm():
    assert lr_decrements(np.linspace(1, 0.1, 100_000), np.arange(3)).fall.shape[1] < 64 + 32 * np.log(100_000)


@pytest.mark.parametrize(
    ("rates", "end"),
    [
        ([0.0, 0.1, 0.2, 0.2, 0.1], 2),
        ([0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.1, 0.3], 4),
        ([0.2, 0.2, 0.2], 0),
        ([0.2, 0.1, 0.3], 0),
        ([0.1, 0.2, 0.3], 2),
        ([0.1], 0),
    ],
)
def test_warmup_end(rates, end):
    assert warmup_end(np.array(rates)) == end


def test_counted():
    rates = np.array([0.0, 0.1, 0.2, 0.2, 0.1, 0.3])
    assert counted(rates, "full") is rates
    assert counted(rates, "sum").tolist() == [0.2, 0.2, 0.2, 0.2, 0.1, 0.3]
    assert counted(rates[3:], "sum").tolist() == [0.2, 0.1, 0.3]
