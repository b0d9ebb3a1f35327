"""The base of every schedule: what it is to Keras, to NumPy, to a plot and to a saved file."""

import inspect

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched.schedules.profiles import Profile


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A function of the number of updates done so far.

    The value at t is used by update t + 1, as Keras does with an optimizer's `iterations`. Nothing about it is special to
    the learning rate.

    A subclass writes its formula once, in `compute`, and stores each constructor argument under its own name: `get_config`
    and `repr` read them from there.
    """

    total_steps: int | None = None
    """How many updates the schedule was made for; `None` if it has no end."""

    def compute(self, step, xp):
        """The formula. `step` is an array of `xp`, which is `numpy` (float64 results) or `keras.ops` (float32)."""
        raise NotImplementedError(f"{type(self).__name__} must implement `compute(step, xp)`.")

    def __call__(self, step):
        """The value at `step`: an int, a NumPy integer, or an integer tensor of any dtype, also a symbolic one."""
        known = _known(step)
        if known is not None:
            return ops.convert_to_tensor(self.compute(known, np), dtype=float_dtype())
        with keras.name_scope(type(self).__name__):
            step = _standard_step(step)
            try:
                return self.compute(step, ops)
            except OverflowError as error:
                raise ValueError(
                    f"JAX counts steps in 32 bits: all of a schedule must be at most {2**31 - 1} there. Received: {self!r}"
                ) from error

    def values(self, steps):
        """The values in NumPy float64: of the first `steps` updates if it is an int, else of each step in the array."""
        if not np.ndim(steps):
            steps = np.arange(validation.non_negative_int("steps", steps))
        return np.asarray(self.compute(_widened(np.asarray(steps)), np), "float64")

    def plot(self, steps=None, ax=None, **options):
        """Draws the values of the first `steps` updates with Matplotlib.

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
            raise ValueError(f"{type(self).__name__} has no end: say how many `steps` to plot. Received: steps=None")
        ax = ax or plt.gca()
        ax.plot(np.arange(steps), self.values(steps), **options)
        ax.set_xlabel("update")
        return ax

    @classmethod
    def for_budget(cls, peak_learning_rate, total_steps, warmup_steps=0, **options):
        """The schedule in its usual proportions for a run of `total_steps` updates.

        Args:
            peak_learning_rate: The largest value. The same for two schedules that are to be compared.
            total_steps: Updates in the run, warmup included.
            warmup_steps: Updates until the peak; fewer than `total_steps`. Defaults to `0`.
            **options: Constructor arguments of the class.
        """
        raise NotImplementedError(f"{cls.__name__} has no usual proportions for a budget.")

    def __mul__(self, factor):
        from keras_lrsched.schedules.product import Product
        from keras_lrsched.schedules.scale import Scale

        if isinstance(factor, keras.optimizers.schedules.LearningRateSchedule):
            return Product([self, factor])
        return Scale(self, factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor):
        return self * (1 / validation.positive_float("divisor", divisor))

    def arguments(self):
        """What the constructor took, by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def get_config(self):
        return {name: _to_config(value) for name, value in self.arguments().items()}

    @classmethod
    def from_config(cls, config):
        return cls(**{name: _from_config(value) for name, value in config.items()})

    def __repr__(self):
        parameters = inspect.signature(type(self)).parameters
        given = {name: value for name, value in self.arguments().items() if value != parameters[name].default}
        return f"{type(self).__name__}({', '.join(f'{name}={_shown(value)}' for name, value in given.items())})"


LONG = 1000
"""Lists with more numbers are not shown as a whole."""


def _shown(value):
    """`repr` of an argument, on one line: of a long list, its first numbers and its last."""
    if not isinstance(value, (list, tuple)) or len(value) <= LONG:
        return repr(value)
    opening, closing = "()" if isinstance(value, tuple) else "[]"
    return f"{opening}{', '.join(map(repr, value[:3]))}, ..., {value[-1]!r}{closing}"


def float_dtype():
    """Schedules compute in float32 whatever the model's precision; in float64 if that is the whole program's."""
    return "float64" if keras.config.floatx() == "float64" else "float32"


def to_float(x, xp):
    """`x` as a float array of `xp`."""
    return np.asarray(x, "float64") if xp is np else ops.cast(x, float_dtype())


def to_int(x, xp):
    """`x` as an index array of `xp`."""
    return np.asarray(x, "int64") if xp is np else ops.cast(x, "int32")


def at_least(x, least, xp):
    """`maximum` of an array and a number in the array's own type.

    Under a model in bfloat16, Keras takes the number for a float: on JAX it would turn whole steps into float32, and on
    PyTorch round the number to bfloat16.
    """
    return xp.where(x < least, xp.full_like(x, least), x)


def _known(step):
    """The step in NumPy if its value is at hand, as in eager code; None inside a traced function or on a GPU.

    A schedule takes some twenty operations: twenty eager calls into a backend, or one read and twenty NumPy scalars.
    """
    try:
        return _widened(np.asarray(step))
    except (TypeError, NotImplementedError):  # a tensor that is being traced, or in the memory of another device
        return None


def _widened(step):
    """A NumPy step of any integer type in int64, so that unsigned and narrow ones do not wrap; floats stay floats."""
    return step.astype("int64") if step.dtype.kind in "iu" else step


def _standard_step(step):
    """`_widened` for a tensor: in the backend's own integer type."""
    step = ops.convert_to_tensor(step)
    return ops.cast(step, "int" if "int" in keras.backend.standardize_dtype(step.dtype) else float_dtype())


def _to_config(value):
    if isinstance(value, Profile):
        return value.get_config()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_to_config(item) for item in value]
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return keras.optimizers.schedules.serialize(value)
    return value


def _from_config(value):
    if isinstance(value, list):
        return [_from_config(item) for item in value]
    if isinstance(value, dict) and "class_name" in value:
        return keras.optimizers.schedules.deserialize(value)
    return value
