"""The behavior that all laws share, with one whose formula is a line: loss = 2 + the rate that was spent."""

import json
import warnings

import keras
import numpy as np
import pytest

from keras_lrsched.laws import (
    AnnealingLaw,
    ContinualLaw,
    ConvexBound,
    ExtrapolationWarning,
    FunctionalLaw,
    Law,
    LossCurve,
    MultiPowerLaw,
    SizedAnnealingLaw,
)
from keras_lrsched.laws.law import LAWS, finite_numbers
from keras_lrsched.schedules import LinearDecay


class SpentLaw(Law):
    parameters = ("level",)
    options = ("word",)

    def __init__(self, level=2.0, word="a"):
        super().__init__()
        finite_numbers(self, level=level)
        self.word = word

    def loss_at(self, learning_rate, at):
        return self.level + np.cumsum(learning_rate)[at]


LAW = SpentLaw()


def fitted(steps=10, learning_rate=1.0):
    law = SpentLaw()
    law.fitted = {"steps": steps, "learning_rate": learning_rate}
    return law


def test_predict_takes_a_schedule_a_number_or_rates():
    expected = [3.0, 3.75, 4.25, 4.5]
    assert LAW.predict(LinearDecay(1.0, 4), total_steps=4) == pytest.approx(expected)
    assert LAW.predict([1.0, 0.75, 0.5, 0.25]) == pytest.approx(expected)
    assert LAW.predict(np.array([1.0, 0.75, 0.5, 0.25]), total_steps=4) == pytest.approx(expected)
    assert LAW.predict(0.5, total_steps=2) == pytest.approx([2.5, 3.0])
    foreign = keras.optimizers.schedules.PolynomialDecay(1.0, 4, end_learning_rate=0.0)
    assert LAW.predict(foreign, total_steps=4) == pytest.approx(expected, rel=1e-6)


def test_predict_at():
    assert LAW.predict([1.0, 2.0, 3.0], at=[2, 0]) == pytest.approx([8.0, 3.0])
    assert LAW.predict([1.0, 2.0, 3.0], at=1) == pytest.approx([5.0])
    assert LAW.predict([1.0, 2.0, 3.0], at=np.array([2.0])) == pytest.approx([8.0])
    assert LAW.predict([1.0, 2.0, 3.0], at=[]).shape == (0,)
    assert LAW.final_loss([1.0, 2.0, 3.0]) == 8.0


@pytest.mark.parametrize(
    "rates", [[], [0.0, 0.0], [1.0, np.nan], [1.0, np.inf], [1.0, -0.1], [1.0, None], np.ones((2, 2)), "0.1", None, -1.0]
)
def test_bad_rates(rates):
    with pytest.raises(ValueError, match="Received: "):
        LAW.predict(rates, total_steps=None if np.ndim(rates) else 2)


def test_bad_rates_are_shown():
    with pytest.raises(ValueError, match="nan at update 700 of"):
        LAW.predict(np.where(np.arange(1000) == 700, np.nan, 1.0))


@pytest.mark.parametrize(
    ("rates", "steps"), [([1.0, 1.0], 3), (0.1, None), (0.1, 0), (0.1, 2.5), (LinearDecay(1.0, 4), None)]
)
def test_bad_steps(rates, steps):
    with pytest.raises(ValueError, match=f"Received: total_steps={steps}"):
        LAW.predict(rates, steps)


@pytest.mark.parametrize("at", [[2], [-1], [0.5], [np.nan], [np.inf], ["0"], [True, False], [[0], [1]], [None]])
def test_bad_at(at):
    with pytest.raises(ValueError, match=r"`at` must .*Received: at"):
        LAW.predict([1.0, 1.0], at=at)


def test_residuals():
    curve = LossCurve([3.0 * np.e, 5.0], [1.0, 1.0, 1.0], step=[0, 2])
    assert LAW.residuals(curve) == pytest.approx([1.0, 0.0])


def test_extrapolation_says_how_far():
    with pytest.warns(ExtrapolationWarning, match=r"updates 25 is 2.5 times the largest .* \(10\)"):
        fitted().predict(0.5, total_steps=25)
    with pytest.warns(ExtrapolationWarning, match=r"peak learning rate 3 is 3 times the largest .* \(1\)"):
        fitted().final_loss([3.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted().predict(1.0, total_steps=10)
        LAW.predict(100.0, total_steps=1000)  # made from numbers: nobody knows where it holds


def test_losses_below_0_are_named():
    with pytest.warns(ExtrapolationWarning, match=r"SpentLaw predicts losses below 0, down to -2 at update 0: the run"):
        assert SpentLaw(level=-3.0).predict([1.0, 1.0]) == pytest.approx([-2.0, -1.0])


def test_residuals_of_losses_below_0_are_infinite():
    with pytest.warns(ExtrapolationWarning, match="below 0"):
        assert SpentLaw(level=-3.0).residuals(LossCurve([1.0, 1.0], [1.0, 3.0])).tolist() == [np.inf, 0.0]


EVERY_LAW = [
    AnnealingLaw(2.6, 0.6, 0.45, 0.4, decay=0.99, warmup="sum"),
    ContinualLaw.published("target", S1pt=4.0, S2pt=0.25),
    ConvexBound(1.5, [1.0, 2.0, 3.0], 0.25),
    FunctionalLaw(2.0, 0.8, 0.6, 3.0, 0.5, 20.0, 0.7, warmup="sum"),
    MultiPowerLaw(2.0, 0.5, 0.4, 300.0, 2.0, 0.6, 0.6, warmup="sum"),
    SizedAnnealingLaw(1.8, 0.4, 0.45, 0.5, 120.0, 0.3, 1e8, decay=0.99, warmup="sum"),
]


@pytest.mark.parametrize("law", EVERY_LAW, ids=lambda law: type(law).__name__)
def test_save_and_load(law, tmp_path):
    law.fitted = {"steps": 300, "learning_rate": 1e-3}
    law.save(tmp_path / "law.json")
    for kind in (Law, type(law)):
        loaded = kind.load(tmp_path / "law.json")
        assert type(loaded) is type(law)
        assert {name: getattr(loaded, name) for name in (*law.parameters, *law.options)} == {
            name: getattr(law, name) for name in (*law.parameters, *law.options)
        }
        assert loaded.fitted == law.fitted
        assert loaded.predict([1e-3, 1e-3, 5e-4]) == pytest.approx(law.predict([1e-3, 1e-3, 5e-4]), rel=1e-15)


def test_every_law_is_here():
    ours = {name for name, kind in LAWS.items() if kind.__module__.startswith("keras_lrsched")}
    assert ours == {type(law).__name__ for law in EVERY_LAW}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        "{}",
        '{"law": "SpentLaw"}',
        '{"law": "NoSuchLaw", "fitted": {}}',
        '{"law": ["SpentLaw"], "fitted": {}}',
        '{"law": "SpentLaw", "fitted": 3}',
        '{"law": "SpentLaw", "fitted": {"steps": 10}}',
        '{"law": "SpentLaw", "fitted": {"steps": 10, "learning_rate": -1}}',
        '{"law": "SpentLaw", "fitted": {}, "level": NaN}',
        '{"law": "SpentLaw", "fitted": {}, "level": 1e999}',
        '{"law": "SpentLaw", "fitted": {}, "level": "2"}',
        '{"law": "SpentLaw", "fitted": {}, "level": true}',
        '{"law": "SpentLaw", "fitted": {}, "level": [2]}',
        '{"law": "SpentLaw", "fitted": {}, "slope": 2}',
        pytest.param('{"law": "SpentLaw", "fitted": {}, "level": 1' + 400 * "0" + "}", id="huge"),
        pytest.param('{"law": "SpentLaw", "fitted": {}, "level": 1' + 5000 * "0" + "}", id="too many digits"),
        pytest.param(100_000 * "[", id="nested"),
        pytest.param('{"law": ' + 100_000 * '{"law": ', id="nested laws"),
    ],
)
def test_files_without_a_law(text, tmp_path):
    (tmp_path / "law.json").write_text(text)
    with pytest.raises(ValueError, match=r"holds no law.*law\.json"):
        Law.load(tmp_path / "law.json")


def test_a_binary_file(tmp_path):
    (tmp_path / "law.json").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="holds no law"):
        Law.load(tmp_path / "law.json")


def test_a_file_of_another_law(tmp_path):
    LAW.save(tmp_path / "law.json")
    with pytest.raises(ValueError, match=r"must hold a MultiPowerLaw. Received: .*law\.json' with a SpentLaw"):
        MultiPowerLaw.load(tmp_path / "law.json")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Law.load(tmp_path / "law.json")


def test_the_file_is_plain_json(tmp_path):
    fitted().save(tmp_path / "law.json")
    assert json.loads((tmp_path / "law.json").read_text()) == {
        "law": "SpentLaw",
        "fitted": {"steps": 10, "learning_rate": 1.0},
        "level": 2.0,
        "word": "a",
    }


def test_plot():
    plt = pytest.importorskip("matplotlib.pyplot")
    curve = LossCurve([3.5, 4.5], [1.0, 1.0, 1.0], step=[0, 2])
    axes = LAW.plot([1.0, 2.0, 3.0], curve=curve)
    measured, predicted = axes.get_lines()
    assert measured.get_xydata().tolist() == [[0, 3.5], [2, 4.5]]
    assert predicted.get_xydata().tolist() == [[0, 3], [1, 5], [2, 8]]
    assert LAW.plot(0.1, total_steps=1000, ax=axes) is axes
    assert len(axes.get_lines()[-1].get_xdata()) == 500
    plt.close("all")


def test_plot_shows_what_comes_after_the_first_losses():
    plt = pytest.importorskip("matplotlib.pyplot")
    axes = AnnealingLaw(2.6, 0.5, 0.45, 0.4).plot(3e-4, total_steps=20000)
    assert axes.get_lines()[0].get_ydata().max() > 20
    assert axes.get_ylim()[1] < 5
    plt.close("all")


def test_repr():
    assert repr(LAW) == "SpentLaw(level=2)"
