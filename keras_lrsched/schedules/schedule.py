"""The base of every schedule, and what is made of it by `*` or a rise in front: constant, multiple, product, warmup.

These are one module, since each needs the others: `0.5 * schedule` is a `Scale`, and a number stands for a `Constant`.
"""

import inspect
from collections.abc import Sequence
from typing import Any, Self, TypeAlias

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import _arrays, profiles
from keras_lrsched.schedules._arrays import at_least, to_float
from keras_lrsched.schedules.profiles import Profile, ProfileLike
from keras_lrsched.schedules.segment import Segment, progress

ScheduleLike: TypeAlias = LearningRateSchedule | float
"""A schedule of ours, any other of Keras, or a number, which stands for a constant."""


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A function of the number of updates done so far.

    The value at t is used by update t + 1, as Keras does with an optimizer's `iterations`. Nothing about it is special to
    the learning rate.

    A subclass writes its formula once, in `compute`, and stores each constructor argument under its own name: `get_config`
    and `repr` read them from there.
    """

    total_steps: int | None = None
    """Number of updates that the schedule was made for; `None` if it has no end."""

    def compute(self, step: Any, xp: Any) -> Any:
        """The formula. `step` is an array of `xp`, which is `numpy` (float64 results) or `keras.ops` (float32)."""
        raise NotImplementedError(f"{type(self).__name__} must implement `compute(step, xp)`.")

    def __call__(self, step: Any) -> Any:
        """The value at `step`: an int, a NumPy integer, or an integer tensor of any dtype, also a symbolic one."""
        known = _arrays.known(step)
        if known is not None:
            return ops.convert_to_tensor(self.compute(known, np), dtype=_arrays.float_dtype())
        with keras.name_scope(type(self).__name__):
            step = _arrays.standard_step(step)
            try:
                return self.compute(step, ops)
            except OverflowError as error:
                raise ValueError(
                    f"JAX counts steps in 32 bits: all of a schedule must be at most {2**31 - 1} there. Received: {self!r}"
                ) from error

    def values(self, steps: int | Sequence[int] | np.ndarray) -> np.ndarray:
        """The values in NumPy float64: of the first `steps` updates if it is an int, else of each step in the array."""
        if not np.ndim(steps):
            steps = np.arange(validation.non_negative_int("steps", steps))
        return np.asarray(self.compute(_arrays.widened(np.asarray(steps)), np), "float64")

    def plot(self, steps: int | None = None, ax: Any = None, **options: Any) -> Any:
        """Draw the values of the first `steps` updates with Matplotlib.

        Args:
            steps: How many updates. Defaults to `total_steps`.
            ax: The Matplotlib axes to draw on. Defaults to the current ones.
            **options: Passed to `ax.plot`, for instance `label` or `color`.

        Returns:
            The axes.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("`plot` needs Matplotlib: pip install 'keras-lrsched[plot]'") from error
        steps = steps or self.total_steps
        if steps is None:
            raise ValueError(f"{type(self).__name__} has no end: `plot` needs the number of `steps`. Received: steps=None")
        ax = ax or plt.gca()
        ax.plot(np.arange(steps), self.values(steps), **options)
        ax.set_xlabel("update")
        return ax

    @classmethod
    def for_budget(cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any) -> "Schedule":
        """The schedule in its usual proportions for a run of `total_steps` updates.

        Args:
            peak_learning_rate: The largest value. The same for two schedules that are to be compared.
            total_steps: Updates in the run, warmup included.
            warmup_steps: Updates until the peak; fewer than `total_steps`. Defaults to `0`.
            **options: Constructor arguments of the class.
        """
        raise NotImplementedError(f"{cls.__name__} has no usual proportions for a budget.")

    def __mul__(self, factor: ScheduleLike) -> "Schedule":
        if isinstance(factor, keras.optimizers.schedules.LearningRateSchedule):
            return Product([self, factor])
        return Scale(self, factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "Schedule":
        return self * (1 / validation.positive_float("divisor", divisor))

    def arguments(self) -> dict[str, Any]:
        """The arguments of the constructor, by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def get_config(self) -> dict[str, Any]:
        return {name: _to_config(value) for name, value in self.arguments().items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{name: _from_config(value) for name, value in config.items()})

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self)).parameters
        given = {name: value for name, value in self.arguments().items() if value != parameters[name].default}
        return f"{type(self).__name__}({', '.join(f'{name}={_shown(value)}' for name, value in given.items())})"


@register(
    "constant",
    title="constant",
    kind="learning rate",
)
class Constant(Schedule):
    """The same value at every update: value(t) = `value`.

    Args:
        value: A non-negative number.

    Raises:
        ValueError: If `value` is negative, not finite, or no number.

    Example:

    >>> Constant(0.1).values(3)
    array([0.1, 0.1, 0.1])
    """

    def __init__(self, value: float) -> None:
        self.value = validation.non_negative_float("value", value)

    def compute(self, step: Any, xp: Any) -> Any:
        return xp.full_like(to_float(step, xp), self.value)

    @classmethod
    def for_budget(cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any) -> "Schedule":
        """Constant at the peak, behind a linear warmup if there is one."""
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        return Warmup(peak_learning_rate, warmup_steps, **options) if warmup_steps else cls(peak_learning_rate, **options)


@register(
    title="a schedule times a number",
    kind="combinator",
)
class Scale(Schedule):
    """A schedule times a number: value(t) = factor * schedule(t). Written `0.5 * schedule`.

    Args:
        schedule: A `LearningRateSchedule`, or a number for a constant.
        factor: A number, at least 0.

    Raises:
        ValueError: If `factor` is negative.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay
    >>> (0.5 * LinearDecay(1.0, decay_steps=4)).values(5)
    array([0.5  , 0.375, 0.25 , 0.125, 0.   ])
    """

    def __init__(self, schedule: ScheduleLike, factor: float) -> None:
        self.schedule = as_schedule("schedule", schedule)
        self.factor = validation.non_negative_float("factor", factor)
        self.total_steps = getattr(self.schedule, "total_steps", None)

    def compute(self, step: Any, xp: Any) -> Any:
        return self.factor * compute(self.schedule, step, xp)


@register(
    title="schedules times one another",
    kind="combinator",
)
class Product(Schedule):
    """Schedules times one another: value(t) = f_0(t) * f_1(t) * ... Two of them can be written `schedule * factor`.

    Args:
        schedules: A list of at least two `LearningRateSchedule`s or numbers.

    Raises:
        ValueError: If there are fewer than two, or one is neither a schedule nor a non-negative number.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay, PiecewiseConstant
    >>> (LinearDecay(1.0, decay_steps=4) * PiecewiseConstant([2], [1, 2])).values(5)
    array([1.  , 0.75, 1.  , 0.5 , 0.  ])
    """

    def __init__(self, schedules: Sequence[ScheduleLike]) -> None:
        if not isinstance(schedules, (list, tuple)) or len(schedules) < 2:
            raise ValueError(f"`schedules` must be a list of two or more. Received: schedules={schedules!r}")
        self.schedules = [as_schedule("schedules", schedule) for schedule in schedules]
        ends = [getattr(schedule, "total_steps", None) for schedule in self.schedules]
        self.total_steps = max((end for end in ends if end is not None), default=None)

    def compute(self, step: Any, xp: Any) -> Any:
        value = compute(self.schedules[0], step, xp)
        for schedule in self.schedules[1:]:
            value = value * compute(schedule, step, xp)
        return value


@register(
    title="a rise to the first value of a schedule, then that schedule",
    paper="arXiv:1706.02677",
    checked="memory",
    kind="combinator",
)
class Warmup(Schedule):
    """A rise to the first value of a schedule, and then that schedule from its step 0 on.

    With peak = schedule(0), W = `warmup_steps` and s = `warmup_start`:

        t < W:   peak * (s + (1 - s) * t / W)
        t >= W:  schedule(t - W)

    The peak is reached at t = W. Another `profile` rises along that profile played backwards.

    Args:
        schedule: A `LearningRateSchedule`, or a number for a constant.
        warmup_steps: Updates until the peak; 0 for the schedule as it is.
        warmup_start: The value at t = 0 as a fraction of the peak. Defaults to `0.0`. Goyal et al. start at 1 / k for a
            batch that is k times the usual one.
        profile: A `Profile` or its name. Defaults to `"linear"`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: arXiv:1706.02677.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay
    >>> Warmup(LinearDecay(1.0, decay_steps=4), warmup_steps=2).values(7)
    array([0.  , 0.5 , 1.  , 0.75, 0.5 , 0.25, 0.  ])
    """

    def __init__(
        self, schedule: ScheduleLike, warmup_steps: int, warmup_start: float = 0.0, profile: ProfileLike = "linear"
    ) -> None:
        self.schedule = as_schedule("schedule", schedule)
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
        self.warmup_start = validation.fraction("warmup_start", warmup_start)
        self.profile = profiles.get(profile, floor=self.warmup_start)
        rest = getattr(self.schedule, "total_steps", None)
        self.total_steps = None if rest is None else self.warmup_steps + rest
        self._rise = Segment(self.warmup_steps, self.warmup_start, 1.0, self.profile)

    def compute(self, step: Any, xp: Any) -> Any:
        if not self.warmup_steps:
            return compute(self.schedule, step, xp)
        done, left = progress(step, 0, self.warmup_steps, xp)
        rise = self._rise.value(done, left, xp)
        rest = compute(self.schedule, at_least(step - self.warmup_steps, 0, xp), xp)
        # During the rise, `rest` is the schedule's first value: the peak.
        return xp.where(step < self.warmup_steps, rise * rest, rest)


def as_schedule(name: str, value: Any) -> LearningRateSchedule:
    """`value` as a schedule.

    Raises:
        ValueError: If it is neither a `LearningRateSchedule` nor a non-negative number.
    """
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return value
    try:
        return Constant(value)
    except ValueError:
        raise ValueError(
            f"`{name}` must be a LearningRateSchedule or a non-negative number. Received: {name}={value!r}"
        ) from None


def compute(schedule: LearningRateSchedule, step: Any, xp: Any) -> Any:
    """`schedule.compute(step, xp)`, also for schedules that are not ours, which are evaluated step by step in NumPy."""
    if isinstance(schedule, Schedule):
        return schedule.compute(step, xp)
    if xp is not np:
        return to_float(schedule(step), xp)
    values = [keras.ops.convert_to_numpy(schedule(int(t))) for t in np.ravel(step)]
    return np.reshape(np.asarray(values, "float64"), np.shape(step))


LONG = 1000
"""Lists with more numbers are not shown as a whole."""


def _shown(value: Any) -> str:
    """`repr` of an argument, on one line: of a long list, its first numbers and its last."""
    if not isinstance(value, (list, tuple)) or len(value) <= LONG:
        return repr(value)
    opening, closing = "()" if isinstance(value, tuple) else "[]"
    return f"{opening}{', '.join(map(repr, value[:3]))}, ..., {value[-1]!r}{closing}"


def _to_config(value: Any) -> Any:
    if isinstance(value, Profile):
        return value.get_config()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_to_config(item) for item in value]
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return keras.optimizers.schedules.serialize(value)
    return value


def _from_config(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_config(item) for item in value]
    if isinstance(value, dict) and "class_name" in value:
        return keras.optimizers.schedules.deserialize(value)
    return value
