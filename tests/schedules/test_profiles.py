"""Every profile: the numbers of its paper, its ends, its precision in float32, what it refuses."""

import json
import math

import keras
import numpy as np
import pytest

from keras_lrsched.schedules import ProfileDecay, profiles

FAMILY_MEMBERS = [
    profiles.polynomial(2),
    profiles.polynomial(0.3),
    profiles.exponential(0.01),
    profiles.exponential_to_zero(),
    profiles.exponential_to_zero(0.001),
    profiles.inverse_power(0.01, 0.3),
    profiles.inverse_proportional(0.1),
    profiles.inverse_sqrt(0.001),
    profiles.lowered_linear(),
    profiles.lowered_linear(1.0),
    profiles.rex(),
    profiles.rex(0.1, 0.9),
    profiles.uba(0.25),
    profiles.uba(10),
]
PLAIN = [profiles.get(name) for name in profiles.names() if isinstance(getattr(profiles, name), profiles.Profile)]
every_profile = pytest.mark.parametrize("profile", PLAIN + FAMILY_MEMBERS, ids=repr)

# x = 0, .1, .25, .5, .75, .9, 1, to six digits.
PUBLISHED = {
    "linear": (1, 0.9, 0.75, 0.5, 0.25, 0.1, 0),
    "cosine": (1, 0.975528, 0.853553, 0.5, 0.146447, 0.0244717, 0),
    "mirror_cosine": (1, 0.824472, 0.646447, 0.5, 0.353553, 0.175528, 0),
    "square": (1, 0.99, 0.9375, 0.75, 0.4375, 0.19, 0),
    "one_minus_sqrt": (1, 0.683772, 0.5, 0.292893, 0.133975, 0.0513167, 0),
    "exponential(floor=0.01)": (1, 0.630957, 0.316228, 0.1, 0.0316228, 0.0158489, 0.01),
    "exponential_to_zero(floor=0.5)": (1, 0.866066, 0.681793, 0.414214, 0.189207, 0.0717735, 0),
    "inverse_proportional(floor=0.1)": (1, 0.526316, 0.307692, 0.181818, 0.129032, None, 0.1),
    "inverse_proportional(floor=0.01)": (1, 0.0917431, None, 0.019802, None, None, 0.01),
    "inverse_sqrt(floor=0.55)": (1, None, 0.796453, 0.681537, 0.605300, None, 0.55),  # spec 5, over 3e-4
    "inverse_power(floor=0.1, power=1)": (1, 0.526316, 0.307692, 0.181818, 0.129032, None, 0.1),
    "lowered_linear(level=0.7)": (0.7, 0.63, 0.525, 0.35, 0.175, 0.07, 0),
    "rex(a=0.5, b=0.5)": (1, 0.947368, 0.857143, 0.666667, 0.4, 0.181818, 0),
    "rex(a=0.1, b=0.9)": (1, 0.989011, 0.967742, 0.909091, 0.769231, 0.526316, 0),
    "uba(phi=0.5)": (1, None, 0.958871, 0.8, 0.406983, 0.0911921, 0),
    "uba(phi=2.0)": (1, None, 0.853553, 0.5, 0.146447, 0.0244717, 0),
}
# Means over x in [0, 1], to five digits.
MEANS = {
    "linear": 0.5,
    "cosine": 0.5,
    "mirror_cosine": 0.5,
    "square": 0.66667,
    "one_minus_sqrt": 0.33333,
    "lowered_linear(level=0.7)": 0.35,
    "inverse_proportional(floor=0.1)": 0.25584,
    "rex(a=0.5, b=0.5)": 0.61371,
    "rex(a=0.1, b=0.9)": 0.82684,
    "uba(phi=1.0)": 0.58579,
    "uba(phi=0.5)": 0.66667,
}


def written(text):
    return eval(text, vars(profiles))


@pytest.mark.parametrize("text", PUBLISHED)
def test_published_values(text):
    for x, value in zip((0, 0.1, 0.25, 0.5, 0.75, 0.9, 1), PUBLISHED[text], strict=True):
        if value is not None:
            assert written(text)(x) == pytest.approx(value, rel=5e-6, abs=1e-15)


@pytest.mark.parametrize("text", MEANS)
def test_published_means(text):
    middles = (np.arange(100_000) + 0.5) / 100_000
    assert np.mean(written(text)(middles)) == pytest.approx(MEANS[text], abs=6e-6)


@every_profile
def test_shape(profile):
    values = profile(np.linspace(0, 1, 1001))
    start = profile.parameters.get("level", 1.0)  # `lowered_linear` drops at once
    assert values[0] == pytest.approx(start, rel=1e-12)
    assert values[-1] == pytest.approx(profile.end, rel=1e-12, abs=1e-15)
    assert np.all(np.diff(values) < 0)


@every_profile
def test_config(profile):
    again = profiles.get(json.loads(json.dumps(profile.get_config())))
    assert again == profile
    assert repr(again) == repr(profile)
    assert written(repr(profile)) == profile
    assert profiles.get(profile) is profile
    x = np.linspace(0, 1, 11)
    np.testing.assert_array_equal(again(x), profile(x))


@every_profile
def test_float32_keeps_the_last_digits(profile):
    """As a schedule calls it: with what is left counted, not subtracted from 1."""
    left = np.array([2.0**-n for n in range(25)])
    exact = profile.shape(1 - left, left, np)
    tensors = [keras.ops.convert_to_tensor(part, "float32") for part in (1 - left, left)]
    values = keras.ops.convert_to_numpy(profile.shape(*tensors, keras.ops))
    assert values.dtype == "float32"
    np.testing.assert_allclose(values, exact, rtol=3e-6)


@every_profile
def test_tensor(profile):
    x = np.linspace(0, 1, 9)
    values = keras.ops.convert_to_numpy(profile(keras.ops.convert_to_tensor(x, "float32")))
    np.testing.assert_allclose(values, profile(x), rtol=3e-6, atol=1e-6)


def test_half_cosine_at_the_end_of_a_long_decay():
    """(1 + cos(pi x)) / 2 in float32 is 0 there, all digits lost."""
    left = keras.ops.convert_to_tensor(1e-5, "float32")
    assert float(profiles.cosine.shape(1 - left, left, keras.ops)) == pytest.approx((math.pi / 2 * 1e-5) ** 2, rel=1e-6)


@pytest.mark.parametrize("number", [0, -1, math.nan, math.inf, "fast", None, True])
@pytest.mark.parametrize(
    "family",
    [
        lambda bad: profiles.polynomial(bad),
        lambda bad: profiles.exponential(bad),
        lambda bad: profiles.exponential_to_zero(bad),
        lambda bad: profiles.inverse_proportional(bad),
        lambda bad: profiles.inverse_power(bad, 0.5),
        lambda bad: profiles.inverse_power(0.1, bad),
        lambda bad: profiles.inverse_sqrt(bad),
        lambda bad: profiles.lowered_linear(bad),
        lambda bad: profiles.rex(bad, 0.5),
        lambda bad: profiles.rex(0.5, bad),
        lambda bad: profiles.uba(bad),
    ],
)
def test_bad_parameter(family, number):
    with pytest.raises(ValueError, match=f"Received: .*{number!r}"):
        family(number)


@pytest.mark.parametrize(
    "identifier",
    [
        *("zigzag", "", None, 3, ["cosine"], "exponential"),
        *({}, {"name": None}, {"name": "zigzag"}, {"a": 0.1, "b": 0.9}),
        *({"name": "rex", "c": 1}, {"name": "cosine", "power": 2}, {"name": "cosine", "profile": 2}),
    ],
)
def test_unknown(identifier):
    with pytest.raises(ValueError, match="Received: "):
        profiles.get(identifier)


def test_floor_by_name():
    assert profiles.get("exponential", floor=0.2) == profiles.exponential(0.2)
    assert profiles.get({"name": "exponential", "floor": 0.3}, floor=0.2) == profiles.exponential(0.3)
    assert profiles.get("linear", floor=0.2) is profiles.linear


def test_register(monkeypatch):
    monkeypatch.setattr(profiles, "_KNOWN", dict(profiles._KNOWN))
    with pytest.raises(ValueError, match="Received: name='cosine'"):
        profiles.register("cosine", lambda: profiles.cosine)

    def plateau(height=0.5):
        def shape(done, left, xp):
            return xp.where(done < 0.5, left + (1 - height) * done, 2 * height * left)

        return profiles.Profile("plateau", shape, {"height": height})

    profiles.register("plateau", plateau)
    assert "plateau" in profiles.names()
    schedule = ProfileDecay(1.0, 8, profile={"name": "plateau", "height": 0.25})
    again = ProfileDecay.from_config(schedule.get_config())
    np.testing.assert_array_equal(again.values(9), schedule.values(9))
    assert again.profile == schedule.profile
