"""The convex bound: the numbers of the official code (fabian-sp/lr-scheduling, which was run), and the sum as it stands.

The official schedules have T + 1 values, of which the last, the floor, is not used. Their first T are ours: constant,
`LinearDecay(1, T)` (official: cooldown over all), `CosineDecay(1, T)`, and `WarmupStableDecay(1, 0, T - D, D)` with
D = int(c * (T + 1)), at most T. Their cooldown counts from 1 but begins a step later, after T + 1 - D constant values.
"""

import math

import keras
import numpy as np
import pytest
from scipy.optimize import minimize

from keras_lrsched.laws.convex_bound import ConvexBound
from keras_lrsched.laws.law import ExtrapolationWarning, Law
from keras_lrsched.laws.loss_curve import LossCurve
from keras_lrsched.schedules import Constant, LinearDecay, Tabulated, WarmupStableDecay

LAW = ConvexBound(distance=1.0, gradient_norm=1.0)


def wsd(steps, fraction=0.2, cooldown="linear"):
    decay_steps = min(int(fraction * (steps + 1)), steps)
    return WarmupStableDecay(1.0, 0, steps - decay_steps, decay_steps, cooldown=cooldown)


def cosine(steps):
    return keras.optimizers.schedules.CosineDecay(1.0, steps)


def linear(steps):
    return LinearDecay(1.0, steps)


def split(rates, norms, distance):
    """T1, T2a and T2b as the paper has them."""
    noise, last = (rates * norms) ** 2, len(rates)
    third = sum(rates[k] / rates[k + 1 :].sum() * noise[k:].sum() / rates[k:].sum() for k in range(last - 1))
    return distance**2 / (2 * rates.sum()), noise.sum() / (2 * rates.sum()), third / 2


def random_run(steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.001, 1, steps), rng.uniform(0.5, 3, steps)


@pytest.mark.parametrize(
    ("schedule", "steps", "learning_rate", "bound"),
    [
        (lambda steps: Constant(1.0), 100, 0.0402344, 0.248543),
        (wsd, 100, 0.0495442, 0.223028),
        (lambda steps: wsd(steps, cooldown="one_minus_sqrt"), 100, 0.0524268, 0.218713),
        (linear, 100, 0.0972552, 0.203608),
        (cosine, 100, 0.0946945, 0.209114),
        (lambda steps: Constant(1.0), 400, 0.0181759, 0.137545),
        (wsd, 400, 0.0253737, 0.109323),
        (lambda steps: wsd(steps, cooldown="one_minus_sqrt"), 400, 0.0268461, 0.107288),
        (linear, 400, 0.0495631, 0.10063),
        (cosine, 400, 0.0482419, 0.103386),
        (lambda steps: Constant(1.0), 4000, 0.00503253, 0.0496768),
        (wsd, 4000, 0.00811829, 0.0342115),
        (linear, 4000, 0.0157929, 0.0316519),
        (lambda steps: Tabulated(0.5 + 0.5 * np.cos(np.pi * np.arange(steps) / steps)), 4000, 0.0153402, 0.0325859),
    ],
)
def test_official_optimal_rates(schedule, steps, learning_rate, bound):
    best = LAW.optimal_rate(schedule(steps), steps)
    assert best.learning_rate == pytest.approx(learning_rate, rel=5e-6)
    assert best.bound == pytest.approx(bound, rel=5e-6)


def test_no_other_rate_is_better():
    best, rates = LAW.optimal_rate(wsd(100), 100), wsd(100).values(100)
    assert LAW.bound(best.learning_rate * rates) == pytest.approx(best.bound, rel=1e-12)
    assert LAW.bound(1.01 * best.learning_rate * rates) > best.bound
    assert LAW.bound(0.99 * best.learning_rate * rates) > best.bound


@pytest.mark.parametrize(
    ("schedule", "expected"), [(wsd, (0.00138696, 0.48151, 1.67275)), (linear, (0.00249377, 0.33375, 0.681419))]
)
def test_official_split(schedule, expected):
    """T2a and T2b, which the law adds up in one."""
    rates = schedule(400).values(400)
    assert split(rates, np.ones(400), 1.0) == pytest.approx(expected, rel=5e-6)
    assert LAW._terms(rates) == pytest.approx((expected[0], expected[1] + expected[2]), rel=5e-6)


def test_constant():
    steps, rate, distance, norm = 50, 0.03, 2.0, 1.7
    harmonic = sum(1 / k for k in range(1, steps))
    expected = distance**2 / (2 * rate * steps) + rate * norm**2 / 2 * (1 + harmonic)
    assert ConvexBound(distance, norm).bound(rate, steps) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("steps", [1, 2, 3, 37, 255, 256, 257, 700])
def test_equals_the_sum_as_it_stands(steps):
    rates, norms = random_run(steps)
    law = ConvexBound(1.3, norms)
    assert law.bound(rates) == pytest.approx(sum(split(rates, norms, 1.3)), rel=1e-12)
    curve = law.predict(rates)
    for t in {1, 2, steps // 2, steps - 1, steps} - {0}:
        if t <= steps:
            assert curve[t - 1] == pytest.approx(sum(split(rates[:t], norms[:t], 1.3)), rel=1e-11)


def test_long_run():
    """At the end of a cosine the rate is 2e-10 of its peak: a difference of sums from the start would have lost it."""
    steps = 100_000
    rates = 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps))
    curve = LAW.predict(rates)
    assert curve.shape == (steps,)
    for t in (1, 300, 50_000, steps - 1, steps):
        assert curve[t - 1] == pytest.approx(LAW.bound(rates[:t]), rel=1e-11)
    left = np.cumsum(rates[::-1], dtype=np.longdouble)[::-1]
    expected = (1 / left[0] + rates[-1] + np.sum(rates[:-1] ** 2 / left[1:])) / 2
    assert LAW.bound(rates) == pytest.approx(float(expected), rel=1e-12)


def test_updates_with_rate_0_change_nothing():
    rates, norms = random_run(40)
    rates[[0, 1, 9, 20, 38, 39]] = 0
    law, bare = ConvexBound(2.0, norms), ConvexBound(2.0, norms[rates > 0])
    assert law.bound(rates) == bare.bound(rates[rates > 0])
    curve, expected = law.predict(rates), bare.predict(rates[rates > 0])
    np.testing.assert_array_equal(curve[rates > 0], expected)
    np.testing.assert_array_equal(curve[[0, 1, 9, 39]], [expected[0], expected[0], curve[8], curve[37]])
    assert law.optimal_rate(rates) == bare.optimal_rate(rates[rates > 0])


def test_predict_adds_the_offset():
    law = ConvexBound(2.0, 0.5, offset=2.5)
    rates = LinearDecay(0.1, 30)
    assert law.predict(rates, 30)[-1] == pytest.approx(2.5 + law.bound(rates, 30), rel=1e-14)
    assert law.final_loss(rates, 30) == pytest.approx(2.5 + law.bound(rates, 30), rel=1e-14)
    np.testing.assert_array_equal(law.predict(rates, 30, at=[3, 29]), law.predict(rates, 30)[[3, 29]])


@pytest.mark.parametrize(
    ("fraction", "steps", "expected"),
    [
        (0.1, 400, 0.783984),
        (0.2, 400, 0.669536),
        (0.5, 400, 0.422288),
        (0.1, 25600, 0.773902),
        (0.2, 25600, 0.664724),
        (0.5, 25600, 0.42167),
    ],
)
def test_official_transfer_across_cooldowns(fraction, steps, expected):
    factor = LAW.transfer_rate(1.0, wsd(steps, fraction), steps, linear(steps), steps)
    assert math.log(factor) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("times", "expected"), [(1.5, 0.817), (2, 0.708), (4, 0.501)])
def test_official_transfer_across_horizons(times, expected):
    steps = int(4000 * times)
    assert LAW.transfer_rate(0.3, wsd(4000), 4000, wsd(steps), steps) == pytest.approx(0.3 * expected, abs=0.3 * 6e-4)


@pytest.mark.parametrize(("times", "cooldown", "factor"), [(1.5, 0.4375, 0.625), (2, 0.634375, 0.525), (4, 1.0, 0.375)])
def test_official_extensions(times, cooldown, factor):
    """The official script picks the nearest of 33 trials; we find the number between them."""
    steps, target = int(4000 * times), LAW.optimal_rate(wsd(4000), 4000).learning_rate

    def nearest(trials, rates):
        return min(trials, key=lambda trial: abs(LAW.optimal_rate(rates(trial)).learning_rate - target))

    def lowered(trial):
        decay_steps = int(0.2 * (steps + 1))
        decay = 1 - np.arange(1, decay_steps + 1) / decay_steps
        plateau = np.where(np.arange(steps + 1 - decay_steps) < 3200, 1.0, trial)
        return np.append(plateau, trial * decay)[:steps]

    trials = np.linspace(0.1, 1, 33)
    assert nearest(trials, lambda trial: wsd(steps, trial).values(steps)) == pytest.approx(cooldown, abs=1e-9)
    assert nearest(np.linspace(0.2, 1, 33), lowered) == pytest.approx(factor, abs=1e-9)
    found = LAW.lower_plateau(4000, steps)
    assert found == pytest.approx(factor, abs=0.0125)
    assert LAW.optimal_rate(lowered(found)).learning_rate == pytest.approx(target, rel=1e-3)
    if times < 4:
        found = LAW.longer_cooldown(4000, steps)
        assert found == pytest.approx(cooldown, abs=0.015)
        assert LAW.optimal_rate(wsd(steps, found), steps).learning_rate == pytest.approx(target, rel=1e-3)


def test_no_cooldown_is_long_enough():
    with pytest.raises(ValueError, match=r"allows 0\.9735 of it.*total_steps=4000, new_total_steps=16000"):
        LAW.longer_cooldown(4000, 16000)
    assert LAW.longer_cooldown(4000, 16000, profile="one_minus_sqrt") < 0.82


@pytest.mark.parametrize("distance", [1.0, 5.0])
@pytest.mark.parametrize("equal", [True, False])
def test_optimize_finds_what_a_numeric_search_finds(distance, equal):
    steps = 12
    norms = np.ones(steps) if equal else random_run(steps)[1]
    law = ConvexBound(distance, norms)
    found = law.optimize(steps)
    assert isinstance(found, Tabulated)
    start = np.log(np.full(steps, distance / steps**0.5))
    search = minimize(lambda x: law.bound(np.exp(x)), start, method="BFGS", options={"gtol": 1e-8})
    assert law.bound(found, steps) == pytest.approx(search.fun, rel=1e-9)
    np.testing.assert_allclose(found.values(steps), np.exp(search.x), rtol=1e-3)
    assert law.optimal_rate(found, steps).learning_rate == pytest.approx(1)


@pytest.mark.parametrize("steps", [100, 400, 4000])
def test_optimum_is_close_to_linear_decay(steps):
    best = LAW.optimize(steps)
    bound, line = LAW.bound(best, steps), LAW.optimal_rate(linear(steps), steps).bound
    assert 0.98 * line < bound < line
    shape = best.values(steps) / best.values(1)
    np.testing.assert_allclose(shape, linear(steps).values(steps), atol=9 / steps)
    assert np.all(np.diff(shape[:-1]) < 0)


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("part", [0.01, 0.3, 0.9])
def test_best_below_a_peak(part, warmup):
    """Against a search over all schedules that do not exceed it."""
    steps = 14
    peak = part * LAW.optimize(steps).values(1)[0]
    found = LAW.optimize(steps, peak_learning_rate=peak, warmup_steps=warmup).values(steps)
    assert found.max() == pytest.approx(peak)
    start = peak * np.arange(warmup) / max(warmup, 1)
    np.testing.assert_allclose(found[:warmup], start)
    search = minimize(
        lambda x: LAW.bound(np.append(start, peak * x)), np.full(steps - warmup, 0.5), bounds=[(1e-6, 1)] * (steps - warmup)
    )
    assert LAW.bound(found) <= search.fun * (1 + 1e-6)


def test_a_peak_above_the_best_rate_is_not_reached():
    free = LAW.optimize(50)
    capped = LAW.optimize(50, peak_learning_rate=3 * free.values(1)[0])
    np.testing.assert_allclose(capped.values(50), free.values(50), rtol=1e-4)


def test_low_peak_is_held_then_decays_linearly():
    steps = 2000
    found = ConvexBound(1.5, 3.4).optimize(steps, peak_learning_rate=0.005).values(steps)
    held = int(np.sum(found == 0.005))
    assert 0.4 * steps < held < 0.8 * steps
    line = 0.005 * (1 - np.arange(steps - held) / (steps - held))
    np.testing.assert_allclose(found[held:], line, atol=0.02 * 0.005)


def curves_of(law, steps=300):
    schedules = {"constant": Constant(0.02), "linear": LinearDecay(0.03, steps)}
    return [
        LossCurve(law.predict(schedule, steps), schedule.values(steps), name=name) for name, schedule in schedules.items()
    ]


def test_fit_recovers_the_law():
    truth = ConvexBound(1.5, 2.5, offset=3.0)
    law = ConvexBound.fit(curves_of(truth), points=1000)
    assert (law.distance, law.gradient_norm, law.offset) == pytest.approx((1.5, 2.5, 3.0), rel=1e-9)
    assert np.abs(law.residuals(curves_of(truth)[0])).max() < 1e-12
    assert law.fitted == {"steps": 300, "learning_rate": 0.03}
    coarse = ConvexBound.fit(iter(curves_of(truth)), points=50)
    unseen = wsd(300) * 0.025
    assert coarse.final_loss(unseen, 300) == pytest.approx(truth.final_loss(unseen, 300), rel=1e-3)
    with pytest.warns(ExtrapolationWarning, match="updates 600 is 2 times"):
        law.predict(unseen, 600)


def test_fit_takes_one_curve():
    curve = curves_of(ConvexBound(1.5, 2.5, offset=3.0))[0]
    assert repr(ConvexBound.fit(curve)) == repr(ConvexBound.fit([curve]))


def test_optimize_warns_of_extrapolation():
    law = ConvexBound.fit(curves_of(ConvexBound(1.5, 2.5, offset=3.0)))
    with pytest.warns(ExtrapolationWarning, match="updates 3000 is 10 times"):
        law.optimize(3000, peak_learning_rate=0.02)


def test_fit_with_noise_and_skipped_points():
    truth, rng = ConvexBound(1.5, 2.5, offset=3.0), np.random.default_rng(0)
    noisy = [LossCurve(c.loss * np.exp(rng.normal(0, 0.02, len(c.loss))), c.rates) for c in curves_of(truth)]
    law, unseen = ConvexBound.fit(noisy), wsd(300) * 0.025
    assert law.final_loss(unseen, 300) == pytest.approx(truth.final_loss(unseen, 300), rel=1e-2)
    spoilt = [LossCurve(np.append(np.full(90, 50.0), c.loss[90:]), c.rates) for c in noisy]
    assert repr(ConvexBound.fit(spoilt, skip=0.3)) == repr(law)
    assert repr(ConvexBound.fit(spoilt, skip=0.29)) != repr(law)


def test_fit_raises():
    with pytest.raises(ValueError, match=r"at least one.*Received: curves=\[\]"):
        ConvexBound.fit([])
    with pytest.raises(ValueError, match=r"LossCurve.read.*Received: curves=\['a.csv'\]"):
        ConvexBound.fit(["a.csv"])
    with pytest.raises(ValueError, match=r"three or more points after warmup\. Received: 1"):
        ConvexBound.fit([LossCurve(np.ones(5), np.linspace(0.1, 1, 5))])
    rising = LossCurve(1 + np.arange(100.0), np.full(100, 0.1))
    with pytest.raises(ValueError, match=r"do not fall as a convex problem's.*Received: .*distance\^2 of 0 "):
        ConvexBound.fit([rising])
    for bad in ({"skip": -0.1}, {"points": 0}):
        with pytest.raises(ValueError, match="Received: "):
            ConvexBound.fit(curves_of(LAW), **bad)


@pytest.mark.parametrize("norm", [1.5, [1.0, 2.0, 3.0]])
def test_save_and_load(tmp_path, norm):
    law = ConvexBound(2.0, np.array(norm) if np.ndim(norm) else norm, offset=1.25)
    law.save(tmp_path / "law.json")
    again = Law.load(tmp_path / "law.json")
    assert isinstance(again, ConvexBound)
    assert (again.distance, again.gradient_norm, again.offset) == (2.0, norm, 1.25)
    assert again.bound([0.1, 0.2, 0.3]) == law.bound([0.1, 0.2, 0.3])
    assert repr(again) == f"ConvexBound(distance=2, gradient_norm={norm}, offset=1.25)"


def test_plot():
    pytest.importorskip("matplotlib").use("Agg")
    ax = LAW.plot(LinearDecay(0.1, 50), 50, curve=curves_of(LAW, 50)[0])
    assert len(ax.lines) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"distance": 0},
        {"distance": math.nan},
        {"gradient_norm": 0},
        {"gradient_norm": [1.0, 0.0]},
        {"gradient_norm": [1.0, math.inf]},
        {"gradient_norm": "many"},
        {"offset": -1},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="Received: "):
        ConvexBound(**arguments)


@pytest.mark.parametrize("rates", [[0.1, math.nan], [0.1, -0.1], [0.0, 0.0], [0.1, math.inf], []])
@pytest.mark.parametrize("method", ["bound", "optimal_rate", "predict"])
def test_bad_rates(method, rates):
    with pytest.raises(ValueError, match="Received: "):
        getattr(LAW, method)(rates)


@pytest.mark.parametrize("method", ["bound", "optimal_rate", "predict"])
def test_gradient_norms_of_another_run(method):
    law = ConvexBound(1.0, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="gradient_norm with 3 numbers, total_steps=4"):
        getattr(law, method)(Constant(0.1), 4)
    with pytest.raises(ValueError, match="gradient_norm with 3 numbers, total_steps=4"):
        law.optimize(4)


@pytest.mark.parametrize("method", ["bound", "optimal_rate", "predict"])
@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_a_bound_beyond_floats(method):
    with pytest.raises(ValueError, match="too far below the others"):
        getattr(LAW, method)([1.0, 1e-310])


@pytest.mark.parametrize(
    "call",
    [
        lambda: LAW.optimize(0),
        lambda: LAW.optimize(10, peak_learning_rate=0.0),
        lambda: LAW.optimize(10, warmup_steps=10),
        lambda: LAW.transfer_rate(0.0, Constant(1.0), 5, Constant(1.0), 5),
        lambda: LAW.longer_cooldown(10, 10),
        lambda: LAW.longer_cooldown(10, 20, cooldown_fraction=0.0),
        lambda: LAW.lower_plateau(20, 10),
        lambda: LAW.lower_plateau(10, 20, profile="square_root"),
        lambda: LAW.bound(Constant(0.1)),
    ],
)
def test_bad_calls(call):
    with pytest.raises(ValueError, match="Received: "):
        call()
