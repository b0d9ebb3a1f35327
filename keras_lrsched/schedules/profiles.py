"""Profiles: the shapes that every decay, warmup and cooldown is made of.

A profile falls from 1 to 0 while its segment goes from x = 0 to x = 1. A schedule stretches it over steps and between two
values; a warmup is a profile played backwards. The split of a schedule into *profile* and *sampling rate* is that of
REX (Chen et al. 2021, arXiv:2107.04197).

Each formula is written once and serves NumPy in float64 and Keras tensors in float32: `xp` is the namespace, `numpy` or
`keras.ops`. It receives both the part `done` (x) and the part `left` (1 - x) of the segment, each rounded once from whole
steps, and uses the one that does not cancel: near the end of a long decay `1 + cos(pi * x)` has lost all its digits in
float32, where `sin(pi / 2 * left) ** 2`, the same function, has kept them.

Example:

>>> from keras_lrsched.schedules import profiles
>>> float(profiles.one_minus_sqrt(0.25))
0.5
>>> profiles.rex(a=0.1, b=0.9)
rex(a=0.1, b=0.9)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, SupportsIndex, TypeAlias

import keras
import numpy as np

from keras_lrsched._core import validation


@dataclass(frozen=True)
class Profile:
    """A shape on [0, 1] that falls from 1 to `end`.

    Args:
        name: The name under which `profiles.get` finds it.
        shape: A function `shape(done, left, xp)` of the parts of the segment that are done and left, where `xp` is `numpy`
            or `keras.ops`.
        parameters: The numbers that made this member of a family, as a dict. Defaults to `{}`.
        end: The value at x = 1: 0, or the floor of a shape that never reaches 0. Defaults to `0.0`.
    """

    name: str
    shape: Callable = field(compare=False)
    parameters: dict = field(default_factory=dict)
    end: float = 0.0

    def __call__(self, x: Any) -> Any:
        """The value at `x`, a number, array or tensor in [0, 1]."""
        if keras.ops.is_tensor(x):
            return self.shape(x, 1 - x, keras.ops)
        x = np.asarray(x, "float64")
        return self.shape(x, 1 - x, np)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, **self.parameters}

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...] | str:
        """By name, if it is known by one: the functions in this module have no names of their own, which pickling needs."""
        if self.name in _KNOWN:
            known = get(self.get_config())
            if known == self and getattr(known.shape, "__code__", known) is getattr(self.shape, "__code__", self):
                return get, (self.get_config(),)
        return super().__reduce_ex__(protocol)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.parameters.items())
        return f"{self.name}({arguments})" if arguments else self.name


ProfileLike: TypeAlias = Profile | str | dict[str, Any]
"""A profile, its name, or its config: what `get` takes."""


def _half_cosine(left: Any, xp: Any) -> Any:
    """(1 + cos(pi x)) / 2, without cancellation as x nears 1."""
    return xp.square(xp.sin(math.pi / 2 * left))


linear = Profile("linear", lambda done, left, xp: left)
"""1 - x."""

cosine = Profile("cosine", lambda done, left, xp: _half_cosine(left, xp))
"""(1 + cos(pi x)) / 2 (Loshchilov & Hutter 2017, arXiv:1608.03983)."""

mirror_cosine = Profile("mirror_cosine", lambda done, left, xp: 2 * left - _half_cosine(left, xp))
"""2 (1 - x) - (1 + cos(pi x)) / 2: the cosine mirrored at the line (Hägele et al. 2024, arXiv:2405.18392)."""

one_minus_sqrt = Profile("one_minus_sqrt", lambda done, left, xp: left / (1 + xp.sqrt(done)))
"""1 - sqrt(x), which is (1 - x) / (1 + sqrt(x)); the best cooldown of Hägele et al. 2024 (arXiv:2405.18392)."""

sqrt_of_remaining = Profile("sqrt_of_remaining", lambda done, left, xp: xp.sqrt(left))
"""sqrt(1 - x). Some libraries call this one "sqrt", others `one_minus_sqrt`."""

square = Profile("square", lambda done, left, xp: left * (1 + done))
"""1 - x^2 (Hägele et al. 2024, arXiv:2405.18392)."""


def polynomial(power: float = 1.0) -> Profile:
    """(1 - x)^power, as `keras.optimizers.schedules.PolynomialDecay`. `power` must be positive."""
    power = validation.positive_float("power", power)
    # Not `xp.power`: Keras on PyTorch rounds a bare exponent to the model's precision.
    return Profile("polynomial", lambda done, left, xp: left**power, {"power": power})


def exponential(floor: float) -> Profile:
    """floor^x: a straight line on a log axis, from 1 to `floor` in (0, 1). It never reaches 0."""
    floor = validation.inner_fraction("floor", floor)
    return Profile("exponential", lambda done, left, xp: xp.exp(math.log(floor) * done), {"floor": floor}, end=floor)


def exponential_to_zero(floor: float = 0.5) -> Profile:
    """(floor^x - floor) / (1 - floor): `exponential` stretched to reach 0. Megatron-LM's cooldown is `floor=0.5`."""
    floor = validation.inner_fraction("floor", floor)
    scale = floor / (1 - floor)
    return Profile("exponential_to_zero", lambda done, left, xp: scale * xp.expm1(-math.log(floor) * left), {"floor": floor})


def inverse_proportional(floor: float) -> Profile:
    """1 / (1 + x (1 / floor - 1)): a straight line of 1 / value, from 1 to `floor` (Wen et al. 2024, arXiv:2410.05192)."""
    floor = validation.inner_fraction("floor", floor)
    slope = 1 / floor - 1
    return Profile("inverse_proportional", lambda done, left, xp: 1 / (1 + slope * done), {"floor": floor}, end=floor)


def inverse_power(floor: float, power: float = 0.5) -> Profile:
    """(1 + x (floor^(-1 / power) - 1))^-power: a stretch of the power law n^-power, from 1 to `floor` in (0, 1)."""
    floor = validation.inner_fraction("floor", floor)
    power = validation.positive_float("power", power)
    log_ratio = -math.log(floor) / power  # of the last n to the first
    if log_ratio > 60:
        raise ValueError(f"`power` is too small for this floor. Received: power={power}, floor={floor}")
    slope = math.expm1(log_ratio)
    parameters = {"floor": floor, "power": power}
    return Profile("inverse_power", lambda done, left, xp: (1 + slope * done) ** -power, parameters, end=floor)


def inverse_sqrt(floor: float) -> Profile:
    """1 / sqrt(1 + x (floor^-2 - 1)): `inverse_power` of 1 / 2 (Ibrahim et al. 2024, arXiv:2403.08763, from memory)."""
    power_law = inverse_power(floor, 0.5)
    return replace(power_law, name="inverse_sqrt", parameters={"floor": power_law.end})


def lowered_linear(level: float = 0.7) -> Profile:
    """level (1 - x): drops to `level` at once, then linearly to 0 (Dremov et al. 2025, arXiv:2508.01483).

    The paper gives the name and 0.7; that this is its exact form is inferred from its figure, not verified.
    """
    level = validation.positive_fraction("level", level)
    return Profile("lowered_linear", lambda done, left, xp: level * left, {"level": level})


def rex(a: float = 0.5, b: float = 0.5) -> Profile:
    """(1 - x) / (a + b (1 - x)), a + b = 1, a > 0 (Chen et al. 2021, arXiv:2107.04197).

    The paper has a = b = 0.5. Code in circulation often has a = 0.1, b = 0.9, which stays high for longer.
    """
    a = validation.positive_float("a", a)
    if not isinstance(b, (int, float, np.number)) or not math.isclose(a + b, 1.0):
        raise ValueError(f"`a` and `b` must sum to 1, so that the profile starts at 1. Received: a={a!r}, b={b!r}")
    return Profile("rex", lambda done, left, xp: left / (a + b * left), {"a": a, "b": float(b)})


def uba(phi: float = 1.0) -> Profile:
    """2 c / (2 phi + (2 - phi) c) with c = 1 + cos(pi x) (Tang et al. 2025, arXiv:2505.24452).

    phi = 2 is the cosine; a smaller phi > 0 stays high for longer; a larger one falls earlier.
    """
    phi = validation.positive_float("phi", phi)

    def shape(done: Any, left: Any, xp: Any) -> Any:
        half = _half_cosine(left, xp)
        return 2 * half / (phi + (2 - phi) * half)

    return Profile("uba", shape, {"phi": phi})


_SHAPES = (linear, cosine, mirror_cosine, one_minus_sqrt, sqrt_of_remaining, square)
_FAMILIES = (
    *(polynomial, exponential, exponential_to_zero, inverse_power, inverse_proportional, inverse_sqrt),
    *(lowered_linear, rex, uba),
)
_KNOWN: dict[str, Callable[..., Profile]] = {profile.name: lambda profile=profile, /: profile for profile in _SHAPES}
_KNOWN |= {family.__name__: family for family in _FAMILIES}
_NEEDS_FLOOR = ("exponential", "inverse_power", "inverse_proportional", "inverse_sqrt")


def names() -> list[str]:
    """The names that `get` finds."""
    return sorted(_KNOWN)


def register(name: str, factory: Callable[..., Profile]) -> None:
    """Register `factory(**parameters) -> Profile` under a name, so that schedules which use it can be saved and loaded."""
    if name in _KNOWN:
        raise ValueError(f"A profile of this name exists already. Received: name={name!r}")
    _KNOWN[name] = factory


def get(identifier: ProfileLike, floor: float | None = None) -> Profile:
    """The profile of a name or config.

    Args:
        identifier: A `Profile`, a name (`"cosine"`), or a config (`{"name": "rex", "a": 0.1, "b": 0.9}`).
        floor: The end of a shape that never reaches 0 (`"exponential"` and the `"inverse_..."` ones) when it is given
            without. Defaults to `None`.

    Raises:
        ValueError: If no profile has this name, or its parameters do not fit.
    """
    if isinstance(identifier, Profile):
        return identifier
    parameters: dict[str, Any] = dict(identifier) if isinstance(identifier, dict) else {"name": identifier}
    name = parameters.pop("name", None)
    if not isinstance(name, str) or name not in _KNOWN:
        raise ValueError(f"Unknown profile. Known: {', '.join(names())}. Received: {identifier!r}")
    if name in _NEEDS_FLOOR and "floor" not in parameters:
        if not floor:
            raise ValueError(
                f"The profile {name!r} never reaches 0: give it a floor, by `alpha` > 0. Received: alpha={floor!r}"
            )
        parameters["floor"] = floor
    try:
        return _KNOWN[name](**parameters)
    except TypeError as error:
        raise ValueError(
            f"The profile {name!r} does not take these parameters: {error}. Received: {identifier!r}"
        ) from error
