"""AdEMAMix, ADOPT, Adan, LaProp and AdaBelief: what the reference runs do not show."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import ADOPT, AdaBelief, Adan, AdEMAMix, LaProp, SimplifiedAdEMAMix
from keras_lrsched.optimizers._ademamix import log_of_rate, moved
from keras_lrsched.schedules import LinearDecay


def run(optimizer, gradients, start=(1.0, -1.0)):
    """The weights after each update."""
    w, history = keras.Variable(np.array(start, "float32")), []
    for g in gradients:
        optimizer.apply([ops.convert_to_tensor(np.array(g, "float32"))], [w])
        history.append(np.array(ops.convert_to_numpy(w)))
    return history


def half_life(rate):
    return math.log(0.5) / math.log(rate)


@pytest.mark.parametrize("t", [1, 500, 999, 1000, 5000])
def test_half_life_rises_in_a_line(t):
    rate = math.exp(float(ops.convert_to_numpy(log_of_rate(0.9, 0.9999, ops.convert_to_tensor(float(t)), 1000))))
    share = min(t / 1000, 1.0)
    expected = (1 - share) * half_life(0.9) + share * half_life(0.9999)
    assert half_life(rate) == pytest.approx(expected, rel=1e-3)  # 1e-8 is added to the rates in the logarithms


def test_slow_mean_keeps_its_digits():
    """1 - 0.9999 as a difference in float32 has three correct ones."""
    for log in (math.log(0.9999), ops.convert_to_tensor(math.log(0.9999))):
        new = moved(ops.convert_to_tensor(0.0), ops.convert_to_tensor(1.0), log)
        assert float(ops.convert_to_numpy(new)) == pytest.approx(1e-4, rel=1e-6)


def test_simplified_ademamix_with_a_warmup():
    """m is a sum with a decay rate that changes; in NumPy with float64."""
    optimizer = SimplifiedAdEMAMix(0.01, beta_1=0.99, alpha=3.0, beta_1_warmup=5, min_beta_1=0.5)
    rng, m, v, w = np.random.default_rng(0), np.zeros(2), np.zeros(2), np.array([1.0, -1.0])
    gradients = rng.normal(size=(8, 2))
    history = run(optimizer, gradients)
    for t, (g, mine) in enumerate(zip(gradients, history, strict=True), start=1):
        share = min(t / 5, 1.0)
        beta = 0.5 ** (1 / ((1 - share) * half_life(0.5) + share * half_life(0.99)))
        m, v = beta * m + g, 0.95 * v + 0.05 * g**2
        w = w - 0.01 * (m + 3.0 * g) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
        np.testing.assert_allclose(mine, w, rtol=1e-5)


def test_ademamix_without_a_fast_mean_has_no_state_for_it():
    optimizer = AdEMAMix(0.01, beta_1=0.0)
    optimizer.build([keras.Variable(np.zeros((10, 10)), dtype="float32")])
    assert optimizer.state_bytes_per_parameter() == 8


def test_adopt_starts_an_entry_with_its_first_gradient():
    """It is not divided by epsilon, whenever it comes; the decay starts with the second update."""
    late = run(ADOPT(0.1, beta_1=0.0, clip_exponent=None), [[1.0, 0.0], [1.0, 0.0], [1.0, 3.0], [1.0, 3.0]])
    np.testing.assert_allclose(late[2], [0.8, -1.0], rtol=1e-6)
    np.testing.assert_allclose(late[3], [0.7, -1.1], rtol=1e-6)
    decayed = run(ADOPT(0.1, weight_decay=0.5), [[0.0, 0.0]] * 2)
    np.testing.assert_allclose(decayed, [[1.0, -1.0], [0.95, -0.95]], rtol=1e-6)


def test_adopt_clips():
    """A gradient 1000 times the one before it counts as (t - 1)^0.25 of them."""
    history = run(ADOPT(0.1, beta_1=0.0), [[1.0, 1.0], [1e3, 1.0], [1.0, 1e3]])
    np.testing.assert_allclose(history[1], [0.9, -1.1], rtol=1e-6)
    np.testing.assert_allclose(history[2][1], -1.1 - 0.1 * 2**0.25, rtol=1e-5)


def test_adan_with_both_kinds_of_decay():
    proximal, plain = (run(Adan(0.1, weight_decay=0.5, no_prox=no_prox), [[1.0, 1.0]])[0] for no_prox in (False, True))
    np.testing.assert_allclose(proximal, [0.9 / 1.05, -1.1 / 1.05], rtol=1e-6)
    np.testing.assert_allclose(plain, [0.95 - 0.1, -0.95 - 0.1], rtol=1e-6)


def test_laprop_follows_its_learning_rate():
    """Each normalized gradient keeps the learning rate of its update; in NumPy with float64."""
    schedule, gradients = LinearDecay(0.1, 4), np.random.default_rng(1).normal(size=(6, 2))
    history = run(LaProp(schedule, weight_decay=0.5), gradients)
    m, v, mean, w = np.zeros(2), np.zeros(2), 0.0, np.array([1.0, -1.0])
    for t, (g, mine) in enumerate(zip(gradients, history, strict=True), start=1):
        rate = 0.1 * max(0.0, 1 - (t - 1) / 4)
        v = 0.999 * v + 0.001 * g**2
        m = 0.9 * m + 0.1 * rate * g / np.sqrt(v / (1 - 0.999**t))
        mean = 0.9 * mean + 0.1 * rate
        w = (1 - rate * 0.5) * (w - m * rate / mean)
        np.testing.assert_allclose(mine, w, rtol=1e-5)
    np.testing.assert_array_equal(history[4], history[5])  # where the learning rate is 0


def test_adabelief_rectifies_by_the_factor_of_radam():
    gradients = [[1.0, -1.0], [-1.0, 1.0]] * 10
    steps = AdaBelief(0.01, beta_2=0.9, beta_1=0.5), AdaBelief(0.01, beta_2=0.9, beta_1=0.5, rectify=False)
    rectified, plain = (run(optimizer, gradients) for optimizer in steps)
    r = np.abs(np.diff(rectified, axis=0))[10] / np.abs(np.diff(plain, axis=0))[10]
    n = 19 - 2 * 12 * 0.9**12 / (1 - 0.9**12)
    np.testing.assert_allclose(r, math.sqrt((n - 4) * (n - 2) * 19 / (15 * 17 * n)), rtol=1e-4)
